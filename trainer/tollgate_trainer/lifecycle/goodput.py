"""Where the time goes: disjoint states of one clock, so that their sum is the wall time by construction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum


class State(StrEnum):
    """What a process is doing. `lost` is never entered: it is step time that the next attempt has to do again."""

    IMPORT = "import"
    DATA = "data"
    LOAD = "load"
    COMPILE = "compile"
    PREFLIGHT = "preflight"
    STEP = "step"
    EVALUATE = "evaluate"
    SAVE = "save"
    RESTORE = "restore"
    STOP = "stop"
    IDLE = "idle"
    LOST = "lost"


class Goodput:
    """Seconds per state of one attempt. Entered by one thread; may be read by any.

    Args: started_at: epoch seconds of the launcher's start (None: now), whose time until now counts as `import`;
    wall, clock: sources of epoch and monotonic seconds.
    """

    def __init__(
        self,
        started_at: float | None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._lock = threading.RLock()  # a signal's handler may come between, in the same thread
        self._seconds = dict.fromkeys(State, 0.0)
        self._since = clock()
        before = wall() - started_at if started_at is not None else 0.0
        self._seconds[State.IMPORT] = max(before, 0.0)
        self._state = State.IMPORT

    @property
    def state(self) -> State:
        """What is being done now."""
        return self._state

    def switch(self, state: State) -> State:
        """Go over to `state`; answers the one that was left."""
        with self._lock:
            now = self._clock()
            self._seconds[self._state] += now - self._since
            self._since = now
            left, self._state = self._state, state
        return left

    @contextmanager
    def spend(self, state: State) -> Iterator[None]:
        """Be in `state` for the block, then in the state of before."""
        left = self.switch(state)
        try:
            yield
        finally:
            self.switch(left)

    def seconds(self) -> dict[str, float]:
        """Seconds per state until now."""
        with self._lock:
            result: dict[str, float] = dict(self._seconds.items())
            result[self._state] += self._clock() - self._since
        return result

    def wall(self) -> float:
        """Seconds since the launcher's start."""
        return sum(self.seconds().values())


Seconds = Mapping[str, float]


def added(left: Seconds, right: Seconds) -> dict[str, float]:
    """Sum per state."""
    return {state: left.get(state, 0.0) + right.get(state, 0.0) for state in State}


def without_lost_steps(total: Seconds, committed_step_seconds: float) -> dict[str, float]:
    """`total` with the step time after the last commit moved to `lost`; the sum stays.

    Args: total: of all attempts at their end; committed_step_seconds: the `step` total when the checkpoint was taken
    from which the next attempt goes on, 0 without one.
    """
    result = added(total, {})
    lost = max(0.0, result[State.STEP] - committed_step_seconds)
    result[State.STEP] -= lost
    result[State.LOST] += lost
    return result


def rounded(seconds: Seconds) -> dict[str, float]:
    """For JSON: milliseconds are enough, and states that never were stay visible as 0."""
    return {str(state): round(value, 3) for state, value in seconds.items()}
