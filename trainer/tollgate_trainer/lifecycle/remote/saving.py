"""Saves that go on beside the training: one at a time, agreed at step ends, waited for only at the end.

All processes are in the same phase at the same step, because a phase only changes by what they agreed on:

    idle -> uploading   all processes write their files in a thread
         -> committing  all have written; the first process checks and commits in a thread
         -> idle        it counts (or does not, and that is told)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from tollgate.contract import CheckpointRef
from tollgate_trainer.lifecycle.checkpoints import CheckpointError
from tollgate_trainer.lifecycle.lease import Fenced
from tollgate_trainer.lifecycle.remote.checkpoints import RemoteCheckpoints
from tollgate_trainer.lifecycle.remote.store import Cancelled, StoreError

MOST_FAILURES = 3
"""Failed uploads in a row after which the training fails: nothing that it does is safe any more."""


class Phase(IntEnum):
    """What all processes do."""

    IDLE = 0
    UPLOADING = 1
    COMMITTING = 2


class Agreed(Protocol):
    """The part of Agreement that is used here."""

    world: int

    def gathered(self, value: object) -> list[Any]:
        """Every process's value, by rank."""

    def from_first(self, value: object) -> Any:
        """Rank 0's value in every process."""


@dataclass(frozen=True, slots=True)
class Save:
    """One checkpoint on its way. folder: on this node's disk; expected: files that somebody must have uploaded;
    metrics: of the evaluation at this step; staged: seconds that the training stood still for it; step_seconds: goodput
    until it, for whoever resumes.
    """

    step: int
    folder: Path
    expected: tuple[str, ...]
    metrics: Mapping[str, float]
    staged: float
    step_seconds: float


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that counts. seconds: from the beginning of its staging until it counted; size: bytes; note: what
    went wrong after that, "" when nothing did.
    """

    save: Save
    ref: CheckpointRef
    seconds: float
    size: int
    note: str = ""


class RemoteSaves:
    """The state machine, the same in all processes. Not for several threads: its own thread only leaves a result."""

    def __init__(
        self,
        checkpoints: RemoteCheckpoints,
        agreement: Agreed,
        rank: int,
        local_rank: int,
        local_world: int,
        rotate: Callable[[], str],
        done: Callable[[Saved], None],
        failed: Callable[[int, str], None],
    ) -> None:
        """rotate: called in the first process's thread after a commit, answers what went wrong; done, failed: called in
        every process.
        """
        self.checkpoints = checkpoints
        self.phase = Phase.IDLE
        self.deferred = False
        self._agreement = agreement
        self._rank, self._local_rank, self._local_world = rank, local_rank, local_world
        self._rotate, self._done, self._failed = rotate, done, failed
        self._save: Save | None = None
        self._thread: Thread | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._begun = 0.0
        self._failures = 0
        self._cancelled = False
        self._generation = 0
        self._told = (0, 0)  # generations in which the last two flags were handed in

    # --- at step ends -----------------------------------------------------------------------------------------------

    def busy(self) -> int:
        """Flag of this process for the agreement: 1 while its thread works."""
        self._told = (self._told[1], self._generation)
        return int(self._thread is not None and self._thread.is_alive())

    def observe(self, busy: int, known: bool) -> None:
        """What all agreed on. With several processes it is what was handed in one step before: then an answer from
        before the phase began says nothing about it.

        Raises: Fenced, CheckpointError after MOST_FAILURES.
        """
        generation = self._told[1] if self._agreement.world == 1 else self._told[0]
        if self.phase is Phase.IDLE or not known or busy or generation != self._generation:
            return
        self._advance(wait=False)

    @property
    def due(self) -> bool:
        """Whether a save that had to wait for an upload can be made now."""
        return self.deferred and self.phase is Phase.IDLE

    # --- a save -----------------------------------------------------------------------------------------------------

    def may_begin(self, *, must: bool) -> bool:
        """Whether a checkpoint may be staged now. An upload that is under way is waited for if it `must`, otherwise the
        save is due again when the upload is done.
        """
        if self.phase is not Phase.IDLE and must:
            self.settle()
        self.deferred = self.phase is not Phase.IDLE
        return not self.deferred

    def begin(self, save: Save) -> None:
        """Upload what was staged, in a thread; all processes call it at the same step."""
        self._save, self._begun = save, time.monotonic()
        paths = share(save.folder, self._local_rank, self._local_world)
        self._enter(
            Phase.UPLOADING,
            lambda: self.checkpoints.upload(save.step, self._rank, save.folder, paths, lambda: self._cancelled),
        )

    def settle(self) -> None:
        """Wait until nothing is under way. Raises: Fenced, CheckpointError."""
        while self.phase is not Phase.IDLE:
            self._advance(wait=True)

    def abandon(self) -> None:
        """Give an upload up, because there is no time for it."""
        self._cancelled = True

    # --- parts ------------------------------------------------------------------------------------------------------

    def _enter(self, phase: Phase, work: Callable[[], Any] | None) -> None:
        self.phase, self._result, self._error, self._thread = phase, None, None, None
        self._generation += 1

        def run() -> None:
            try:
                self._result = work() if work is not None else None
            except (StoreError, CheckpointError, Fenced, Cancelled, OSError) as error:
                self._error = error

        if work is not None:
            self._thread = Thread(target=run, name=f"checkpoint-{phase.name.lower()}", daemon=True)
            self._thread.start()

    def _advance(self, *, wait: bool) -> None:
        if wait and self._thread is not None:
            self._thread.join()
        save = self._save
        assert save is not None
        if self.phase is Phase.UPLOADING:
            told = self._agreement.gathered((self._words(), self._result or 0))
            if problems := [f"rank {rank}: {words}" for rank, (words, _) in enumerate(told) if words]:
                self._fail(save, "; ".join(problems))
                return
            size = sum(count for _, count in told)
            self._enter(Phase.COMMITTING, (lambda: self._commit(save, size)) if self._rank == 0 else None)
            return
        result, words, fenced = self._agreement.from_first(
            (self._result, self._words(), isinstance(self._error, Fenced))
        )
        if fenced:
            raise Fenced(words)
        if words:
            self._fail(save, words)
            return
        self.phase, self._failures = Phase.IDLE, 0
        ref, size, note = result
        self._done(Saved(save, ref, save.staged + time.monotonic() - self._begun, size, note))

    def _commit(self, save: Save, size: int) -> tuple[CheckpointRef, int, str]:
        ref = self.checkpoints.commit(save.step, save.expected, save.metrics).ref(self.checkpoints.store)
        return ref, size, self._rotate()

    def _words(self) -> str:
        error = self._error
        return "" if error is None else str(error) or type(error).__name__

    def _fail(self, save: Save, words: str) -> None:
        self.phase = Phase.IDLE
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            raise CheckpointError(f"{self._failures} checkpoints in a row could not be stored; the last: {words}")
        self._failed(save.step, words)


def share(folder: Path, local_rank: int, local_world: int) -> Sequence[str]:
    """The files of a node's folder that this one of its processes uploads: the largest first, dealt out in turn, the
    same split in every process.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    named = sorted((-path.stat().st_size, path.relative_to(folder).as_posix()) for path in files)
    return [name for _, name in named[local_rank::local_world]]
