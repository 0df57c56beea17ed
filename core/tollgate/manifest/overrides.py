"""What stands over a manifest's file: an overlay, the environment, options of a command. Pure.

Layers are merged in order, the later one wins: file < overlay < environment < options. The result is a document like
any other: it goes through the one loader, and its digest is that of what is trained, not of the file.
"""

from __future__ import annotations

import copy
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from tollgate.manifest.errors import ABSENT, ManifestError, Problem, field_name, show
from tollgate.manifest.reading import Path, read_yaml
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.manifest.validation import unknown_key

Document = dict[str, Any]

ENVIRONMENT_PREFIX = "TOLLGATE_SET_"
"""`TOLLGATE_SET_hyperparameters__learning_rate=1e-4`: two underscores stand for the point."""

_PATH = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+|\[\d+\])*")
_PART = re.compile(r"[\w-]+|\[\d+\]")

# Fields that answer one question. Setting the left one takes the right ones away where a lower layer gave them, so that
# an override never ends as a contradiction with what it overrides.
_RIVALS: dict[Path, tuple[Path, ...]] = {
    ("seed",): (("reproducibility", "seed"),),
    ("reproducibility", "seed"): (("seed",),),
    ("evaluation_enabled",): (("evaluation", "enabled"),),
    ("evaluation", "enabled"): (("evaluation_enabled",),),
    ("precision",): (("hyperparameters", "bf16"), ("hyperparameters", "fp16")),
    ("hyperparameters", "bf16"): (("precision",), ("hyperparameters", "fp16")),
    ("hyperparameters", "fp16"): (("precision",), ("hyperparameters", "bf16")),
    ("hyperparameters", "warmup_steps"): (("hyperparameters", "warmup_ratio"),),
    ("hyperparameters", "warmup_ratio"): (("hyperparameters", "warmup_steps"),),
    ("hyperparameters", "num_train_epochs"): (("hyperparameters", "max_steps"),),
    ("model", "base"): (("model", "config"),),
    ("model", "config"): (("model", "base"), ("model", "revision")),
    ("wandb_project",): (("tracking", "wandb", "project"),),
    ("wandb_logging",): (("tracking", "wandb"),),
    ("tracking", "wandb"): (("wandb_logging",), ("wandb_project",)),
}


@dataclass(frozen=True, slots=True)
class Override:
    """One wish. `path` () is the whole document: `value` is then merged into it, as an overlay is.

    value: JSON; None removes the field. origin: where it comes from, in the words of who gave it.
    """

    path: Path
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Change:
    """A field that an override changed; `before` or `after` is ABSENT where the field was or became absent."""

    path: Path
    before: Any
    after: Any
    origin: str

    def __str__(self) -> str:
        before, after = ("absent" if v is ABSENT else show(v) for v in (self.before, self.after))
        return f"{field_name(self.path)}: {before} -> {after} ({self.origin})"


# --- from text --------------------------------------------------------------------------------------------------------


def setting(text: str, option: str = "--set") -> Override:
    """`hyperparameters.learning_rate=1e-4` as an override; its value is read as the field's type asks.

    Text fields take the text as it is; others a YAML value (`true`, `3`, `[a, b]`). `null` removes the field.
    Raises: ManifestError without `=`, for a field that does not exist (with the nearest one), for an unreadable value.
    """
    origin = f"{option} {text}"
    name, equals, value = text.partition("=")
    if not equals or not _PATH.fullmatch(name):
        problem = Problem("", ABSENT, "this is not FIELD=VALUE", "Write it as hyperparameters.learning_rate=1e-4.")
        raise ManifestError(origin, [problem])
    return Override(path := _path(name), _value(path, value, origin), origin)


def from_environment(environ: Mapping[str, str]) -> list[Override]:
    """The overrides among environment variables, by name. Raises: ManifestError as `setting` does."""
    found = []
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX):
            path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).split("__"))
            origin = f"environment {name}"
            if not environ[name]:
                problem = Problem(field_name(path), "", "this variable is empty", "Unset it; null removes the field.")
                raise ManifestError(origin, [problem])
            found.append(Override(path, _value(path, environ[name], origin), origin))
    return found


def _path(name: str) -> Path:
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in _PART.findall(name))


def _value(path: Path, text: str, origin: str) -> Any:
    kinds = _kinds(path, text, origin)
    if text in ("null", "~"):
        return None
    if kinds == {"text"}:
        return text
    reading = read_yaml(text, origin)
    if reading.found:
        raise ManifestError(origin, [_named(path, item.problem) for item in reading.found])
    value = reading.value
    return text if "text" in kinds and not kinds & {_kind(value), "any"} else value


def _named(path: Path, problem: Problem) -> Problem:
    return Problem(field_name(path), problem.value, problem.message, problem.fix)


