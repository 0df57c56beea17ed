"""A document as every way in must agree on it: no nulls, numbers that survive JSON readers, text that has bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tollgate.manifest.errors import Problem, field_name
from tollgate.manifest.reading import MAX_DEPTH, Path

MAX_INTEGER = 2**53 - 1
# kubectl cannot print these as YAML, and JSON writers differ in whether they escape them.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")


def normalise(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[Path, Problem]]]:
    """The document without absent (null) fields and with 3 for 3.0, and what cannot travel unchanged.

    The API server writes 3.0 as 3, so both are one value here; integers beyond 2^53 lose digits in readers that know
    only doubles.
    """
    found: list[tuple[Path, Problem]] = []
    return _mapping(document, (), found), found


def _mapping(items: Mapping[str, Any], path: Path, found: list[tuple[Path, Problem]]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in items.items():
        inner = (*path, str(key))
        if not isinstance(key, str):
            _note(found, inner, key, "a key must be text", "Quote the key.")
        elif odd := _UNPRINTABLE.search(key):
            _note(found, path, key, f"this key holds U+{ord(odd[0]):04X}, which is no character", "Remove it.")
        if value is not None:
            kept[str(key)] = _value(value, inner, found)
    return kept


def _value(value: Any, path: Path, found: list[tuple[Path, Problem]]) -> Any:
    if len(path) > MAX_DEPTH:
        _note(found, path, ..., "the document is nested too deeply here", f"Use at most {MAX_DEPTH} levels.")
        return None
    if isinstance(value, Mapping):
        return _mapping(value, path, found)
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if item is None:
                _note(found, (*path, index), None, "a list may not hold null", "Remove the item.")
        return [_value(item, (*path, index), found) for index, item in enumerate(value)]
    if isinstance(value, str):
        if odd := _UNPRINTABLE.search(value):
            message = f"this text holds U+{ord(odd[0]):04X}, a control character or half of a surrogate pair"
            _note(found, path, value, message, "Remove it, or write the character itself.")
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value, path, found)
    _note(
        found,
        path,
        value,
        f"a value of type {type(value).__name__} has no JSON form",
        "Write text, a number, true or false.",
    )
    return None


def _number(value: int | float, path: Path, found: list[tuple[Path, Problem]]) -> int | float:
    if isinstance(value, float) and not math.isfinite(value):
        _note(found, path, value, "this is not a finite number", "Write a number, or leave the field out.")
        return 0
    if abs(value) > MAX_INTEGER:
        _note(
            found,
            path,
            value,
            f"numbers beyond 2^53 - 1 ({MAX_INTEGER}) lose digits on the way",
            "Write a smaller number, or quote it if it is a name.",
        )
        return 0
    return int(value) if value == int(value) else value


def _note(found: list[tuple[Path, Problem]], path: Path, value: Any, message: str, fix: str) -> None:
    found.append((path, Problem(field_name(path), value, message, fix)))
