"""The teller: `python -m tollgate_trainer.track train|evaluate`, in the environment of the attempt.

train: tell what is written, until standard input ends; then tell the rest. Signals for the training's group are not
for it. evaluate: tell what is left and the final evaluation, once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tollgate.contract import Files
from tollgate.gates import evidence
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_canonical
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.refusal import Refused
from tollgate_trainer.track import notes
from tollgate_trainer.track.choose import wanted
from tollgate_trainer.track.protocol import Beginning, Point
from tollgate_trainer.track.telling import Subject, Telling
from tollgate_trainer.words import hide, secrets

EVERY_SECONDS = 2.0
SLOWEST_SECONDS = 60.0


class Teller:
    """All trackers of one run. home: the folder of the notes, that can be written."""

    def __init__(self, attempt: Attempt, home: Path) -> None:
        """Raises: Refused, ManifestError, OSError."""
        loaded = load_canonical(attempt.manifest.read_bytes(), attempt.manifest_digest, str(attempt.manifest))
        manifest, root = loaded.manifest, attempt.output_root
        self._home = home
        self.root = root
        beginning = Beginning(attempt.run, manifest.name, attempt.namespace, attempt.uid, loaded.digest)
        subject = Subject(root, beginning, json.loads(loaded.canonical), secrets(os.environ))
        told = notes.newest(notes.read(root / "logs"), notes.read(root / "evaluation"))
        self.tellings = [
            Telling(one, subject, told.get(one.name, notes.Note()), lambda one=one: one.make(root, manifest))
            for one in wanted(manifest, os.environ)
        ]
        self._written: dict[str, notes.Note] = {}
        self._due = {telling.name: (0.0, EVERY_SECONDS) for telling in self.tellings}

    def round(self, last: bool = False) -> bool:
        """Tell every tracker whose turn it is (the last time: all); answers whether all know everything."""
        whole = True
        for telling in self.tellings:
            at, wait = self._due[telling.name]
            if time.monotonic() < at and not last:
                whole = False
                continue
            done = telling.catch_up()
            wait = EVERY_SECONDS if done else min(2 * wait, SLOWEST_SECONDS)
            self._due[telling.name] = (time.monotonic() + wait, wait)
            whole = whole and done
            self.note()
        return whole

    def note(self) -> None:
        """Write the notes when they changed."""
        now = {telling.name: telling.note for telling in self.tellings}
        if now != self._written:
            notes.write(self._home, now)
            self._written = now


def main(arguments: Sequence[str]) -> int:
    """Do what the first argument says; returns the exit code."""
    try:
        attempt = Attempt.parse(os.environ)
        logs = attempt.output_root / "logs"
        if list(arguments) == ["train"]:
            train(Teller(attempt, logs))
            return 0
        if list(arguments) == ["evaluate"]:
            home = logs if os.access(logs, os.W_OK) else attempt.output_root / "evaluation"
            return 0 if evaluated(Teller(attempt, home)) else 1
    except (Refused, ManifestError, evidence.EvidenceError, OSError) as error:
        print(f"the trackers were not told: {hide(str(error), secrets(os.environ))}", file=sys.stderr, flush=True)
        return 1
    print("usage: python -m tollgate_trainer.track train|evaluate", file=sys.stderr)
    return 64


def train(teller: Teller) -> None:
    """Tell until nobody writes any more."""
    os.nice(10)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    over = threading.Event()
    threading.Thread(target=_until_the_end, args=(over,), daemon=True).start()
    parent = os.getppid()
    while not over.wait(0.5) and os.getppid() == parent:
        teller.round()
    if not teller.round(last=True):  # once more for a moment's trouble; for a server that is gone nobody waits
        time.sleep(EVERY_SECONDS)
        teller.round(last=True)
    for telling in teller.tellings:
        telling.leave()
    teller.note()


def _until_the_end(over: threading.Event) -> None:
    sys.stdin.buffer.read()
    over.set()


def evaluated(teller: Teller) -> bool:
    """Tell what is left, and the evidence with its report; answers whether all trackers took it."""
    root = teller.root
    facts = evidence.parse_statement((root / Files.EVIDENCE).read_bytes())
    values = {}
    for metric in facts.metrics:
        for name, value in (("", metric.value), (".lower", metric.lower), (".upper", metric.upper)):
            if value is not None:
                values[f"final.{metric.name}{name}"] = float(value)
        values[f"final.{metric.name}.samples"] = float(metric.samples)
    points = [Point(_step(root), facts.evaluated_at, values)]
    files = [(root / Files.EVIDENCE, "evaluation"), (root / Files.REPORT, "report")]
    whole = teller.round(last=True)
    for telling in teller.tellings:
        whole = telling.evaluated(points, files) and whole
        if not whole:
            print(f"{telling.name} was not told the evaluation: {telling.note.problem}", file=sys.stderr, flush=True)
    teller.note()
    return whole


def _step(root: Path) -> int:
    """The step of the finished model; 0 when its record does not say."""
    try:
        return int(json.loads((root / Files.MODEL / Files.MODEL_INFO).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
