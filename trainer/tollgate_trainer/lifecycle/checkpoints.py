"""Checkpoints that count only when they are whole: written aside, moved into place, committed by a file of their own.

`checkpoints/checkpoint-N/COMMIT.json` is written last and removed first, so whatever a kill leaves behind is either
committed and complete or not a checkpoint. Each attempt writes aside in its own folder; an older attempt that still
lives can spoil nothing but that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tollgate.contract import CheckpointRef, Files
from tollgate_trainer import durable
from tollgate_trainer.models.digest import FileEntry, digest_of, entries_from, inventory, mismatch

_NAME = re.compile(r"^checkpoint-(\d+)$")
_STAGING = re.compile(r"^\.attempt-(\d+)$")
ABANDONED_SECONDS = 3600.0
"""A folder of an earlier attempt that nobody wrote to for so long has no living owner."""


@dataclass(frozen=True, slots=True)
class Commit:
    """COMMIT.json: what the checkpoint is and what it is made of."""

    step: int
    attempt: int
    uid: str
    world_size: int
    samples_per_step: int
    manifest_digest: str
    dataset_digest: str
    saved_at: str
    digest: str
    files: list[FileEntry]

    @classmethod
    def read(cls, folder: Path) -> Commit | None:
        """The commit in a checkpoint's folder, or None when there is none that can be understood."""
        try:
            document = json.loads((folder / Files.COMMIT).read_text(encoding="utf-8"))
            document.pop("schema")
            document["files"] = entries_from(document["files"])
            return cls(**document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def ref(self) -> CheckpointRef:
        """As it is told to the operator."""
        return CheckpointRef(
            step=self.step,
            path=f"{Files.CHECKPOINTS}/checkpoint-{self.step}",
            digest=self.digest,
            saved_at=datetime.fromisoformat(self.saved_at),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """A committed checkpoint on the disk."""

    folder: Path
    commit: Commit


@dataclass(frozen=True, slots=True)
class Identity:
    """What a checkpoint of this attempt belongs to."""

    uid: str
    attempt: int
    world_size: int
    samples_per_step: int
    manifest_digest: str
    dataset_digest: str


class CheckpointError(Exception):
    """A checkpoint could not be completed."""


class Checkpoints:
    """The checkpoints below an output root. check_fence raises when this attempt may not commit any more."""

    def __init__(self, output_root: Path, identity: Identity, check_fence: Callable[[], None]) -> None:
        self.root = output_root / Files.CHECKPOINTS
        self.identity = identity
        self._check_fence = check_fence

    @property
    def staging(self) -> Path:
        """Where this attempt writes aside."""
        return self.root / f".attempt-{self.identity.attempt}"

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step lies when it is committed."""
        return self.root / f"checkpoint-{step}"

    def prepare(self, step: int) -> Path:
        """An empty folder to write the checkpoint of `step` into; one process calls it before the others write."""
        folder = self.staging / f"checkpoint-{step}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def commit(self, step: int, expected: Iterable[str], patience: float = 30.0) -> Commit:
        """Make the written folder of `step` a checkpoint.

        Args: expected: files that must be there, also those that other nodes wrote; patience: seconds to wait for them
        (a network volume may show them late).
        Raises: Fenced, CheckpointError, OSError.
        """
        written, final = self.staging / f"checkpoint-{step}", self.folder(step)
        _wait_for(written, expected, patience)
        files = inventory(written)
        for entry in files:
            _flush(written / entry.path)
        commit = Commit(
            **asdict(self.identity) | {"step": step},
            saved_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            digest=digest_of(files),
            files=files,
        )
        self._check_fence()
        remove(final)
        os.rename(written, final)
        durable.flush_folder(self.root)
        self._check_fence()
        durable.write(final / Files.COMMIT, json.dumps({"schema": 1, **asdict(commit)}, indent=1).encode() + b"\n")
        return commit

    def rotate(self, keep_last: int, protected: set[int]) -> list[int]:
        """Remove committed checkpoints but the newest `keep_last` and the protected steps; answers what was removed."""
        found = committed(self.root)
        surplus = [one for one in found[keep_last:] if one.commit.step not in protected]
        for one in surplus:
            remove(one.folder)
        return [one.commit.step for one in surplus]

    def clear_abandoned(self, now: float | None = None) -> None:
        """Remove what earlier attempts wrote aside and left, once nobody has written there for an hour."""
        moment = time.time() if now is None else now
        if not self.root.is_dir():
            return
        for folder in self.root.iterdir():
            match = _STAGING.match(folder.name)
            if match and int(match[1]) < self.identity.attempt and moment - _newest(folder) > ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        if self.staging.is_dir() and not any(self.staging.iterdir()):
            self.staging.rmdir()

    def close(self) -> None:
        """Remove this attempt's own folder for writing aside."""
        shutil.rmtree(self.staging, ignore_errors=True)


def committed(root: Path) -> list[Found]:
    """The committed checkpoints below `root` (the folder `checkpoints`), newest step first; contents are not read."""
    if not root.is_dir():
        return []
    found = []
    for folder in root.iterdir():
        match = _NAME.match(folder.name)
        commit = Commit.read(folder) if match else None
        if match and commit is not None and commit.step == int(match[1]):
            found.append(Found(folder, commit))
    return sorted(found, key=lambda one: one.commit.step, reverse=True)


def newest_valid(root: Path, report: Callable[[Found, str], None]) -> Found | None:
    """The newest committed checkpoint whose files are what was committed; worse ones are reported and passed over."""
    for one in committed(root):
        problem = mismatch(one.folder, one.commit.files)
        if problem is None and digest_of(one.commit.files) != one.commit.digest:
            problem = "its digest does not fit its own list of files"
        if problem is None:
            return one
        report(one, problem)
    return None


def remove(folder: Path) -> None:
    """Take a checkpoint away, its commit first: a kill on the way leaves no half checkpoint that counts."""
    (folder / Files.COMMIT).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _wait_for(folder: Path, expected: Iterable[str], patience: float) -> None:
    end = time.monotonic() + patience
    while missing := [name for name in expected if not (folder / name).is_file()]:
        if time.monotonic() > end:
            raise CheckpointError(
                f"{', '.join(missing)} did not appear in {folder} within {patience:.0f} s; all nodes must share the "
                f"output volume"
            )
        time.sleep(0.2)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _newest(folder: Path) -> float:
    times = [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        try:
            times.append(path.stat().st_mtime)
        except FileNotFoundError:
            return time.time()  # somebody is at work here right now
    return max(times)
