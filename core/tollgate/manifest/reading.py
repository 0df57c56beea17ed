"""Text -> plain values, strictly, for YAML and for JSON; it says where each field stood.

Nothing is guessed: duplicate keys, anchors, tags, several documents and scalars that other readers read differently
are problems.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from tollgate.manifest.errors import ABSENT, ManifestError, Problem, field_name
from tollgate.manifest.scalars import Scalar, disagreement, plain

MAX_TEXT = 1024 * 1024
MAX_DEPTH = 64

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A problem and where it is."""

    path: Path
    problem: Problem


@dataclass(slots=True)
class Reading:
    """What a text says. `value` holds dicts with str keys, lists and scalars; `lines` the 1-based line of each field
    in YAML.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)

    def note(self, path: Path, value: Any, message: str, fix: str, line: int | None = None) -> None:
        """Keep a problem and go on, so that the author sees all of them."""
        self.found.append(Found(path, Problem(field_name(path), value, message, fix, line)))


def read_bytes(data: bytes, source: str, *, is_json: bool = False) -> Reading:
    """Read a file's bytes: JSON when `is_json` or when it looks like it (as kubectl decides), YAML otherwise.

    Raises: ManifestError when the bytes are not UTF-8, too many, or not one document of that language.
    """
    if len(data) > MAX_TEXT:
        raise _refusal(
            source, f"this file has {len(data)} bytes, a manifest at most {MAX_TEXT}", "Is it the right file?"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _refusal(source, f"this is not UTF-8 text: {error.reason}", "Save it as UTF-8.", line) from error
    if not text.strip():
        raise _refusal(source, "this file is empty", "`tollgate manifest init` writes an example to start from.")
    if is_json:
        return read_json(text, source)
    if text.lstrip().startswith("{"):
        try:
            return read_json(text, source)
        except ManifestError:
            return read_yaml(text, source)  # a YAML flow mapping starts like this, too
    return read_yaml(text, source)


def _refusal(source: str, message: str, fix: str, line: int | None = None) -> ManifestError:
    return ManifestError(source, [Problem("", ABSENT, message, fix, line)])


# --- JSON -------------------------------------------------------------------------------------------------------------


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all of its keys, also those that occur twice."""


def read_json(text: str, source: str) -> Reading:
    """Read one JSON value. NaN and Infinity, which Python's reader would take, come out as floats and are refused
    later by their field.
    """
    try:
        raw = json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise _refusal(
            source, f"this is not JSON: {error.msg} (column {error.colno})", "Mend the syntax there.", error.lineno
        ) from error
    except ValueError as error:  # an integer of thousands of digits
        raise _refusal(source, f"this is not JSON that can be read: {error}", "Write a smaller number.") from error
    except RecursionError as error:
        raise _refusal(source, "this JSON is nested too deeply", f"Use at most {MAX_DEPTH} levels.") from error
    reading = Reading()
    reading.value = _objects(raw, (), reading)
    return reading


def _objects(raw: Any, path: Path, reading: Reading) -> Any:
    if isinstance(raw, _Pairs):
        document: dict[str, Any] = {}
        for key, item in raw:
            if key in document:
                reading.note((*path, key), ABSENT, "this key is given twice", "Keep one of the two.")
            document[key] = _objects(item, (*path, key), reading)
        return document
    if isinstance(raw, list):
        return [_objects(item, (*path, index), reading) for index, item in enumerate(raw)]
    return raw


# --- YAML -------------------------------------------------------------------------------------------------------------


def read_yaml(text: str, source: str) -> Reading:
    """Read one YAML document with the meaning that YAML 1.2 and kubectl share (scalars.py)."""
    for odd, name in (("\x85", "U+0085"), ("\u2028", "U+2028"), ("\u2029", "U+2029")):
        if odd in text:
            raise _refusal(
                source,
                f"the text holds {name}, a line break in YAML 1.1 and a plain character in 1.2",
                "Remove it, or write it as an escape in double quotes.",
                text[: text.index(odd)].count("\n") + 1,
            )
    try:
        return _Composer(yaml.parse(text, Loader=yaml.SafeLoader), source).compose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise _refusal(source, f"this is not YAML: {said}", "Mend the syntax there.", line) from error
    except yaml.reader.ReaderError as error:
        raise _refusal(
            source,
            f"the character U+{int(error.character):04X} may not stand in YAML",
            "Remove it.",
            text[: error.position].count("\n") + 1,
        ) from error


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


class _Composer:
    """Builds values from the parser's events, which unlike PyYAML's own constructors resolve nothing by themselves."""

    def __init__(self, events: Iterator[Any], source: str) -> None:
        self._events = events
        self._source = source
        self._reading = Reading()

    def compose(self) -> Reading:
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                line = _line(event)
                if event.version or event.tags:
                    raise _refusal(self._source, "YAML directives are not read here", "Remove the % line.", line)
                if documents > 1:
                    raise _refusal(
                        self._source,
                        "this file holds more than one YAML document",
                        "Put the manifest in a file of its own.",
                        line,
                    )
                self._reading.value = self._value(next(self._events), ())
        return self._reading

    def _value(self, event: Any, path: Path) -> Any:
        line = _line(event)
        if len(path) > MAX_DEPTH:
            raise _refusal(self._source, "this document is nested too deeply", f"Use at most {MAX_DEPTH} levels.", line)
        if isinstance(event, yaml.AliasEvent):
            self._reading.note(
                path, ABSENT, f"aliases (*{event.anchor}) are not read here", "Write the value out.", line
            )
            return None
        if event.anchor is not None:
            self._reading.note(
                path,
                ABSENT,
                f"anchors (&{event.anchor}) are not read here",
                "Write the value out where it is used.",
                line,
            )
        if event.tag is not None:
            self._reading.note(
                path,
                ABSENT,
                f"tags ({event.tag}) are not read here",
                "Remove the tag; quote the value if it is text.",
                line,
            )
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._mapping(path)

    def _scalar(self, event: Any, path: Path) -> Scalar:
        text: str = event.value
        line = _line(event)
        if event.style:  # quoted or a block: text
            return text
        if why := disagreement(text):
            self._reading.note(
                path,
                text,
                f"YAML readers disagree on this value: {why}",
                f'Quote it: "{text}" is text everywhere; or write what you mean.',
                line,
            )
            return text
        return plain(text)

    def _sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            inner = (*path, len(items))
            self._reading.lines[inner] = _line(event)
            items.append(self._value(event, inner))
        return items

    def _mapping(self, path: Path) -> dict[str, Any]:
        document: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key, line = self._key(event, path), _line(event)
            inner = (*path, key)
            if key in document:
                self._reading.note(
                    inner,
                    ABSENT,
                    f"this key is given twice, first in line {self._reading.lines[inner]}",
                    "Keep one of the two.",
                    line,
                )
            self._reading.lines[inner] = line
            document[key] = self._value(next(self._events), inner)
        return document

    def _key(self, event: Any, path: Path) -> str:
        line = _line(event)
        if not isinstance(event, yaml.ScalarEvent):
            raise _refusal(
                self._source,
                f"a key below {field_name(path) or 'the document'} is not text",
                "Keys are plain words.",
                line,
            )
        if event.anchor is not None or event.tag is not None:
            self._reading.note(
                (*path, event.value), ABSENT, "anchors and tags are not read here", "Write the bare key.", line
            )
        if not event.style and (disagreement(event.value) or not isinstance(plain(event.value), str)):
            self._reading.note(
                (*path, event.value),
                ABSENT,
                "this key is not text to every YAML reader",
                f'Quote it: "{event.value}".',
                line,
            )
        key: str = event.value
        return key
