"""What the documentation tells people to type is what the commands take; what it tells them to write is read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel

import docs_pages
from tollgate.api.compute_profile import ComputeProfileSpec
from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.api.training_run import TrainingRunSpec
from tollgate.contract import API_VERSION
from tollgate.manifest.loader import load_bytes
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_cli.main import tollgate

START = re.compile(r"(?:^|[;&|(]\s*|\$ )(?:[A-Za-z_]\w*=\S* )*(?:sudo )?(?=(tollgate(?: .*|$)))")
"""Where a shell's command begins; the look ahead lets a line hold several."""
PLACEHOLDER = re.compile(r"\.\.\.|…")


@dataclass(frozen=True, slots=True)
class Typed:
    """`words` behind `tollgate`; whole: all of it is to be typed, so nothing that is required may be missing."""

    place: str
    words: tuple[str, ...]
    whole: bool


def typed(page: Path, text: str) -> Iterator[Typed]:
    """The commands of a page, in its blocks and in backticks."""
    blocks, prose = docs_pages.parted(text)
    for block in blocks:
        if block.kind not in ("json", "yaml", "python", "toml"):
            # A folded line is one command, as a shell reads it.
            for line in block.text.replace("\\\n", " ").splitlines():
                for found in START.finditer(line.strip()):
                    yield from _words(f"{page}:{block.line}", found[1], whole=True)
    for number, line in prose:
        for span in docs_pages.spans(line):
            if span.startswith("tollgate ") and not PLACEHOLDER.search(span):
                yield from _words(f"{page}:{number}", span, whole=False)


def taught(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[Typed]:
    """The examples in the help of every command."""
    for line in (command.epilog or "").replace("\\\n", " ").splitlines():
        if line.startswith("  "):
            for found in START.finditer(line.strip()):
                yield from _words(f"tollgate {' '.join(path)} --help", found[1], whole=True)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from taught(below, (*path, name))


def commented() -> Iterator[Typed]:
    """The commands in the comments of the examples."""
    for path in sorted((docs_pages.CHECKOUT / "examples").rglob("*.yaml")):
        place = path.relative_to(docs_pages.CHECKOUT)
        if "runs" not in place.parts:
            for command in re.findall(r"^#\s+(tollgate .*)", path.read_text(encoding="utf-8"), re.MULTILINE):
                yield from _words(str(place), command, whole=True)


def _words(place: str, command: str, *, whole: bool) -> Iterator[Typed]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";|&<>()")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set(";|&<>()"):
            break
        words.append(word)
    yield Typed(place, tuple(words[1:]), whole)


def problem(found: Typed) -> str | None:
    """Why click would not take it: an unknown command or option, a missing or wrong value. Nothing is run."""
    command: click.Command = tollgate
    context = click.Context(tollgate, info_name="tollgate")
    words = list(found.words)
    try:
        while isinstance(command, click.Group):
            if not words:
                return None if not found.whole else f"tollgate {context.info_name}: a subcommand is missing"
            if words[0].startswith("-"):
                command.make_parser(context).parse_args(words[:1])
                return None
            name = words[0]
            known = command.get_command(context, name)
            if known is None and (known := command.get_command(context, "show")) is None:
                return f"there is no command {name}"
            words = words[1:] if known.name == name else words
            command, context = known, click.Context(known, parent=context, info_name=name)
        return _refused(command, context, words, found.whole)
    except click.BadOptionUsage as error:  # `--baseline` in a sentence names the option, not a value
        return error.format_message() if found.whole else None
    except click.UsageError as error:
        return error.format_message()


def _refused(command: click.Command, context: click.Context, words: list[str], whole: bool) -> str | None:
    values, rest, _ = command.make_parser(context).parse_args(words)
    if rest:
        return f"unexpected: {rest}"
    for parameter in command.params:
        value = values.get(parameter.name) if parameter.name else None
        given = isinstance(value, str | list | tuple) and len(value) > 0
        if parameter.required and whole and not given:
            return f"{parameter.human_readable_name} is missing"
        # Files of the examples are the reader's own; FILE, NAME and the like are words, not values.
        word = isinstance(value, str) and value.isalpha() and value.isupper()
        if given and not word and not isinstance(parameter.type, click.Path):
            parameter.type_cast_value(context, value)
    return None


def refused(commands: Iterable[Typed]) -> dict[str, str]:
    """The commands that are not taken, and why."""
    told = {f"{found.place}: tollgate {' '.join(found.words)}": problem(found) for found in commands}
    return {command: why for command, why in told.items() if why is not None}


def test_every_command_of_the_pages_is_one_that_is_there() -> None:
    commands = [found for page in docs_pages.pages() for found in typed(page, docs_pages.read(page))]
    assert refused(commands) == {}
    assert len({found.words for found in commands if found.whole}) > 50, "the pages' commands were not found"


