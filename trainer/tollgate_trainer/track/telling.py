"""Tells one tracker what the events of a run say, from the byte that it was told last. Never raises for a tracker."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from tollgate.contract import Files
from tollgate_trainer.track.choose import Wanted
from tollgate_trainer.track.notes import Note
from tollgate_trainer.track.protocol import Beginning, Dataset, Model, Point, Rejected, Status, Tracker
from tollgate_trainer.track.translate import QUIET, Ended, Parameters, Steps, Told, flat, translate
from tollgate_trainer.words import hide

AT_ONCE = 1_000_000
"""Bytes of events that are told in one go."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is told about: the output folder, who it belongs to, the canonical manifest, and what must not be said."""

    root: Path
    beginning: Beginning
    manifest: Mapping[str, Any]
    hidden: Sequence[str]

    @property
    def dataset_path(self) -> str:
        """As the manifest names it."""
        return str((self.manifest.get("dataset") or {}).get("path", ""))


class Telling:
    """One tracker of one run. `note` is what has been told."""

    def __init__(self, wanted: Wanted, subject: Subject, note: Note, make: Any) -> None:
        """make: makes the Tracker, called when there is something to tell."""
        self.name = wanted.name
        self.note = note
        self._subject = subject
        self._make = make
        self._tracker: Tracker | None = None

    def catch_up(self) -> bool:
        """Tell what is new; answers whether the tracker now knows everything that was written before."""
        while True:
            events, offset = self._new()
            if not events:
                self.note = replace(self.note, offset=offset)
                return True
            if not self._attempt(partial(self._tell, events)):
                return False
            self.note = replace(self.note, offset=offset)

    def evaluated(self, points: Sequence[Point], files: Iterable[tuple[Path, str]]) -> bool:
        """Tell the final evaluation."""

        def tell() -> None:
            tracker = self._opened()
            self._try(lambda: tracker.metrics(points))
            for path, folder in files:
                if path.is_file():
                    self._try(lambda path=path, folder=folder: tracker.artifact(path, folder))
            self._finish(Status.FINISHED)

        return self._attempt(tell)

    def leave(self) -> None:
        """Let go of a tracker whose run did not say how it ended; it may go on."""
        if self._tracker is not None:
            self._attempt(lambda: self._finish(Status.KILLED))

    # --- parts ------------------------------------------------------------------------------------------------------

    def _new(self) -> tuple[list[dict[str, Any]], int]:
        """(whole lines after the ones that were told, where they end)."""
        path = self._subject.root / Files.EVENTS
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                begin = self.note.offset if self.note.offset <= size else 0  # another file: earlier work was put aside
                file.seek(begin)
                data = file.read(AT_ONCE)
        except FileNotFoundError:
            return [], self.note.offset
        whole = data[: data.rfind(b"\n") + 1]
        found = []
        for line in whole.splitlines():
            try:
                event = json.loads(hide(line.decode("utf-8", errors="replace"), self._subject.hidden))
            except ValueError:
                continue  # a line that a kill cut off
            if isinstance(event, dict) and "event" in event and "time" in event:
                found.append(event)
        return found, begin + len(whole)

    def _tell(self, events: Sequence[Mapping[str, Any]]) -> None:
        steps = Steps(self.note.told, self.note.known)
        points: list[Point] = []
        for event in events:
            if self._tracker is None and event["event"] in QUIET:
                self._remember(event)
                _, steps = translate(event, self._subject.dataset_path, steps)
                continue
            self._opened()
            told, steps = translate(event, self._subject.dataset_path, steps)
            if isinstance(told, Point):
                points.append(told)
            elif told is not None:
                self._send(points)
                points = []
                self._one(told)
        self._send(points)
        self.note = replace(self.note, told=steps.told, known=steps.known)

    def _remember(self, event: Mapping[str, Any]) -> None:
        """A checkpoint knows the tracking run where our own notes are lost."""
        known = event.get("trackers")
        if self.note.id is None and isinstance(known, Mapping) and isinstance(known.get(self.name), str):
            self.note = replace(self.note, id=known[self.name])

    def _send(self, points: Sequence[Point]) -> None:
        if points:
            tracker = self._opened()
            self._try(lambda: tracker.metrics(points))

    def _one(self, told: Told) -> None:
        tracker = self._opened()
        if isinstance(told, Parameters):
            self._try(lambda: tracker.parameters(told.values))
        elif isinstance(told, Dataset):
            self._try(lambda: tracker.dataset(told))
        elif isinstance(told, Ended):
            if told.status is Status.FINISHED:
                self._finished_model()
            self._finish(told.status)

    def _finished_model(self) -> None:
        """The record of the finished model, its goodput, and the model itself."""
        tracker, root = self._opened(), self._subject.root
        folder = root / Files.MODEL
        try:
            info = json.loads((folder / Files.MODEL_INFO).read_text(encoding="utf-8"))
            digest = str(info["digest"])
        except (OSError, ValueError, KeyError):
            return  # it was put aside since
        self._try(lambda: tracker.metrics(goodput_points(info)))
        for path, where in ((folder / Files.MODEL_INFO, "model"), (root / Files.PLAN, "")):
            if path.is_file():
                self._try(lambda path=path, where=where: tracker.artifact(path, where))
        self._try(lambda: tracker.register_model(Model(folder, digest)))

    def _opened(self) -> Tracker:
        if self._tracker is None:
            tracker: Tracker = self._make()
            known = tracker.open(self.note.id, self._subject.beginning)
            self.note = replace(self.note, id=known)
            self._tracker = tracker
            text = json.loads(hide(json.dumps(self._subject.manifest, ensure_ascii=False), self._subject.hidden))
            self._try(lambda: tracker.parameters(flat(text)))
        return self._tracker

    def _finish(self, status: Status) -> None:
        tracker = self._opened()
        self._tracker = None
        tracker.finish(status)

    def _try(self, call: Any) -> None:
        """A call whose refusal is noted and not repeated."""
        try:
            call()
        except Rejected as error:
            self.note = replace(self.note, rejected=self.note.rejected + 1, problem=self._said(error))

    def _attempt(self, call: Any) -> bool:
        """Whether the tracker was there; a failure is noted."""
        try:
            call()
        except Exception as error:  # the tracker's library raises what it likes, and none of it may matter to us
            self.note = replace(self.note, failures=self.note.failures + 1, problem=self._said(error))
            return False
        return True

    def _said(self, error: Exception) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        return hide(f"{type(error).__name__}: {text}", self._subject.hidden)[:400]


def goodput_points(info: Mapping[str, Any]) -> list[Point]:
    """Where the time of all attempts went, as metrics at the last step; [] when the record does not say."""
    seconds, at = info.get("goodput_seconds"), info.get("finished_at")
    if not isinstance(seconds, Mapping) or not isinstance(at, str):
        return []
    total = sum(float(value) for value in seconds.values())
    values = {f"goodput.{name}_seconds": float(value) for name, value in seconds.items()}
    if total > 0:
        values["goodput.ratio"] = float(seconds.get("step", 0.0)) / total
    return [Point(int(info.get("step") or 0), datetime.fromisoformat(at), values)]
