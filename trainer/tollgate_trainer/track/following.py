"""The training's side of the teller: starts it, passes on what it says, and waits a little for it at the end."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from tollgate.contract import Env
from tollgate_trainer.track import notes

LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 20.0
"""How long a training that has ended waits for its teller at most: a node is paid for meanwhile."""


class Follower:
    """A teller beside the training, in the one process that leads.

    ids: of the tracking runs by tracker, filled in as they become known; kept in checkpoints.
    """

    def __init__(
        self, root: Path, environ: Mapping[str, str], ids: dict[str, str], warn: Callable[[str], None]
    ) -> None:
        """Start it. warn: told once for each tracker that fails. A teller that can't be started is a warning, too."""
        self._logs = root / "logs"
        self._ids = ids
        self._warn = warn
        self._warned: set[str] = set()
        self._failures = {name: (note.failures, note.rejected) for name, note in notes.read(self._logs).items()}
        self._stop = threading.Event()
        self._process = _start("train", environ, self._logs, warn)
        self._thread = threading.Thread(target=self._look_now_and_then, name="tracking", daemon=True)
        if self._process is not None:
            self._thread.start()

    def close(self, seconds: float) -> None:
        """The training wrote its last event: let the teller tell it, for so many seconds at most."""
        process = self._process
        if process is None:
            return
        self._process = None
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout=max(min(seconds, PATIENCE_SECONDS), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self._warn(
                "the trackers were not told everything in time; the next attempt or the evaluation tells the rest"
            )
        self._stop.set()
        self._thread.join(timeout=5)
        self._look()

    def _look_now_and_then(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self._look()
            process = self._process
            if process is not None and process.poll() is not None:
                self._warn(f"the trackers are not told any more: their process left with {process.returncode}")
                return

    def _look(self) -> None:
        for name, note in notes.read(self._logs).items():
            if note.id is not None:
                self._ids[name] = note.id
            if name not in self._warned and (note.failures, note.rejected) > self._failures.get(name, (0, 0)):
                self._warned.add(name)
                later = "; the training goes on, and what is missing is told later" if note.failures else ""
                self._warn(f"{name} could not be told: {note.problem}{later}")


def tell_evaluation(
    environ: Mapping[str, str], root: Path, warn: Callable[[str], None], seconds: float = 120.0
) -> None:
    """Tell the trackers of a finished evaluation; what goes wrong is said and counts for nothing."""
    process = _start("evaluate", environ, root / "logs", warn)
    if process is None:
        return
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        warn(f"the trackers were not told of the evaluation within {seconds:.0f} s")
    if process.returncode:
        warn("a tracker was not told of the evaluation (see above)")


def _start(
    what: str, environ: Mapping[str, str], logs: Path, warn: Callable[[str], None]
) -> subprocess.Popen[bytes] | None:
    # No accelerator, little of the processors, and no rank: it is no part of the gang.
    ours = {k: v for k, v in environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    ours |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    aloud = bool(environ.get(Env.DEBUG)) or what == "evaluate"
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "tollgate_trainer.track", what],
            env=ours,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=None if aloud else subprocess.DEVNULL,
        )
    except OSError as error:
        warn(f"the trackers are not told: their process could not be started ({error})")
        return None
