"""What a tracker is asked to do. A further one is a file with such a class and a row in choose.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Status(StrEnum):
    """How a tracking run stands; KILLED: stopped, and may go on later."""

    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


class Rejected(Exception):  # noqa: N818 - the tracker's answer
    """The tracker will never take this, so it is not tried again. Any other exception is: it may be away."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Whom the tracking run is for. uid: of the TrainingRun, the same over all its attempts; started: the first."""

    run: str
    name: str
    namespace: str
    uid: str
    manifest_digest: str


@dataclass(frozen=True, slots=True)
class Point:
    """Metrics at an optimiser step; all values are finite. The same point may be told twice."""

    step: int
    at: datetime
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was trained on. path: as in the manifest; facts: counts by `split.name`."""

    digest: str
    path: str
    facts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Model:
    """The finished model: its folder and its digest."""

    folder: Path
    digest: str


class Tracker(Protocol):
    """Calls come from one thread, `open` first, and each may block for as long as the library takes.

    All but `metrics` of new points must be repeatable: what was under way when a tracker went away is told again.
    Raises, all of them: Rejected, or whatever the library raises while the tracker is away.
    """

    def open(self, known: str | None, beginning: Beginning) -> str:
        """Start a tracking run, or go on with the one of that id; answers its id."""

    def parameters(self, values: Mapping[str, str]) -> None:
        """Parameters by dotted name; one that was told before keeps its value."""

    def metrics(self, points: Sequence[Point]) -> None:
        """In the order of their steps."""

    def artifact(self, path: Path, folder: str) -> None:
        """A file, below `folder` ("" for the top)."""

    def dataset(self, dataset: Dataset) -> None:
        """What was trained on."""

    def register_model(self, model: Model) -> None:
        """Make the finished model a version, where the manifest asks for that."""

    def finish(self, status: Status) -> None:
        """Everything was told. `open` may follow, in another process."""
