"""Foreign configurations -> a manifest that the strict loader takes, and a list of all that was and was not mapped.

Pure: bytes in, a value out. Each foreign key ends in exactly one of the two lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tollgate.manifest.errors import ABSENT, ManifestError, Problem
from tollgate.manifest.foreign.conversions import OFF, Cannot, Instead
from tollgate.manifest.foreign.leaves import Leaf, flatten, read, resolve, shape
from tollgate.manifest.foreign.row import Row
from tollgate.manifest.foreign.table import GENERIC, by_name
from tollgate.manifest.loader import LoadedManifest, load_document
from tollgate.manifest.overrides import Override, apply, at, merge

_BETAS = [0.9, 0.999]
_MOST_ROUNDS = 50
_SECRET = re.compile(r"(hub|hf|api|auth|access|wandb|comet)_?(token|key)$|secret|password")
HIDDEN = "(not shown)"
"""Instead of a value that by its key's name is a secret: the list of what was not mapped is kept in a file."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A foreign key, the manifest's field that it became, its value there, and what is to be known about it."""

    key: str
    source: str
    field: str
    value: Any
    note: str = ""


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A foreign key that has no counterpart, and why. important: leaving it out may change what is trained or spent."""

    key: str
    source: str
    value: Any
    reason: str
    important: bool


