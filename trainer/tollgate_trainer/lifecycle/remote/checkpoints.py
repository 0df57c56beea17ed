"""Checkpoints below a prefix of a store: what counts, fetching one, committing one, and taking one away.

checkpoint-N/<attempt>/<file>           the files, by the attempt that wrote them
checkpoint-N/<attempt>/rank-R.json      what process R uploaded, with sizes and hashes; written when it is done
checkpoint-N/COMMIT.json                put last, only where none is; removed first
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import xxhash

from tollgate.contract import CheckpointRef, Files
from tollgate_trainer.lifecycle.checkpoints import CheckpointError, Identity
from tollgate_trainer.lifecycle.lease import Fenced
from tollgate_trainer.lifecycle.remote.store import Cancelled, Store, StoreError, Sum, sum_of

_COMMIT = re.compile(r"checkpoint-(\d+)/COMMIT\.json")
_OBJECT = re.compile(r"checkpoint-(\d+)/(\d+)/.+")
ABANDONED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file: path below the checkpoint, size in bytes, xxh3 (128 bits, hex)."""

    path: str
    size: int
    xxh3: str


@dataclass(frozen=True, slots=True)
class RemoteCommit:
    """COMMIT.json. metrics: of the evaluation at this step, {} when there was none."""

    step: int
    attempt: int
    uid: str
    world_size: int
    samples_per_step: int
    manifest_digest: str
    dataset_digest: str
    saved_at: str
    digest: str
    files: list[RemoteFile]
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> RemoteCommit | None:
        """The commit in these bytes, None when they are not one."""
        try:
            document = json.loads(data)
            if document.pop("schema") != 1:
                return None
            document["files"] = [RemoteFile(**entry) for entry in document["files"]]
            return cls(**document)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def to_json(self) -> bytes:
        """As it is stored."""
        return json.dumps({"schema": 1, **asdict(self)}, indent=1, allow_nan=False).encode() + b"\n"

    @property
    def folder(self) -> str:
        """The name that the files' names begin with."""
        return f"checkpoint-{self.step}/{self.attempt}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(one.size for one in self.files)

    def ref(self, store: Store) -> CheckpointRef:
        """As it is told to the operator; the path is a URI."""
        return CheckpointRef(
            step=self.step,
            path=store.place.uri(f"checkpoint-{self.step}"),
            digest=self.digest,
            saved_at=datetime.fromisoformat(self.saved_at),
        )


def digest_of(files: Iterable[RemoteFile]) -> str:
    """`xxh3:<hex>` over one line `path NUL size NUL xxh3 LF` per file, in the order of the paths."""
    lines = (f"{one.path}\0{one.size}\0{one.xxh3}\n" for one in sorted(files, key=lambda one: one.path))
    return "xxh3:" + xxhash.xxh3_128_hexdigest("".join(lines).encode())


