"""Reading training documents: one type for all formats, errors that name file, line and fix.

Formats: `conversations` ({"conversations": [{"text": ...}, ...]}, one JSON document or one such object per line),
`chat` ({"messages": [{"role": ..., "content": ...}, ...]} per line, or a JSON list of them) and `text` (JSON lines with
a text field, or a plain .txt whose documents are separated by blank lines).
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tollgate_trainer.refusal import DatasetRefused

ROLES = ("system", "user", "assistant")
SUFFIXES = (".json", ".jsonl", ".txt")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that stands in a document's text: text[start:start + len(text)] of the document is `text`."""

    text: str
    start: int


@dataclass(frozen=True)
class Document:
    """One document: plain text, or the turns of a conversation. `origin` is file:line, for messages.

    label: the class, for classification and joint. question: what is asked of the text (a question or a criterion), and
    answers: where it is answered, for span and joint; () is "the text has no answer", None "this is not a span
    document". source: the name of the source that it came from. group: documents of one group stay in one split.
    """

    text: str
    origin: str
    messages: tuple[Message, ...] | None = None
    label: str | None = None
    question: str | None = None
    answers: tuple[Answer, ...] | None = None
    source: str = ""
    group: str | None = None

    @cached_property
    def hash(self) -> str:
        """Hex sha256 of the normalised text: Unicode NFC, case folded, white space collapsed. Equal for duplicates."""
        normal = " ".join(unicodedata.normalize("NFC", self.text).casefold().split())
        return hashlib.sha256(normal.encode()).hexdigest()

    @property
    def id(self) -> str:
        """A short name that stays the same when the file is reordered."""
        return self.hash[:16]


def read(path: Path, format: str, text_field: str, name: str) -> list[Document]:
    """All documents of a file, or of the files of a folder in the order of their names.

    Args: path: what to read; format: of the manifest; text_field: the key of the text; name: the path as the manifest
    says it, for messages.
    Raises: DatasetRefused.
    """
    documents: list[Document] = []
    for file in files_of(path, name):
        shown = name if file == path else f"{name}/{file.relative_to(path).as_posix()}"
        if path.is_dir() and file.suffix not in SUFFIXES:
            continue
        documents.extend(_read_file(file, shown, format, text_field))
    if not documents:
        raise DatasetRefused(f"{name} holds no document; expected {_expected(format, text_field)}", "dataset.path")
    return documents


def files_of(path: Path, name: str) -> list[Path]:
    """The file itself, or every file below a folder sorted by its relative path; hidden ones are left out."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DatasetRefused(
            f"{name} does not exist below the dataset root ({path}); put it there or correct the path", "dataset.path"
        )
    found = (file for file in path.rglob("*") if file.is_file())
    return sorted(
        (f for f in found if not any(part.startswith(".") for part in f.relative_to(path).parts)),
        key=lambda file: file.relative_to(path).as_posix(),
    )


def _read_file(file: Path, shown: str, format: str, text_field: str) -> Iterator[Document]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DatasetRefused(f"{shown} is not UTF-8 ({error}); convert it to UTF-8", "dataset.path") from error
    except OSError as error:
        raise DatasetRefused(f"{shown} cannot be read: {error}", "dataset.path") from error
    if file.suffix == ".txt":
        if format not in ("auto", "text"):
            raise DatasetRefused(f"{shown} is plain text but dataset.format is {format}", "dataset.format")
        yield from _paragraphs(text, shown)
        return
    for origin, record in _records(text, shown):
        yield from _documents(record, origin, format, text_field)


def _paragraphs(text: str, shown: str) -> Iterator[Document]:
    lines: list[str] = []
    first = 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.strip():
            if not lines:
                first = number
            lines.append(line)
        elif lines:
            yield Document("\n".join(lines), f"{shown}:{first}")
            lines = []


def _records(text: str, shown: str) -> Iterator[tuple[str, Any]]:
    """(origin, object) of a JSON document or of JSON lines; which one it is shows in the first line."""
    first = text.lstrip("\ufeff \t\r\n").split("\n", 1)[0].strip()
    if not first:
        return
    try:
        json.loads(first)
        lines = first[:1] == "{"
    except ValueError:
        lines = False
    if not lines or len(text.strip().splitlines()) == 1:
        try:
            whole = json.loads(text.lstrip("\ufeff"))
        except ValueError as error:
            raise DatasetRefused(f"{shown} is not JSON: {error}", "dataset.path") from error
        for index, record in enumerate(whole if isinstance(whole, list) else [whole]):
            yield (f"{shown}[{index}]" if isinstance(whole, list) else shown), record
        return
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        if line.strip():
            try:
                yield f"{shown}:{number}", json.loads(line)
            except ValueError as error:
                raise DatasetRefused(f"{shown}:{number} is not JSON: {error}", "dataset.path") from error


def _documents(record: Any, origin: str, format: str, text_field: str) -> Iterator[Document]:
    if not isinstance(record, dict):
        raise DatasetRefused(
            f"{origin}: expected an object, found {type(record).__name__}; expected {_expected(format, text_field)}",
            "dataset.format",
        )
    found = _format_of(record, text_field) if format == "auto" else format
    if found == "conversations" and isinstance(record.get("conversations"), list):
        for index, entry in enumerate(record["conversations"]):
            where = f"{origin}.conversations[{index}]"
            if not isinstance(entry, dict):
                raise DatasetRefused(f"{where}: expected an object, found {type(entry).__name__}", "dataset.format")
            yield Document(_text(entry, text_field, where), where)
    elif found == "chat" and isinstance(record.get("messages"), list):
        yield _chat(record["messages"], origin)
    elif found == "text":
        yield Document(_text(record, text_field, origin), origin)
    else:
        raise DatasetRefused(
            f"{origin}: the keys {sorted(record)} are not of format {found}; expected {_expected(format, text_field)}",
            "dataset.format",
        )


def _format_of(record: dict[str, Any], text_field: str) -> str:
    for key, format in (("conversations", "conversations"), ("messages", "chat"), (text_field, "text")):
        if key in record:
            return format
    return "auto"


def _text(entry: dict[str, Any], text_field: str, where: str) -> str:
    value = entry.get(text_field)
    if not isinstance(value, str) or not value.strip():
        problem = "is empty" if isinstance(value, str) else f"is missing (keys: {sorted(entry)})"
        raise DatasetRefused(f"{where}: the text field {text_field!r} {problem}", "dataset.text_field")
    return value


def _chat(messages: list[Any], origin: str) -> Document:
    turns = []
    for index, entry in enumerate(messages):
        where = f"{origin}.messages[{index}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise DatasetRefused(f'{where}: expected {{"role": ..., "content": text}}', "dataset.format")
        if entry.get("role") not in ROLES:
            raise DatasetRefused(
                f"{where}: role {entry.get('role')!r} is not one of {', '.join(ROLES)}", "dataset.format"
            )
        turns.append(Message(entry["role"], entry["content"]))
    if not any(turn.role == "assistant" and turn.content.strip() for turn in turns):
        raise DatasetRefused(
            f"{origin}: no assistant message with content, so there is nothing to learn; remove this conversation",
            "dataset.path",
        )
    return Document("\n".join(turn.content for turn in turns), origin, tuple(turns))


def _expected(format: str, text_field: str) -> str:
    known = {
        "conversations": f'{{"conversations": [{{"{text_field}": ...}}]}}',
        "chat": '{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}',
        "text": f'{{"{text_field}": ...}} per line, or a .txt file with blank lines between documents',
    }
    return known.get(format, "one of " + "; ".join(f"{name}: {form}" for name, form in known.items()))
