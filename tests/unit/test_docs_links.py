"""Every link of the documentation leads somewhere: to a file that is there, and to a heading that it has."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import docs_pages

LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(\s*<?([^()\s<>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$")
NAMED_IN_CODE = re.compile(r"\bdocs/[A-Za-z0-9_./-]*\.md\b")
PAGES = docs_pages.pages()


def anchors(text: str) -> set[str]:
    """Of each heading, as GitHub makes them: lower case, no punctuation, a number behind a repeated one."""
    seen: Counter[str] = Counter()
    found = set()
    for _, line in docs_pages.parted(text)[1]:
        if heading := HEADING.match(line):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "").lower()
            name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


def broken(page: Path, text: str) -> list[str]:
    """What the page points to and is not there."""
    problems = []
    for number, line in docs_pages.parted(text)[1]:
        # A link's words may stand in backticks, so only spans that hold a link are no link.
        for target in LINK.findall(re.sub(r"`[^`]*\]\([^`]*`", "", line)):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            path, _, anchor = target.partition("#")
            there = (docs_pages.CHECKOUT / page).parent / path if path else docs_pages.CHECKOUT / page
            if not there.exists():
                problems.append(f"{page}:{number}: {target}: there is no such file")
            elif anchor and anchor not in anchors(there.read_text(encoding="utf-8")):
                problems.append(f"{page}:{number}: {target}: there is no such heading")
    return problems


def test_every_link_leads_to_a_file_and_a_heading_that_are_there() -> None:
    assert [problem for page in PAGES for problem in broken(page, docs_pages.read(page))] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, ahead = set[Path](), [Path("README.md")]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in LINK.findall("\n".join(line for _, line in docs_pages.parted(docs_pages.read(page))[1])):
            there = ((docs_pages.CHECKOUT / page).parent / target.partition("#")[0]).resolve()
            if there.suffix == ".md" and there.is_relative_to(docs_pages.CHECKOUT):
                ahead.append(there.relative_to(docs_pages.CHECKOUT))
    assert sorted(str(page) for page in set(PAGES) - reached) == []


@pytest.mark.parametrize("top", ["core", "cli", "operator", "trainer", "local", "crds", "helm", "images", "examples"])
def test_every_page_that_a_message_or_a_comment_names_is_there(top: str) -> None:
    kinds = {".py", ".yaml", ".txt", ".tpl", ".toml", ".sh"}
    missing = {
        f"{path.relative_to(docs_pages.CHECKOUT)}: {name}"
        for path in (docs_pages.CHECKOUT / top).rglob("*")
        if path.suffix in kinds and "runs" not in path.parts and path.is_file()
        for name in NAMED_IN_CODE.findall(path.read_text(encoding="utf-8"))
        if not (docs_pages.CHECKOUT / name).is_file()
    }
    assert missing == set()


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = "# A heading, `code` and more\n\n[x](#a-heading-code-and-more) [y](#no) [z](no.md) `[w](not-a-link.md)`\n"
    assert broken(Path("README.md"), "[y](#no-such-heading) [z](no.md)\n") == [
        "README.md:1: #no-such-heading: there is no such heading",
        "README.md:1: no.md: there is no such file",
    ]
    assert anchors(text) == {"a-heading-code-and-more"}
    assert len(broken(Path("docs/README.md"), text)) == 3  # not the span