class RemoteCheckpoints:
    """The checkpoints of a store. check_fence raises when this attempt may not commit any more."""

    def __init__(self, store: Store, identity: Identity | None, check_fence: Callable[[], None] = lambda: None) -> None:
        """identity: None for who only reads and removes."""
        self.store = store
        self.identity = identity
        self._check_fence = check_fence

    # --- reading ----------------------------------------------------------------------------------------------------

    def committed(self) -> list[RemoteCommit]:
        """What is committed, newest step first; the files are not looked at. Raises: StoreError."""
        found = []
        for stored in self.store.list("checkpoint-"):
            match = _COMMIT.fullmatch(stored.name)
            data = self.store.get(stored.name) if match else None
            commit = RemoteCommit.parse(data) if data is not None else None
            if match and commit is not None and commit.step == int(match[1]):
                found.append(commit)
        return sorted(found, key=lambda one: one.step, reverse=True)

    def problem(self, commit: RemoteCommit) -> str | None:
        """What is wrong with a checkpoint by its list alone: a missing object, another size, another digest."""
        if digest_of(commit.files) != commit.digest:
            return "its digest does not fit its own list of files"
        sizes = {stored.name: stored.size for stored in self.store.list(f"{commit.folder}/")}
        for one in commit.files:
            size = sizes.get(f"{commit.folder}/{one.path}")
            if size is None:
                return f"{one.path} is missing"
            if size != one.size:
                return f"{one.path} has {size} bytes instead of {one.size}"
        return None

    def fetch(self, commit: RemoteCommit, folder: Path) -> str | None:
        """Download a checkpoint into `folder` and check every file; answers what is wrong with it, None when whole.

        A folder that holds it already is taken as it is. Raises: OSError of the disk.
        """
        if whole(commit, folder):
            return None
        shutil.rmtree(folder, ignore_errors=True)
        try:
            if (problem := self.problem(commit)) is not None:
                return problem
            for one in commit.files:
                found = self.store.download(f"{commit.folder}/{one.path}", folder / one.path)
                if found != Sum(one.size, one.xxh3):
                    return f"{one.path} has another xxh3 than was recorded"
        except StoreError as error:
            return str(error)
        return None

    def newest_valid(
        self, folder_for: Callable[[int], Path], report: Callable[[RemoteCommit, str], None]
    ) -> tuple[RemoteCommit, Path] | None:
        """The newest checkpoint that could be fetched whole, and where; worse ones are reported and passed over."""
        for commit in self.committed():
            folder = folder_for(commit.step)
            problem = self.fetch(commit, folder)
            if problem is None:
                return commit, folder
            shutil.rmtree(folder, ignore_errors=True)
            report(commit, problem)
        return None

    # --- writing ----------------------------------------------------------------------------------------------------

    def open(self, step: int) -> None:
        """Before files of `step` are written again by the attempt that committed it: it no longer counts."""
        assert self.identity is not None
        name = f"checkpoint-{step}/{Files.COMMIT}"
        before = RemoteCommit.parse(self.store.get(name) or b"")
        if before is not None and before.attempt == self.identity.attempt:
            self.store.delete([name])

    def upload(
        self, step: int, rank: int, folder: Path, paths: Iterable[str], cancelled: Callable[[], bool] = lambda: False
    ) -> int:
        """Write this process's files and then the list of them; answers the bytes.

        Raises: StoreError, Cancelled, OSError.
        """
        assert self.identity is not None
        name = f"checkpoint-{step}/{self.identity.attempt}"
        files = []
        for path in paths:
            if cancelled():
                raise Cancelled
            found = self.store.upload(folder / path, f"{name}/{path}", cancelled)
            files.append(asdict(RemoteFile(path, found.size, found.xxh3)))
        self.store.put(f"{name}/rank-{rank}.json", json.dumps({"schema": 1, "files": files}).encode())
        return sum(int(entry["size"]) for entry in files)

    def commit(self, step: int, expected: Iterable[str], metrics: Mapping[str, float]) -> RemoteCommit:
        """Check what all processes uploaded and make it a checkpoint; one process calls it when all have uploaded.

        Raises: Fenced when a newer attempt holds the folder or committed this step, CheckpointError, StoreError.
        """
        identity = self.identity
        assert identity is not None
        files = self._uploaded(step, identity.attempt, identity.world_size)
        if missing := sorted(set(expected) - {one.path for one in files}):
            raise CheckpointError(f"nobody uploaded {', '.join(missing)} of the checkpoint of step {step}")
        commit = RemoteCommit(
            **asdict(identity) | {"step": step},
            saved_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            digest=digest_of(files),
            files=files,
            metrics=dict(metrics),
        )
        if (problem := self.problem(commit)) is not None:
            raise CheckpointError(f"the checkpoint of step {step} was uploaded, but {problem}")
        name = f"checkpoint-{step}/{Files.COMMIT}"
        self._check_fence()
        there = self.store.get(name)
        before = RemoteCommit.parse(there or b"")
        if before is not None and before.uid == identity.uid and before.attempt > identity.attempt:
            raise Fenced(f"attempt {before.attempt} committed step {step} already; this is attempt {identity.attempt}")
        if there is not None:
            self.store.delete([name])
            self._check_fence()
        if not self.store.put_new(name, commit.to_json()):
            raise Fenced(f"another attempt committed step {step} at {self.store.place.uri(name)} meanwhile")
        return commit

    def _uploaded(self, step: int, attempt: int, world: int) -> list[RemoteFile]:
        files: dict[str, RemoteFile] = {}
        for rank in range(world):
            name = f"checkpoint-{step}/{attempt}/rank-{rank}.json"
            data = self.store.get(name)
            if data is None:
                raise CheckpointError(f"process {rank} left no list of what it uploaded ({self.store.place.uri(name)})")
            entries: list[dict[str, Any]] = json.loads(data)["files"]
            for one in (RemoteFile(**entry) for entry in entries):
                if one.path in files:
                    raise CheckpointError(f"two processes uploaded {one.path} of the checkpoint of step {step}")
                files[one.path] = one
        return [files[path] for path in sorted(files)]

    def remove(self, step: int) -> None:
        """Take a checkpoint away, its commit first: a kill on the way leaves no half checkpoint that counts."""
        self.store.delete([f"checkpoint-{step}/{Files.COMMIT}"])
        self.store.delete([stored.name for stored in self.store.list(f"checkpoint-{step}/")])

    def clear_abandoned(self, now: datetime) -> int:
        """Remove what earlier attempts uploaded and never committed, an hour later; answers how many objects."""
        assert self.identity is not None
        kept = {one.folder for one in self.committed()}
        stale = []
        for stored in self.store.list("checkpoint-"):
            match = _OBJECT.fullmatch(stored.name)
            if match is None or f"checkpoint-{match[1]}/{match[2]}" in kept:
                continue
            if int(match[2]) < self.identity.attempt and now - stored.modified > ABANDONED:
                stale.append(stored.name)
        self.store.delete(stale)
        return len(stale)


def whole(commit: RemoteCommit, folder: Path) -> bool:
    """Whether a folder on the disk holds every file of a checkpoint as it was committed."""
    paths = [(folder / one.path, one) for one in commit.files]
    if not all(path.is_file() and path.stat().st_size == one.size for path, one in paths):
        return False
    return all(sum_of(path).xxh3 == one.xxh3 for path, one in paths)
