"""The identity of a folder of files, for models, their bases and checkpoints. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tollgate_trainer.data.digest import file_digest


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: path relative to its folder, size in bytes, hex sha256."""

    path: str
    size: int
    sha256: str


def inventory(folder: Path, leave_out: Iterable[str] = ()) -> list[FileEntry]:
    """Every file below `folder` but the named ones (relative paths), sorted by path."""
    skipped = set(leave_out)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [
        FileEntry(path, (folder / path).stat().st_size, file_digest(folder / path))
        for path in paths
        if path not in skipped
    ]


def digest_of(entries: Iterable[FileEntry]) -> str:
    """`sha256:<hex>` over one line `path NUL size NUL sha256 LF` per file, in the order of the paths."""
    lines = (f"{entry.path}\0{entry.size}\0{entry.sha256}\n" for entry in sorted(entries, key=lambda e: e.path))
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def mismatch(folder: Path, entries: Iterable[FileEntry]) -> str | None:
    """The first way in which the files differ from `entries`, or None: missing, size, and only then content."""
    listed = list(entries)
    for entry in listed:
        path = folder / entry.path
        if not path.is_file():
            return f"{entry.path} is missing"
        if path.stat().st_size != entry.size:
            return f"{entry.path} has {path.stat().st_size} bytes instead of {entry.size}"
    for entry in listed:
        if file_digest(folder / entry.path) != entry.sha256:
            return f"{entry.path} has another sha256 than was recorded"
    return None


def entries_from(documents: Iterable[Mapping[str, object]]) -> list[FileEntry]:
    """Entries as they stand in JSON. Raises: KeyError, ValueError when they are not entries."""
    return [FileEntry(str(d["path"]), int(str(d["size"])), str(d["sha256"])) for d in documents]
