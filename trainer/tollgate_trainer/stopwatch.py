"""How long an attempt has used its nodes, kept on the output volume so that no resume starts the clock again.

A Job that is suspended and resumed keeps its attempt number and its `TOLLGATE_STOP_AFTER_SECONDS`, but its pods and the
mtime of their mounts are new. What earlier pods of the same (uid, attempt) and node used is subtracted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tollgate_trainer import durable

INTERVAL = 5.0  # seconds between two notes; a pod that was killed is charged this much more than its last note
_KEEP = 200  # pods; older ones are dropped


class StopwatchError(ValueError):
    """The file is there but can't be understood; what was used is unknown, and unknown is not zero."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One pod's use: epoch seconds. `closed`: the pod wrote its own end; else `until` is its last note."""

    uid: str
    attempt: int
    pod: str
    started: float
    until: float
    closed: bool

    @property
    def seconds(self) -> float:
        """What is charged for it, never too little: an open segment may have lived until its next note was due."""
        return max(self.until - self.started, 0.0) + (0.0 if self.closed else INTERVAL)


def read(path: Path) -> tuple[Segment, ...]:
    """All segments in `path`, oldest first; none when there is no file.

    Raises: StopwatchError naming the file and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    try:
        return tuple(
            Segment(
                uid=str(entry["uid"]),
                attempt=int(entry["attempt"]),
                pod=str(entry["pod"]),
                started=float(entry["started"]),
                until=float(entry["until"]),
                closed=bool(entry["closed"]),
            )
            for entry in json.loads(text)["segments"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StopwatchError(
            f"{path} can't be read ({type(error).__name__}: {error}), so it is not known how much of its limit this "
            "attempt has used; remove the file if it has not run before"
        ) from error


def used_before(segments: Sequence[Segment], current: Segment) -> float:
    """Seconds that other pods of the same attempt used before this one."""
    return sum(s.seconds for s in segments if _same_attempt(s, current) and not _same_pod(s, current))


def write(path: Path, earlier: Sequence[Segment], current: Segment) -> None:
    """Replace the file by `earlier` and `current`, atomically. Raises: OSError of the file system."""
    kept = [s for s in earlier if not (_same_attempt(s, current) and _same_pod(s, current))][-_KEEP:]
    document = {"schema": 1, "segments": [asdict(s) for s in (*kept, current)]}
    durable.write(path, json.dumps(document, indent=1).encode() + b"\n")


def _same_attempt(a: Segment, b: Segment) -> bool:
    return a.uid == b.uid and a.attempt == b.attempt


def _same_pod(a: Segment, b: Segment) -> bool:
    # A container that is restarted inside its pod keeps the mount: its seconds already count from the same mtime.
    return a.pod == b.pod and a.started == b.started
