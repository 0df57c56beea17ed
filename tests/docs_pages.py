"""The pages that people read, as the tests of the documentation see them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
_MADE = frozenset({"runs", "results", "node_modules"})
"""Folders that programs fill."""
_FENCE = re.compile(r"^( *)(`{3,})[ ]*([^`\n]*)$")
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced or indented piece of a page; `line` is its first line, `kind` what stands behind the fence."""

    line: int
    kind: str
    text: str


def pages() -> list[Path]:
    """Every page of the checkout, by its path in it."""
    tops = [
        each for each in CHECKOUT.iterdir() if each.is_dir() and each.name[0] not in "._" and each.name not in _MADE
    ]
    found = [path for top in tops for path in top.rglob("*.md") if not _MADE & set(path.relative_to(CHECKOUT).parts)]
    return sorted(path.relative_to(CHECKOUT) for path in (*CHECKOUT.glob("*.md"), *found))


def read(page: Path) -> str:
    """The page's text."""
    return (CHECKOUT / page).read_text(encoding="utf-8")


def parted(text: str) -> tuple[list[Block], list[tuple[int, str]]]:
    """(blocks of code, (number, line) of everything else); lines count from 1."""
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line, start = lines[number], number
        if fence := _FENCE.match(line):
            number += 1
            while number < len(lines) and lines[number].strip() != fence[2]:
                number += 1
            body = lines[start + 1 : number]
            number += 1
            blocks.append(Block(start + 2, fence[3].strip(), "\n".join(body)))
        elif line.startswith("    ") and (start == 0 or not lines[start - 1].strip()) and not _in_a_list(prose):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            blocks.append(Block(start + 1, "", "\n".join(each[4:] for each in lines[start:number])))
        else:
            prose.append((start + 1, line))
            number += 1
    return blocks, prose


def _in_a_list(prose: list[tuple[int, str]]) -> bool:
    last = next((line for _, line in reversed(prose) if line.strip()), "")
    return last.startswith(("- ", "* ", "  ", "1. "))


def spans(line: str) -> Iterator[str]:
    """What stands in backticks."""
    for found in _SPAN.finditer(line):
        yield found[2].strip()


def without_spans(line: str) -> str:
    """The line without what stands in backticks."""
    return _SPAN.sub("", line)
