"""Make questions and answers from the docstrings of the Python standard library that is installed here.

    python examples/make_stdlib_qa.py [--out examples/data]

Text that nobody wrote for this purpose and that is on every machine with Python. The sources are parsed, never
imported, so nothing runs. The same Python gives the same bytes. Two files with the same content, in the two formats:
`stdlib-qa.json` ({"conversations": [{"text": question, line break, answer}]}) and `stdlib-chat.jsonl` (messages of a
user and an assistant).
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
SHORTEST, LONGEST = 24, 240  # characters of an answer
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
VERBS = {"function": "do", "method": "do", "class": "stand for", "module": "offer"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One documented thing: its kind, its dotted name, its parameters, and its docstring's first paragraph."""

    kind: str
    name: str
    parameters: str
    answer: str

    @property
    def question(self) -> str:
        """What one would ask to get the answer: the name as it is written and, for who reads it aloud, in words."""
        words = spoken(self.name.rpartition(".")[2]) + (f" with {spoken(self.parameters)}" if self.parameters else "")
        return f"What does the {self.kind} {self.name} {VERBS[self.kind]}: {words}?"


def main(arguments: list[str] | None = None) -> int:
    """Write both files; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data", help="folder to write to")
    out: Path = parser.parse_args(arguments).out
    entries = list(unique(collect(Path(sysconfig.get_paths()["stdlib"]))))
    if len(entries) < 1000:
        print(
            f"only {len(entries)} docstrings were found in {sysconfig.get_paths()['stdlib']}; this Python was built "
            "without them: use another one",
            file=sys.stderr,
        )
        return 1
    out.mkdir(parents=True, exist_ok=True)
    conversations = {"conversations": [{"text": f"{entry.question}\n{entry.answer}"} for entry in entries]}
    text = json.dumps(conversations, ensure_ascii=False, indent=0) + "\n"
    (out / "stdlib-qa.json").write_text(text, encoding="utf-8")
    with (out / "stdlib-chat.jsonl").open("w", encoding="utf-8") as file:
        for entry in entries:
            turns = [{"role": "user", "content": entry.question}, {"role": "assistant", "content": entry.answer}]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    print(f"{len(entries)} questions and answers from Python {sys.version.split()[0]} in {out}")
    return 0


def collect(root: Path) -> Iterator[Entry]:
    """All documented things below the folder of the standard library, in the order of their files and lines."""
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        relative = path.relative_to(root)
        if LEFT_OUT & set(relative.parts[:-1]) or relative.stem.startswith("test_"):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # a few files there are examples of what does not parse
        parts = [part for part in relative.with_suffix("").parts if part != "__init__"]
        if parts and "__main__" not in parts:
            yield from of_module(tree, ".".join(parts))


def of_module(tree: ast.Module, module: str) -> Iterator[Entry]:
    """The module itself, its functions and classes, and their methods but the ones with double underscores."""
    yield from entry("module", module, "", tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from entry("function", f"{module}.{node.name}", signature(node), node)
        elif isinstance(node, ast.ClassDef):
            yield from entry("class", f"{module}.{node.name}", "", node)
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("__"):
                    yield from entry("method", f"{module}.{node.name}.{inner.name}", signature(inner), inner)


def entry(kind: str, name: str, parameters: str, node: Documented) -> Iterator[Entry]:
    """The thing, if its docstring says something of a useful length."""
    text = ast.get_docstring(node)
    answer = " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())
    if SHORTEST <= len(answer) <= LONGEST and not answer.isupper():
        yield Entry(kind, name, parameters, answer)


def spoken(name: str) -> str:
    """An identifier or a list of them in lower-case words: `set_eventLoop` is set event loop."""
    return " ".join(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name))


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The names of the parameters, without self."""
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return ", ".join(name for name in names if name not in ("self", "cls"))


def unique(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The entries with a new answer; the same words under many names would make evaluation a memory test."""
    seen: set[str] = set()
    for one in entries:
        if one.answer.casefold() not in seen:
            seen.add(one.answer.casefold())
            yield one


if __name__ == "__main__":
    sys.exit(main())
