"""A sign of life every two seconds, with where the time went: what is left to read after a SIGKILL.

One file per attempt, so that an older attempt that still lives never writes over a newer one's.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tollgate_trainer.lifecycle.goodput import rounded

INTERVAL_SECONDS = 2.0
_NAME = re.compile(r"^heartbeat-(\d+)\.json$")


@dataclass(frozen=True, slots=True)
class Beat:
    """at: epoch seconds; step: the newest; attempt_seconds: per state of this attempt; run_seconds: of all attempts."""

    attempt: int
    uid: str
    at: float
    state: str
    step: int
    attempt_seconds: dict[str, float]
    run_seconds: dict[str, float]


class Heartbeat:
    """Writes beats from a thread of its own, also while the training is deep in a long call."""

    def __init__(self, output_root: Path, attempt: int, beat: Callable[[], Beat]) -> None:
        self._path = output_root / "logs" / f"heartbeat-{attempt}.json"
        self._beat = beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Beat from now on."""
        self.write()
        self._thread.start()

    def stop(self) -> None:
        """Write a last beat and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self.write()

    def write(self) -> None:
        """One beat now. No flush to the disk: it only has to survive the process, not the machine."""
        beat = self._beat()
        document = asdict(beat)
        document["attempt_seconds"], document["run_seconds"] = rounded(beat.attempt_seconds), rounded(beat.run_seconds)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}-{threading.get_ident()}")
        beside.write_text(json.dumps(document) + "\n", encoding="utf-8")
        os.replace(beside, self._path)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            try:
                self.write()
            except OSError as error:
                print(f"tollgate: heartbeat could not be written: {error}", flush=True)


def last_beat(output_root: Path, attempt: int, uid: str) -> Beat | None:
    """The last beat of this run up to this attempt; None when there was none that can be read.

    A suspended attempt comes back under the same number, so its own earlier beat counts too.
    """
    folder = output_root / "logs"
    if not folder.is_dir():
        return None
    numbers = (int(match[1]) for path in folder.iterdir() if (match := _NAME.match(path.name)))
    for number in sorted((number for number in numbers if number <= attempt), reverse=True):
        try:
            beat = Beat(**json.loads((folder / f"heartbeat-{number}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue  # a beat that was cut off tells nothing; an earlier one still does
        if beat.uid == uid:
            return beat
    return None