def _kind(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float", str: "text", list: "list", dict: "mapping"}
    return names.get(type(value), "any")


def _kinds(path: Path, text: str, origin: str) -> frozenset[str]:
    """The kinds of JSON value that a field takes. Raises: ManifestError when there is no such field."""
    annotations: list[Any] = [TrainingManifest]
    for index, part in enumerate(path):
        annotations = [inner for annotation in annotations for inner in _below(annotation, part)]
        if not annotations:
            here = path[: index + 1]
            fix = unknown_key(here) if isinstance(part, str) else "Only lists are indexed."
            raise ManifestError(origin, [Problem(field_name(here), text, "there is no such field", fix)])
    return frozenset(kind for annotation in annotations for member in _members(annotation) for kind in _leaf(member))


def _members(annotation: Any) -> Iterator[Any]:
    """The alternatives of an annotation, through Optional and Annotated."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (typing.Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif annotation is not type(None):
        yield annotation


def _below(annotation: Any, part: str | int) -> Iterator[Any]:
    for member in _members(annotation):
        kind = get_origin(member) or member
        if member is Any:
            yield Any
        elif isinstance(part, str) and isinstance(member, type) and issubclass(member, BaseModel):
            if part in member.model_fields:
                yield member.model_fields[part].annotation
        elif (kind is list and isinstance(part, int)) or (kind is dict and isinstance(part, str)):
            yield (get_args(member) or (Any,))[-1]


def _leaf(member: Any) -> Iterator[str]:
    if get_origin(member) is Literal:
        yield from (_kind(value) for value in get_args(member))
        return
    kind = get_origin(member) or member
    names = {bool: "bool", int: "int", float: "float", str: "text", list: "list", dict: "mapping"}
    yield "mapping" if isinstance(kind, type) and issubclass(kind, BaseModel) else names.get(kind, "any")
    if kind is float:
        yield "int"


# --- merging ----------------------------------------------------------------------------------------------------------


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Document:
    """`patch` over `base`: mappings are merged, anything else (lists, too) is replaced, null removes.

    Source: RFC 7396, JSON Merge Patch. Neither argument is changed.
    """
    merged: Document = copy.deepcopy(dict(base))
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def apply(document: Mapping[str, Any], layers: Sequence[Sequence[Override]]) -> tuple[Document, list[Change]]:
    """The effective document, and what was changed by whom, in order. Later layers win.

    Raises: ManifestError when two overrides of one layer give a field two values, or an index is out of its list.
    """
    effective: Document = copy.deepcopy(dict(document))
    changes: list[Change] = []
    for layer in layers:
        _refuse_contradictions(layer)
        for override in layer:
            before = effective
            patch = _patch(before, override)
            effective = merge(_without_rivals(before, patch), patch)
            changes += [Change(*found, override.origin) for found in differences(before, effective)]
    return effective, changes


def _refuse_contradictions(layer: Sequence[Override]) -> None:
    first: dict[Path, Override] = {}
    for override in layer:
        other = first.setdefault(override.path, override)
        if override.path and not _same(other.value, override.value):
            message = f"this is also set to {show(other.value)} by {other.origin}"
            problem = Problem(field_name(override.path), override.value, message, "Keep one of the two.")
            raise ManifestError(override.origin, [problem])


def _patch(document: Document, override: Override) -> Document:
    """The override as a merge patch of the whole document; an item of a list becomes the whole list with the item."""
    if not override.path:
        return dict(override.value)
    value = override.value
    for position in range(len(override.path) - 1, -1, -1):
        part = override.path[position]
        if isinstance(part, str):
            value = {part: value}
            continue
        items = at(document, override.path[:position])
        if not isinstance(items, list) or part >= len(items) or value is None:
            count = len(items) if isinstance(items, list) else 0
            problem = Problem(
                field_name(override.path[: position + 1]),
                ABSENT,
                f"this list has {count} item(s), so this one cannot be changed",
                "Give the whole list: field=[item, ...].",
            )
            raise ManifestError(override.origin, [problem])
        old = items[part]
        new = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        value = [*items[:part], new, *items[part + 1 :]]
    return dict(value)


def _without_rivals(document: Document, patch: Document) -> Document:
    removals: Document = {}
    for path, rivals in _RIVALS.items():
        if at(patch, path) in (ABSENT, None):
            continue
        for rival in rivals:
            if at(patch, rival) is ABSENT and at(document, rival) is not ABSENT:
                removal: Any = None
                for part in reversed(rival):
                    removal = {part: removal}
                removals = _joined(removals, removal)
    return merge(document, removals)


def _joined(left: Document, right: Document) -> Document:
    """Two patches as one; unlike `merge` it keeps nulls, which are the removals."""
    joined = dict(left)
    for key, value in right.items():
        below = joined.get(key)
        joined[key] = _joined(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return joined


def at(document: Any, path: Iterable[str | int]) -> Any:
    """What stands at `path`, ABSENT when nothing does."""
    for part in path:
        in_mapping = isinstance(document, Mapping) and part in document
        in_list = isinstance(document, list) and isinstance(part, int) and part < len(document)
        if not (in_mapping or in_list):
            return ABSENT
        document = document[part]
    return document


def differences(before: Any, after: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Every field whose value differs, as (path, before, after); sections are gone into, lists are one value."""
    mappings = [value for value in (before, after) if isinstance(value, Mapping)]
    if mappings and any(mappings) and all(isinstance(v, Mapping) or v is ABSENT for v in (before, after)):
        keys = dict.fromkeys(key for mapping in mappings for key in mapping)
        for key in keys:
            yield from differences(at(before, (key,)), at(after, (key,)), (*path, key))
    elif not _same(before, after):
        yield path, before, after


def _same(left: Any, right: Any) -> bool:
    """Equal as JSON: true is not 1, but 1.0 is."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    return bool(left == right)
