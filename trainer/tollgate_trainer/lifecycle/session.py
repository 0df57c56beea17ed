"""One process's view of the attempt it belongs to: who it is, what it has done, and when it has to stop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tollgate.contract import CheckpointRef, StopReason
from tollgate.manifest.loader import LoadedManifest
from tollgate_trainer.lifecycle.agreement import Agreement
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.lifecycle.events import Events
from tollgate_trainer.lifecycle.goodput import Goodput, State, added
from tollgate_trainer.lifecycle.heartbeat import Beat
from tollgate_trainer.lifecycle.lease import Fenced, Lease
from tollgate_trainer.lifecycle.state import LifecycleState
from tollgate_trainer.lifecycle.stop import Deadline, Durations, StopCode, StopFlag, save_fits
from tollgate_trainer.metrics import Progress

FENCE_SECONDS = 15.0
"""How often the lease is looked at between commits."""


@dataclass(slots=True)
class Session:
    """State of the process.

    dataset: what was read, as Documents.record.
    earlier: goodput seconds of all attempts before, with what they lost; expected_save: seconds that a save will take
    by the speed of the volume, until one was measured; expected_evaluation: as much of an evaluation, by a part of one
    before the first step; outlook: planned and forecast against actual time and cost;
    trackers: ids of the tracking runs, as they become known.
    """

    attempt: Attempt
    loaded: LoadedManifest
    dataset_digest: str
    goodput: Goodput
    events: Events
    agreement: Agreement
    flag: StopFlag
    lease: Lease
    dataset: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    state: LifecycleState = field(default_factory=LifecycleState)
    earlier: dict[str, float] = field(default_factory=dict)
    committed: CheckpointRef | None = None
    saves_under_way: int = 0
    resumed_from: int | None = None
    exact: bool = False
    stopped: StopCode = StopCode.NONE
    steps: Durations = field(default_factory=Durations)
    saves: Durations = field(default_factory=Durations)
    evaluations: Durations = field(default_factory=Durations)
    committed_step_seconds: float = 0.0
    expected_save: float | None = None
    expected_evaluation: float | None = None
    outlook: dict[str, Any] = field(default_factory=dict)
    trackers: dict[str, str] = field(default_factory=dict)
    _fence_checked: float = field(default_factory=time.monotonic)
    _fenced: str | None = None

    @property
    def deadline(self) -> Deadline | None:
        """When the launcher kills, None without a limit."""
        at = self.attempt.deadline
        return Deadline(at, self.attempt.grace, self.attempt.stop_margin) if at is not None else None

    def run_seconds(self) -> dict[str, float]:
        """Goodput over all attempts until now."""
        return added(self.earlier, self.goodput.seconds())

    def beat(self) -> Beat:
        """For the heartbeat."""
        attempt = self.attempt
        return Beat(
            attempt=attempt.number,
            uid=attempt.uid,
            at=time.time(),
            state=self.goodput.state,
            step=self.progress.step or 0,
            attempt_seconds=dict(self.goodput.seconds()),
            run_seconds=self.run_seconds(),
        )

    def own_stop(self, ahead: float) -> StopCode:
        """Why this process would stop now. ahead: seconds that the next step (and its evaluation) takes."""
        if self._fence_is_lost():
            return StopCode.FENCED
        deadline = self.deadline
        if deadline is not None and deadline.reached(time.time(), ahead, self.save_seconds()):
            return StopCode.DEADLINE
        return StopCode.SIGNAL if self.flag.signalled_at is not None else StopCode.NONE

    def may_save(self) -> bool:
        """Whether a checkpoint can be finished before somebody kills us."""
        kills = []
        if self.flag.signalled_at is not None:
            kills.append(self.flag.signalled_at + self.attempt.grace)
        if self.attempt.deadline is not None:
            kills.append(self.attempt.deadline)
        save = self.save_seconds()
        if save is not None and self.saves_under_way:
            save *= 2  # the upload that is under way has to end first
        return save_fits(time.time(), min(kills, default=None), self.attempt.grace, save)

    def save_seconds(self) -> float | None:
        """How long a save takes: measured, or by the volume's speed before the first one; None when not known."""
        measured = self.saves.p95()
        return measured if measured is not None else self.expected_save

    def evaluation_seconds(self, guess: float) -> float:
        """How long an evaluation takes: measured; before the first one the longer of a guess and the rehearsal."""
        measured = self.evaluations.p95()
        return measured if measured is not None else max(guess, self.expected_evaluation or 0.0)

    def stop_reason(self) -> str:
        """The reason for the last words, when the loop was left early."""
        return self.attempt.deadline_reason if self.stopped is StopCode.DEADLINE else StopReason.SIGNAL

    def raise_if_fenced(self, code: StopCode) -> None:
        """Raises: Fenced when any process saw a newer holder of the output folder."""
        if code is StopCode.FENCED:
            raise Fenced(self._fenced or "another process of this attempt found a newer holder of the output folder")

    def say(self, event: str, **values: Any) -> None:
        """One line in the events, with the step where there is one."""
        self.events.add(event, **values)

    def remember(self, **changes: Any) -> None:
        """Change the lifecycle state."""
        self.state = replace(self.state, trackers=dict(self.trackers), **changes)

    def spend(self, state: State) -> Any:
        """Be in a goodput state for a block."""
        return self.goodput.spend(state)

    def _fence_is_lost(self) -> bool:
        """Only the first process of a node looks, and only now and then: the lease lies on the shared volume."""
        if self._fenced is None and self.attempt.local_rank == 0:
            now = time.monotonic()
            if now - self._fence_checked >= FENCE_SECONDS:
                self._fence_checked = now
                try:
                    self.lease.check()
                except Fenced as error:
                    self._fenced = str(error)
        return self._fenced is not None
