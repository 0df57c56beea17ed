"""The fence: which attempt of which run may write into an output folder.

Two gangs may live at once (a node that is cut off keeps its processes), but only one can commit: each attempt writes
its name into `attempt.lease`, and everything that commits reads it again just before. An older attempt that still lives
finds a newer name and stops itself.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tollgate.contract import Env, Files
from tollgate_trainer import durable


class LeaseError(Exception):
    """The output folder is not ours."""


class Fenced(LeaseError):  # noqa: N818 - the word of the contract
    """A newer attempt, or a run that took over, holds the folder: this process must not write there any more."""


class LeaseRefused(LeaseError):  # noqa: N818 - a refusal, as OutputRefused
    """The folder belongs to another run that may still be alive."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What stands in the lease file. `at` is an ISO instant; host, run, namespace and at are for people."""

    uid: str
    attempt: int
    run: str
    namespace: str
    host: str
    at: str

    def to_json(self) -> bytes:
        """The file's bytes."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @classmethod
    def here(cls, uid: str, attempt: int, run: str, namespace: str, now: datetime) -> Holder:
        """The holder that this machine would be."""
        return cls(
            uid, attempt, run, namespace, socket.gethostname(), now.astimezone(UTC).isoformat(timespec="seconds")
        )


def read(root: Path) -> Holder | None:
    """Who holds `root`, or None when nobody does.

    Raises: LeaseRefused when the file is there but says nothing that can be understood: whoever wrote it may be alive.
    """
    path = root / Files.LEASE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        document: dict[str, Any] = json.loads(text)
        return Holder(
            uid=str(document["uid"]),
            attempt=int(document["attempt"]),
            run=str(document.get("run", "?")),
            namespace=str(document.get("namespace", "?")),
            host=str(document.get("host", "?")),
            at=str(document.get("at", "?")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LeaseRefused(
            f"{path} is not a lease ({type(error).__name__}: {error}); "
            "if no run writes into this folder, remove that file and start again"
        ) from error


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one attempt to commit into `root`, as long as `check` passes."""

    root: Path
    uid: str
    attempt: int

    @classmethod
    def acquire(cls, root: Path, holder: Holder, *, take_over: bool = False) -> Lease:
        """Write `holder` into the folder's lease; only node 0 of a gang does this.

        A lease of the same run (uid) is ours unless its attempt is newer. A lease of another run is taken over only
        with `take_over`: somebody saw that that run is gone or terminal.

        Raises: Fenced (a newer attempt of this run holds it); LeaseRefused (another run holds it, or the file is
        broken).
        """
        lease = cls(root, holder.uid, holder.attempt)
        if durable.create(root / Files.LEASE, holder.to_json()):
            return lease
        present = read(root)
        if present is not None and present.uid != holder.uid and not take_over:
            raise LeaseRefused(
                f"the output folder {root} belongs to run {present.namespace}/{present.run} (uid {present.uid}, "
                f"attempt {present.attempt}, since {present.at} on {present.host}); give this run an output folder of "
                "its own, or delete that run first"
            )
        if present is not None and present.uid == holder.uid:
            lease._refuse_newer(present)
        durable.write(root / Files.LEASE, holder.to_json())
        lease.check()
        return lease

    @classmethod
    def join(
        cls,
        root: Path,
        uid: str,
        attempt: int,
        *,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Lease:
        """Wait at most `patience` seconds until node 0 has written this attempt's name; what every other node does.

        Raises: Fenced (a newer attempt holds it); LeaseRefused when the time is over.
        """
        lease = cls(root, uid, attempt)
        end = clock() + patience
        while True:
            present = read(root)
            if present is not None and present.uid == uid:
                lease._refuse_newer(present)
                if present.attempt == attempt:
                    return lease
            if clock() >= end:
                found = "nobody" if present is None else f"{present.namespace}/{present.run} attempt {present.attempt}"
                raise LeaseRefused(
                    f"node 0 of this attempt did not take the output folder {root} within {patience:.0f} s (it is held "
                    f"by {found}); all nodes of a gang must mount the same volume there"
                )
            sleep(0.5)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Lease:
        """The lease that the launcher took for this process.

        Raises: KeyError when a variable of the contract is missing: the process was not started by the launcher.
        """
        return cls(Path(environ[Env.OUTPUT_ROOT]), environ[Env.UID], int(environ[Env.ATTEMPT]))

    def check(self) -> None:
        """Return only while this attempt holds the folder; called just before everything that commits.

        Raises: Fenced. A lease that vanished fences too: that nobody holds the folder is not known to be true.
        """
        try:
            present = read(self.root)
        except LeaseRefused as error:
            raise Fenced(str(error)) from error
        if present is None:
            raise Fenced(f"{self.root / Files.LEASE} was removed while attempt {self.attempt} was running")
        if present.uid != self.uid:
            raise Fenced(
                f"run {present.namespace}/{present.run} (uid {present.uid}) took over the output folder {self.root} "
                f"at {present.at}"
            )
        self._refuse_newer(present)
        if present.attempt < self.attempt:
            raise Fenced(f"the lease in {self.root} went back to attempt {present.attempt}, this is {self.attempt}")

    def _refuse_newer(self, present: Holder) -> None:
        if present.attempt > self.attempt:
            raise Fenced(
                f"attempt {present.attempt} of this run holds the output folder {self.root} since {present.at} on "
                f"{present.host}; attempt {self.attempt} is over"
            )