def test_every_example_in_a_help_and_in_a_comment_of_the_examples_is_one_that_is_taken() -> None:
    helps, comments = list(taught(tollgate)), list(commented())
    assert refused([*helps, *comments]) == {}
    assert len(helps) > 40
    assert len(comments) > 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```\ntollgate run m.yaml --no-such 1\n```", "No such option"),
        ("    tollgate trains m.yaml", "there is no command trains"),
        ("```sh\ntollgate plan \\\n  --gpu H100\n```", "MANIFEST is missing"),
        ("```sh\ntollgate plan m.yaml --gpu X100 | jq .\n```", "X100"),
        ("```sh\n$ A=1 tollgate run m.yaml again.yaml && true\n```", "unexpected"),
        ("`tollgate gate --stages x` says so", "No such option"),
    ],
)
def test_a_command_that_is_not_there_is_found(text: str, why: str) -> None:
    (found,) = typed(Path("page.md"), text)
    assert why in str(problem(found))


@pytest.mark.parametrize(
    "text",
    [
        '```\neval "$(sudo tollgate local env)"         # KUBECONFIG\n```',
        "```\ntollgate report runs/a --pdf && tollgate report compare runs/a runs/b -o json | jq .metrics\n```",
        "`tollgate evaluate --baseline` and `tollgate run FILE`",
    ],
)
def test_commands_are_read_as_a_shell_reads_them(text: str) -> None:
    found = list(typed(Path("page.md"), text))
    assert found
    assert [problem(each) for each in found] == [None] * len(found)


def test_every_make_target_of_the_documentation_is_there() -> None:
    there = set(re.findall(r"^([a-z0-9-]+):", (docs_pages.CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    asked = {
        f"{page}: make {name}"
        for page in docs_pages.pages()
        for name in re.findall(r"(?:^\s*|`)make ([a-z0-9-]+)", docs_pages.read(page), re.MULTILINE)
        if name not in there
    }
    assert asked == set()


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping in YAML in the pages' blocks, with its place."""
    for page in docs_pages.pages():
        for block in docs_pages.parted(docs_pages.read(page))[0]:
            if block.kind in ("yaml", ""):
                with suppress(yaml.YAMLError):  # not every block is YAML
                    document = yaml.safe_load(block.text)
                    if isinstance(document, dict) and document:
                        yield f"{page}:{block.line}", document


FIELDS = frozenset(TrainingManifest.model_fields)
SPECS: dict[str, type[BaseModel]] = {
    "ComputeProfile": ComputeProfileSpec,
    "PromotionPolicy": PromotionPolicySpec,
    "TrainingRun": TrainingRunSpec,
}
PIECES = {place: document for place, document in documents() if document.keys() <= FIELDS}
OBJECTS = {place: document for place, document in documents() if document.get("kind") in SPECS and "spec" in document}


@pytest.mark.parametrize("place", PIECES)
def test_every_piece_of_a_manifest_in_the_documentation_is_read_by_this_version(place: str) -> None:
    piece = PIECES[place]
    document = {"name": "a", "dataset": {"path": "data.jsonl"}, **piece}
    load_bytes(yaml.safe_dump(document).encode(), place)


@pytest.mark.parametrize("place", OBJECTS)
def test_every_object_in_the_documentation_is_one_that_this_version_takes(place: str) -> None:
    found = OBJECTS[place]
    assert found["apiVersion"] == API_VERSION
    SPECS[found["kind"]].model_validate(found["spec"])


def test_pieces_of_manifests_and_objects_are_found() -> None:
    assert len(PIECES) >= 12
    assert {found["kind"] for found in OBJECTS.values()} >= {"ComputeProfile", "PromotionPolicy"}


SAYING = re.compile(r"^\| `([^`]+)`")


def said() -> list[str]:
    """The messages of the page that people look them up in; `...` stands for what differs."""
    lines = docs_pages.read(Path("docs/how-to/messages.md")).splitlines()
    return [found[1] for line in lines if (found := SAYING.match(line))]


def sources() -> str:
    """All code, with the pieces of a string that is written over several lines put together."""
    tops = ("core", "cli", "trainer", "operator", "local")
    texts = [path.read_text(encoding="utf-8") for top in tops for path in (docs_pages.CHECKOUT / top).rglob("*.py")]
    return re.sub(r"\"\n\s*f?\"", "", "\n".join(texts))


def test_every_message_that_can_be_looked_up_is_one_that_is_said() -> None:
    code = sources()
    parts = [(message, part.strip()) for message in said() for part in message.split("...") if part.strip()]
    assert len(parts) > 20
    assert [message for message, part in parts if part not in code] == []
