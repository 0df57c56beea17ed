"""What was told to each tracker so far: tracking.json, written by the teller, read by the training and the next one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from tollgate_trainer import durable

NAME = "tracking.json"


@dataclass(frozen=True, slots=True)
class Note:
    """About one tracker.

    id: of the tracking run; offset: bytes of the events that were told; told, known: as in translate.Steps; failures:
    calls that failed and are told later; rejected: what the tracker will never take; problem: the newest, in words.
    """

    id: str | None = None
    offset: int = 0
    told: int = 0
    known: int = 0
    failures: int = 0
    rejected: int = 0
    problem: str | None = None


def read(folder: Path) -> dict[str, Note]:
    """The notes in a folder by tracker, {} when there are none or they are not ours."""
    names = {field.name for field in fields(Note)}
    try:
        document = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return {str(key): Note(**{k: v for k, v in one.items() if k in names}) for key, one in document.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def write(folder: Path, notes: Mapping[str, Note]) -> None:
    """Put them there, whole or not at all. Raises: OSError."""
    document = {name: asdict(note) for name, note in notes.items()}
    durable.write(folder / NAME, json.dumps(document, indent=1).encode() + b"\n")


def newest(first: Mapping[str, Note], second: Mapping[str, Note]) -> dict[str, Note]:
    """Of each tracker the note that is further on; an id that only one of them knows is kept."""
    found = dict(first)
    for name, note in second.items():
        other = found.get(name, note)
        best = note if note.offset >= other.offset else other
        found[name] = replace(best, id=best.id or note.id or other.id)
    return found
