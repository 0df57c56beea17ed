"""The checkpoints of a run for people: on a disk and in a store alike, listed, checked and removed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from tollgate.contract import Files
from tollgate_trainer.laptop.preparation import LaptopError
from tollgate_trainer.lifecycle.checkpoints import Found, committed, remove
from tollgate_trainer.lifecycle.remote.checkpoints import RemoteCheckpoints, RemoteCommit
from tollgate_trainer.lifecycle.remote.store import Place, Store, StoreError
from tollgate_trainer.lifecycle.state import LifecycleState
from tollgate_trainer.models.digest import digest_of, mismatch


@dataclass(frozen=True, slots=True)
class Kept:
    """One committed checkpoint. size: bytes; problem: why it can't be gone on from, None when nothing was found;
    metrics: of an evaluation at its step; best: the run's best evaluation is that of its step.
    """

    step: int
    attempt: int
    saved_at: datetime
    size: int
    digest: str
    place: str
    problem: str | None
    metrics: dict[str, float]
    best: bool
    newest: bool

    def document(self) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "step": self.step,
            "attempt": self.attempt,
            "savedAt": self.saved_at.isoformat(),
            "bytes": self.size,
            "digest": self.digest,
            "path": self.place,
            "ok": self.problem is None,
            "problem": self.problem,
            "metrics": self.metrics,
            "best": self.best,
            "newest": self.newest,
        }


class Shelf(Protocol):
    """Where the checkpoints of one run lie."""

    name: str

    def list(self, *, thorough: bool) -> Sequence[Kept]:
        """All, newest first. thorough: every byte is read; otherwise presence, sizes and the list's own digest.

        Raises: LaptopError.
        """

    def remove(self, step: int) -> None:
        """Take one away, its commit first. Raises: LaptopError."""


class Folder:
    """A folder `checkpoints` on a disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    def list(self, *, thorough: bool) -> Sequence[Kept]:
        """See Shelf."""
        found = committed(self.root)
        best = _best(lambda: LifecycleState.read(found[0].folder)) if found else None
        return [self._kept(one, best, one is found[0], thorough) for one in found]

    def _kept(self, one: Found, best: int | None, newest: bool, thorough: bool) -> Kept:
        commit = one.commit
        problem = mismatch(one.folder, commit.files) if thorough else _sizes(one)
        if problem is None and digest_of(commit.files) != commit.digest:
            problem = "its digest does not fit its own list of files"
        return Kept(
            step=commit.step,
            attempt=commit.attempt,
            saved_at=datetime.fromisoformat(commit.saved_at),
            size=sum(entry.size for entry in commit.files),
            digest=commit.digest,
            place=str(one.folder),
            problem=problem,
            metrics=_metrics(one.folder, commit.step),
            best=commit.step == best,
            newest=newest,
        )

    def remove(self, step: int) -> None:
        """See Shelf."""
        remove(self.root / f"checkpoint-{step}")


class Prefix:
    """A prefix of an S3-like store."""

    def __init__(self, uri: str) -> None:
        """Raises: LaptopError for a URI or a store that can't be used."""
        try:
            self._store = Store(Place.parse(uri))
        except StoreError as error:
            raise LaptopError(str(error)) from error
        self._checkpoints = RemoteCheckpoints(self._store, None)
        self.name = self._store.place.uri()

    def list(self, *, thorough: bool) -> Sequence[Kept]:
        """See Shelf."""
        try:
            found = self._checkpoints.committed()
            best = _best(lambda: self._state(found[0])) if found else None
            return [self._kept(one, best, one is found[0], thorough) for one in found]
        except StoreError as error:
            raise LaptopError(str(error)) from error

    def _state(self, one: RemoteCommit) -> LifecycleState:
        with tempfile.TemporaryDirectory(prefix="tollgate-") as folder:
            data = self._store.get(f"{one.folder}/{Files.LIFECYCLE}")
            Path(folder, Files.LIFECYCLE).write_bytes(data or b"")
            return LifecycleState.read(Path(folder))

    def _kept(self, one: RemoteCommit, best: int | None, newest: bool, thorough: bool) -> Kept:
        if thorough:
            with tempfile.TemporaryDirectory(prefix="tollgate-verify-") as folder:
                problem = self._checkpoints.fetch(one, Path(folder, "checkpoint"))
        else:
            problem = self._checkpoints.problem(one)
        return Kept(
            step=one.step,
            attempt=one.attempt,
            saved_at=datetime.fromisoformat(one.saved_at),
            size=one.size,
            digest=one.digest,
            place=self._store.place.uri(f"checkpoint-{one.step}"),
            problem=problem,
            metrics=one.metrics,
            best=one.step == best,
            newest=newest,
        )

    def remove(self, step: int) -> None:
        """See Shelf."""
        try:
            self._checkpoints.remove(step)
        except StoreError as error:
            raise LaptopError(str(error)) from error

    def empty(self) -> None:
        """Remove every checkpoint, also parts of some that never counted. Raises: LaptopError."""
        try:
            steps = {stored.name.split("/")[0] for stored in self._store.list("checkpoint-")}
            for name in sorted(steps):
                self._checkpoints.remove(int(name.removeprefix("checkpoint-")))
        except (StoreError, ValueError) as error:
            raise LaptopError(f"{self.name} can't be emptied: {error}") from error


def shelf(where: str) -> Shelf:
    """The shelf that a person means: an s3:// prefix, a run's output folder, or its folder `checkpoints`.

    Raises: LaptopError when nothing there is one.
    """
    if "://" in where:
        return Prefix(where)
    folder = Path(where)
    if not folder.is_dir():
        raise LaptopError(f"{where} is no folder; name a run's output folder, or an s3:// prefix")
    if (folder / Files.CHECKPOINTS).is_dir():
        return Folder(folder / Files.CHECKPOINTS)
    if (uri := _uri_of(folder)) is not None:
        return Prefix(uri)
    if folder.name == Files.CHECKPOINTS or committed(folder):
        return Folder(folder)
    raise LaptopError(f"{where} holds no folder `{Files.CHECKPOINTS}`; name a run's output folder, or an s3:// prefix")


def _uri_of(output: Path) -> str | None:
    """Where the run's manifest says that its checkpoints lie."""
    for path in sorted((output / Files.OUTCOMES).glob("attempt-*/manifest.json"), reverse=True):
        try:
            uri = json.loads(path.read_text(encoding="utf-8")).get("checkpoint", {}).get("uri")
        except (OSError, ValueError, AttributeError):
            continue
        return uri if isinstance(uri, str) else None
    return None


def _sizes(one: Found) -> str | None:
    for entry in one.commit.files:
        path = one.folder / entry.path
        if not path.is_file():
            return f"{entry.path} is missing"
        if path.stat().st_size != entry.size:
            return f"{entry.path} has {path.stat().st_size} bytes instead of {entry.size}"
    return None


def _best(read: Callable[[], LifecycleState]) -> int | None:
    try:
        best = read().best
    except (OSError, ValueError, KeyError, TypeError):
        return None  # an old or damaged one says nothing about the best
    return best.step if best is not None else None


def _metrics(folder: Path, step: int) -> dict[str, float]:
    try:
        evaluated = LifecycleState.read(folder).last_evaluation
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(evaluated.metrics) if evaluated is not None and evaluated.step == step else {}