@dataclass(frozen=True, slots=True)
class Imported:
    """The manifest, and where every key of the files went. assumed: what nobody said, in words."""

    loaded: LoadedManifest
    shape: str
    mapped: tuple[Mapped, ...]
    unmapped: tuple[Unmapped, ...]
    assumed: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything important was mapped."""
        return not any(one.important for one in self.unmapped)


@dataclass(slots=True)
class _Work:
    mapped: list[Mapped] = field(default_factory=list)
    unmapped: list[Unmapped] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)
    off: dict[str, str] = field(default_factory=dict)  # section -> the foreign key that switched it off

    def refuse(self, leaf: Leaf, reason: str, important: bool) -> None:
        value = HIDDEN if _SECRET.search(leaf.key.lower()) and leaf.value is not None else leaf.value
        self.unmapped.append(Unmapped(leaf.key, leaf.source, value, reason, important))


def import_files(files: Sequence[tuple[str, bytes]], stem: str, settings: Sequence[Override] = ()) -> Imported:
    """The manifest that the files describe together.

    Args: files: (name, bytes); stem: the manifest's name when the files have none; settings: fields that the person
    gives besides, over what was mapped.
    Raises: ManifestError when a file cannot be read, or when a required field (dataset.path) is nowhere.
    """
    documents = [(name, read(data, name)) for name, data in files]
    leaves = resolve([leaf for name, document in documents for leaf in flatten(document, name)])
    rows = by_name()
    named = [(leaf, _plain_name(leaf.key, rows)) for leaf in leaves]
    known = {name: leaf.value for leaf, name in named if not leaf.unresolved}
    work = _Work()
    for leaf, name in named:
        _place(work, leaf, rows.get(name), known)
    _switch_off(work)
    assumed = _assume(work, stem)
    source = " and ".join(name for name, _ in files)
    loaded = _load(work, source, settings)
    for one in [m for m in work.mapped if at(loaded.document, _path(m.field)[0]) is ABSENT]:
        work.mapped.remove(one)
        work.unmapped.append(Unmapped(one.key, one.source, one.value, "what was given by --set replaces it", False))
    return Imported(loaded, shape([d for _, d in documents]), tuple(work.mapped), tuple(work.unmapped), tuple(assumed))


def _plain_name(key: str, rows: Mapping[str, Row]) -> str:
    """The key in lower case; without the generic sections in front of it where only then the table knows it."""
    name = key.lower().replace("-", "_")
    parts = name.split(".")
    while ".".join(parts) not in rows and len(parts) > 1 and parts[0] in GENERIC:
        parts = parts[1:]
    return ".".join(parts)


def _place(work: _Work, leaf: Leaf, row: Row | None, known: Mapping[str, Any]) -> None:
    """One leaf into the document, or into the list of what was not mapped."""
    if leaf.value is None:
        work.refuse(leaf, "it says nothing (null)", False)
    elif leaf.unresolved:
        work.refuse(leaf, f"{leaf.unresolved} can only be resolved by the program that reads this file", True)
    elif row is None:
        work.refuse(leaf, _unknown(leaf.key), leaf.key.rpartition(".")[2] != "_partial_")
    elif not row.field and row.note:
        work.refuse(leaf, row.note, row.important)
    else:
        try:
            value = row.convert(leaf.value, known)
        except Cannot as why:
            work.refuse(leaf, str(why), row.important and not why.harmless)
        except (TypeError, ValueError):
            work.refuse(leaf, "this value is of no kind that the field takes", row.important)
        else:
            if isinstance(value, Instead):
                row, value = replace(row, field=value.field), value.value
            _put(work, leaf, row, value)


def _unknown(key: str) -> str:
    if key == "defaults":
        return "other files are composed by this list: import what `--cfg job --resolve` of the program prints"
    return "no field is known for this key"


def _put(work: _Work, leaf: Leaf, row: Row, value: Any) -> None:
    path, index = _path(row.field)
    if value is OFF:
        work.off[row.field] = leaf.key
        work.refuse(leaf, f"{row.field} is left out, which is the same", False)
        return
    if row.field.endswith("max_steps") and value == -1:
        work.refuse(leaf, "-1 means by epochs, as it is without it", False)
        return
    if index is not None:
        pair = list(at(work.document, path)) if at(work.document, path) is not ABSENT else list(_BETAS)
        pair[index] = value
        value = pair
    before = at(work.document, path)
    if before not in (ABSENT, {}) and before != value and index is None and not isinstance(before, dict):
        first = next(one for one in work.mapped if one.field == row.field)
        work.refuse(leaf, f"{first.key} gives {row.field}, too, with another value: {before} is kept", row.important)
        return
    patch: Any = value
    for part in reversed(path):
        patch = {part: patch}
    work.document = merge(work.document, patch)
    work.mapped.append(Mapped(leaf.key, leaf.source, row.field, value, row.note))


def _path(name: str) -> tuple[tuple[str, ...], int | None]:
    match = re.fullmatch(r"(.*)\[(\d)\]", name)
    return (tuple(match[1].split(".")), int(match[2])) if match else (tuple(name.split(".")), None)


def _switch_off(work: _Work) -> None:
    """What belongs to a section that is switched off has no effect there, and would switch it on here."""
    for section, key in work.off.items():
        for one in [m for m in work.mapped if m.field.startswith(f"{section}.")]:
            work.mapped.remove(one)
            work.unmapped.append(Unmapped(one.key, one.source, one.value, f"{key} switches it off", False))
        work.document.pop(section, None)


def _assume(work: _Work, stem: str) -> list[str]:
    assumed = []
    adapter = work.document.get("adapter")
    if adapter and "type" not in adapter:
        adapter["type"] = "lora"
        assumed.append("adapter.type: lora, because there are options of an adapter")
    if "name" not in work.document:
        given = next((one.value for one in work.mapped if one.field == "output_dir"), stem)
        work.document["name"] = str(given).rstrip("/").rpartition("/")[2] or stem
        assumed.append(f"name: {work.document['name']}, because the files give none")
    return assumed


def _load(work: _Work, source: str, settings: Sequence[Override]) -> LoadedManifest:
    """Load strictly; what a foreign key brought in and the loader refuses goes to the other list with its words.

    Raises: ManifestError for what no foreign key is to blame for, such as a missing dataset.path.
    """
    for _ in range(_MOST_ROUNDS):
        document, _changes = apply(work.document, [settings])
        try:
            return load_document(document, source)
        except ManifestError as error:
            if not any(_blame(work, problem) for problem in error.problems):
                raise _explained(error) from error
    raise AssertionError("each round takes a key away")


def _blame(work: _Work, problem: Problem) -> bool:
    """Take back the mapped keys whose field the problem names; whether there was one."""
    name = problem.field.partition("[")[0]
    guilty = [m for m in work.mapped if m.field.partition("[")[0] == name]
    guilty = guilty or [
        m for m in work.mapped if name and (m.field.startswith(f"{name}.") or name.startswith(f"{m.field}."))
    ]
    for one in guilty:
        work.mapped.remove(one)
        reason = f"{one.field}: {problem.message}. {problem.fix}"
        important = "has no effect" not in problem.message
        work.unmapped.append(Unmapped(one.key, one.source, one.value, reason, important))
        path, _ = _path(one.field)
        removal: Any = None
        for part in reversed(path):
            removal = {part: removal}
        work.document = merge(work.document, removal)
    if not guilty and problem.field == "adapter.type":
        return work.document.pop("adapter", None) is not None
    return bool(guilty)


def _explained(error: ManifestError) -> ManifestError:
    problems = [
        Problem(p.field, p.value, p.message, f"Give it: --set {p.field}=...", p.line)
        if p.message == "this field is required"
        else p
        for p in error.problems
    ]
    problems = [
        Problem("dataset.path", p.value, p.message, "Give it: --set dataset.path=data/train.jsonl.")
        if p.field == "dataset"
        else p
        for p in problems
    ]
    return ManifestError(error.source, problems)
