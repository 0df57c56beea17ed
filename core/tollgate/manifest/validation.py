"""A normal document -> TrainingManifest, or everything that is wrong with it in the author's words."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tollgate.manifest.errors import ABSENT, Problem, field_name
from tollgate.manifest.reading import Path
from tollgate.manifest.training_manifest import TrainingManifest

_REFERENCE = "docs/reference/manifest.md lists all fields"

# pydantic's error type -> what is wrong, what to do. Braces are filled from the error's own context.
_WORDS: dict[str, tuple[str, str]] = {
    "missing": ("this field is required", "Add it."),
    "string_type": ("this must be text", "Put the value in quotes."),
    "int_type": ("this must be a whole number", "Write a whole number without quotes."),
    "int_from_float": ("this must be a whole number", "Write a whole number."),
    "float_type": ("this must be a number", "Write a number without quotes."),
    "bool_type": ("this must be true or false", "Write true or false, without quotes."),
    "list_type": ("this must be a list", "Write [item, ...], or one `- item` a line."),
    "dict_type": ("this must be a mapping", "Write `key: value` lines below it."),
    "model_type": ("this must be a mapping", "Write `key: value` lines below it."),
    "literal_error": ("this is none of the values that are known here", "Write {expected}."),
    "greater_than": ("this must be more than {gt}", "Write a larger number."),
    "greater_than_equal": ("this must be at least {ge}", "Write a larger number."),
    "less_than": ("this must be less than {lt}", "Write a smaller number."),
    "less_than_equal": ("this must be at most {le}", "Write a smaller number."),
    "string_too_short": ("this text is too short", "Write at least {min_length} character(s)."),
    "string_too_long": ("this text is too long", "Write at most {max_length} characters."),
    "too_short": ("this list is too short", "Give at least {min_length} item(s)."),
    "too_long": ("this list is too long", "Give at most {max_length} items."),
    "string_pattern_mismatch": ("this text has another form than is asked for", "It must match {pattern}."),
}


def problems_of(error: ValidationError, document: Mapping[str, Any]) -> list[Problem]:
    """One Problem for each field that pydantic refused, in the order of discovery."""
    merged: dict[Path, Problem] = {}
    boolean: set[Path] = set()
    for detail in error.errors(include_url=False):
        path, value = _place(document, detail)
        if detail["type"] == "bool_type":
            boolean.add(path)
        elif detail["type"] == "literal_error" and path in boolean:
            # A union (`packing: true | false | auto`) reports each of its members.
            merged[path] = replace(merged[path], fix=f"Write true, false or {detail['ctx']['expected']}.")
        merged.setdefault(path, _problem(path, value, detail))
    return list(merged.values())


def _place(document: Mapping[str, Any], detail: ErrorDetails) -> tuple[Path, Any]:
    """Where in the document the error is, and what stands there; pydantic's names of union members are not part of
    it.
    """
    path: list[str | int] = []
    at: Any = document
    for part in detail["loc"]:
        if isinstance(at, Mapping) and part in at:
            at = at[str(part)]
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
        elif detail["type"] != "missing":
            break
        path.append(part)
    return tuple(path), ABSENT if detail["type"] in ("missing", "extra_forbidden") else at


def _problem(path: Path, value: Any, detail: ErrorDetails) -> Problem:
    name = field_name(path)
    if detail["type"] == "extra_forbidden":
        return Problem(name, value, "there is no such field", unknown_key(path))
    if detail["type"] == "value_error":
        message, _, fix = str(detail["ctx"]["error"]).partition("; ")
        return Problem(name, value, message, f"{fix[:1].upper()}{fix[1:]}." if fix else f"{_REFERENCE}.")
    message, fix = _WORDS.get(detail["type"], (detail["msg"], f"{_REFERENCE}."))
    context = detail.get("ctx", {})
    return Problem(name, value, message.format_map(context), fix.format_map(context))


# --- unknown keys -----------------------------------------------------------------------------------------------------


def unknown_key(path: Path) -> str:
    """What the author of an unknown key may have meant: the same name elsewhere, or the nearest name here."""
    key, parent = str(path[-1]), path[:-1]
    known = dict(fields())
    here = [str(name[-1]) for name in known if name[:-1] == parent]
    elsewhere = {str(name[-1]): name for name in known if name[:-1] != parent}
    plain = _fold(key)
    for name in here:
        if _fold(name) == plain:
            return f"Fields are written in snake_case: write {name}."
    for name, full in elsewhere.items():
        if _fold(name) == plain:
            return f"Did you mean {field_name(full)}? {_section(full)}"
    if near := difflib.get_close_matches(plain, here, n=1, cutoff=0.6):
        return f"Did you mean {field_name((*parent, near[0]))}?"
    if near := difflib.get_close_matches(plain, elsewhere, n=1, cutoff=0.75):
        return f"Did you mean {field_name(elsewhere[near[0]])}? {_section(elsewhere[near[0]])}"
    if near := difflib.get_close_matches(plain, here, n=1, cutoff=0):
        return f"The nearest field here is {near[0]}; {_REFERENCE}."
    return f"Remove it; {_REFERENCE}."


def _section(path: Path) -> str:
    return f"It stands below `{field_name(path[:-1])}`." if len(path) > 1 else "It stands at the top."


def _fold(name: str) -> str:
    """`learningRate`, `learning-rate` and `learning_rate` are one name to a person."""
    parts = "".join(f"_{c.lower()}" if c.isupper() and not name.isupper() else c for c in name.replace("-", "_"))
    return parts.strip("_").lower()


def fields(
    model: type[BaseModel] = TrainingManifest, parent: Path = ()
) -> Iterator[tuple[Path, type[BaseModel] | None]]:
    """Every field of the document with its path; for a section, also its model."""
    for name, info in model.model_fields.items():
        section = section_of(info.annotation)
        yield (*parent, name), section
        if section:
            yield from fields(section, (*parent, name))


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, through Optional and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        return next((found for member in get_args(annotation) if (found := section_of(member))), None)
    return None
