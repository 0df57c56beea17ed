"""docs/design/trainer-rules.md names a test for each rule of the trainer: each of them is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/design/trainer-rules.md"
SECTIONS = (
    "Loop and finiteness",
    "Packing",
    "Mixture of LoRA experts",
    "Parallel and quantised",
    "Memory errors",
    "Checkpoints",
    "Goodput",
    "Evaluation that means something",
    "Speed",
)
_NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
_BENCH = re.compile(r"bench: `(python -m bench [a-z -]+)`")


def rows() -> list[tuple[str, str, str]]:
    """(section, rule, what shows it) of each row."""
    found, section = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith("| rule |"):
            rule, _, shown = line.strip("| ").partition(" | ")
            found.append((section, rule, shown))
    return found


@cache
def names_in(file: str) -> frozenset[str]:
    """Names of the test functions of a file below tests/, by its text alone."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


NAMED = sorted({(file, name) for _, _, shown in rows() for file, name in _NAMED.findall(shown)})


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[f"{file}::{name}" for file, name in NAMED])
def test_a_test_that_the_page_names_is_in_its_file(file: str, name: str) -> None:
    assert (ROOT / "tests" / file).is_file(), f"there is no tests/{file}"
    assert name in names_in(file), f"tests/{file} has no {name}; correct {PAGE.name}"


def test_every_section_has_rules_and_every_rule_something_that_shows_it() -> None:
    assert tuple(dict.fromkeys(section for section, _, _ in rows())) == SECTIONS
    bare = [
        rule
        for _, rule, shown in rows()
        if not (_NAMED.search(shown) or _BENCH.search(shown) or "needs a GPU" in shown)
    ]
    assert bare == []


def test_every_bench_that_the_page_names_is_one_of_the_benches() -> None:
    known = (ROOT / "bench/README.md").read_text(encoding="utf-8")
    commands = {command for _, _, shown in rows() for command in _BENCH.findall(shown)}
    assert commands
    assert [command for command in sorted(commands) if f"`{command}" not in known] == []
