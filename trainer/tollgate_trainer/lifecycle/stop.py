"""When to stop: a flag that signals set, the deadline's rule, and which cause wins when there are several."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from types import FrameType

SAVE_MARGIN_SECONDS = 10.0
"""Kept free between the end of the last save and the kill."""


class StopCode(IntEnum):
    """A cause as a number that can be all-reduced by MAX: the higher one wins."""

    NONE = 0
    SIGNAL = 1
    DEADLINE = 2
    FENCED = 3
    NON_FINITE = 4


class StopFlag:
    """Set by SIGTERM and SIGINT; the training loop looks at it at each step end.

    Before the loop there is nothing to save and nobody to agree with: then `leave` is called at once, so that no grace
    is paid for importing and loading.
    """

    def __init__(self) -> None:
        self.signalled_at: float | None = None
        self.signal_name: str | None = None
        self.leave: Callable[[], None] | None = None

    def install(self) -> StopFlag:
        """Answer SIGTERM and SIGINT from now on. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signalled_at is None:
            self.signalled_at = time.time()
            self.signal_name = signal.Signals(number).name
            if self.leave is not None:
                self.leave()


class Durations:
    """The last durations of one kind of work, in seconds."""

    def __init__(self, keep: int = 50) -> None:
        self._values: deque[float] = deque(maxlen=keep)

    def add(self, seconds: float) -> None:
        """One more measurement."""
        self._values.append(seconds)

    def p95(self) -> float | None:
        """The 95th percentile of what was measured (the largest of fewer than 20), None when nothing was."""
        if not self._values:
            return None
        ordered = sorted(self._values)
        return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Deadline:
    """Epoch seconds at which the process group is killed, and how long before it the trainer leaves by itself."""

    at: float
    grace: float
    stop_margin: float

    def leave_before(self, save: float | None) -> float:
        """The instant by which the loop has to be left: deadline - max(grace, p95 save + margin, the user's margin)."""
        return self.at - max(self.grace, (save or 0.0) + SAVE_MARGIN_SECONDS, self.stop_margin)

    def reached(self, now: float, ahead: float, save: float | None) -> bool:
        """Whether to leave at this step end.

        Args: now: epoch seconds; ahead: seconds until there is another chance to leave (Rhythm); save: p95 of saving,
        or what the volume's speed lets expect, None when neither is known.
        """
        return now + ahead > self.leave_before(save)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """What happens between steps. evaluate_every, save_every: steps, None for never; finishing: seconds after the last
    step besides its evaluation and checkpoint (the best weights are evaluated again, the model is written).
    """

    total_steps: int
    evaluate_every: int | None
    save_every: int | None
    step: float
    evaluation: float
    save: float
    finishing: float

    def until_next_chance(self, step: int, lag: int) -> float:
        """Seconds from the decision at the end of `step` until the next one can end the loop.

        A decision not to stop lets everything happen that is due at this step end, and one more step; with several
        processes a wish to stop is heard one step later (`lag` 1). Where the run ends before that, all that it still
        does at its end counts: then nothing asks again.
        """
        seconds = 0.0
        for at in range(step, step + lag + 1):
            if self.evaluate_every is not None and at % self.evaluate_every == 0 and at:
                seconds += self.evaluation
            if self.save_every is not None and at % self.save_every == 0 and at:
                seconds += self.save
            seconds += self.step
            if at + 1 >= self.total_steps:
                return seconds + self.finishing + (self.evaluation if self.evaluate_every is not None else 0.0)
        return seconds


def save_fits(now: float, killed_at: float | None, grace: float, save: float | None) -> bool:
    """Whether a checkpoint can be taken before the kill.

    A save that was never measured is tried: an unfinished one is not committed and does no harm.
    Args: killed_at: epoch seconds of the kill, None when nobody will.
    """
    if killed_at is None or save is None:
        return True
    return save + min(SAVE_MARGIN_SECONDS, grace / 3) < killed_at - now
