"""Make data for classification, span and joint from the docstrings of the Python standard library installed here.

    python examples/tasks/make_tasks_data.py [--out examples/tasks/data]

The sources are parsed, never imported; the same Python gives the same bytes. Three files of JSON lines:
`categories.jsonl` (text, label: what the module is for), `returns.jsonl` (text, question "What does NAME return?",
answer with its place, or none) and `both.jsonl` (all of it, for the things that take part in both).
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CATEGORIES = {
    "concurrency": "asyncio concurrent multiprocessing threading subprocess sched queue selectors signal",
    "internet": "http urllib socket socketserver ssl ftplib smtplib imaplib poplib email xmlrpc mailbox wsgiref",
    "text": "re string textwrap difflib html xml json csv configparser tomllib codecs encodings locale gettext",
    "files": "os shutil pathlib tempfile glob fnmatch zipfile tarfile gzip bz2 lzma io fileinput posixpath ntpath stat",
    "numbers": "statistics random decimal fractions numbers datetime calendar _pydatetime _pydecimal colorsys zoneinfo",
    "development": "unittest doctest pdb bdb trace traceback inspect ast dis tokenize pydoc cProfile timeit importlib",
}
MODULES = {module: category for category, modules in CATEGORIES.items() for module in modules.split()}
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}
SHORTEST, LONGEST = 40, 1500  # characters of a text
RETURNS = re.compile(r"\b[Rr]eturns?\s+(?P<what>[^.:;]{6,120}?)(?=[.:;]|\s*$)", re.DOTALL)
Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Thing:
    """One documented function, method or class of a module."""

    module: str
    name: str
    text: str
    callable: bool

    @property
    def question(self) -> str:
        """What is asked of its docstring."""
        return f"What does {self.name} return?"

    @property
    def answer(self) -> tuple[str, int] | None:
        """What it says to return and where, None when it does not say."""
        found = RETURNS.search(self.text)
        return (found["what"], found.start("what")) if found else None


def main(arguments: list[str] | None = None) -> int:
    """Write the files; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data", help="folder to write to")
    out: Path = parser.parse_args(arguments).out
    things = list({thing.text: thing for thing in collect(Path(sysconfig.get_paths()["stdlib"]))}.values())
    if len(things) < 1000:
        print(f"only {len(things)} docstrings were found; this Python was built without them", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    asked = [thing for thing in things if thing.callable]
    sorted_out = [thing for thing in things if thing.module in MODULES]
    write(out / "categories.jsonl", (labelled(thing) for thing in sorted_out))
    write(out / "returns.jsonl", (spanned(thing) for thing in asked))
    write(out / "both.jsonl", (labelled(thing) | spanned(thing) for thing in sorted_out if thing.callable))
    return 0


def labelled(thing: Thing) -> dict[str, Any]:
    """A record of classification."""
    return {"text": thing.text, "label": MODULES[thing.module]}


def spanned(thing: Thing) -> dict[str, Any]:
    """A record of span; an empty answer is none."""
    what, place = thing.answer or ("", None)
    return {"text": thing.text, "question": thing.question, "answer": what, "answer_start": place}


def write(path: Path, records: Iterator[dict[str, Any]]) -> None:
    """One record a line."""
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(lines)} records")


def collect(library: Path) -> Iterator[Thing]:
    """Everything that has a docstring of a fitting length, by file and line."""
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if LEFT_OUT & set(parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue  # some files are meant to be broken
        for node in ast.walk(tree):
            if isinstance(node, Documented):
                text = " ".join((ast.get_docstring(node) or "").split())
                if SHORTEST <= len(text) <= LONGEST:
                    yield Thing(parts[0], node.name, text, not isinstance(node, ast.ClassDef))


if __name__ == "__main__":
    sys.exit(main())
