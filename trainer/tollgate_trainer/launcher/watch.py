"""What can end an attempt from outside: signals and the timer. One select loop, so that no wait misses anything."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from types import FrameType
from typing import Generic, TypeVar

from tollgate.contract import StopReason

T = TypeVar("T")

_KILL_MARGIN = 2.0  # seconds before the kubelet's own SIGKILL, so that the last words are still written
_SAME_MOMENT = 5.0  # a SIGTERM this close before our own timer's is the same limit, seen by the kubelet


def now() -> float:
    """Seconds on a clock that no one can set and that goes on while the machine sleeps (money does too)."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Action(Enum):
    """What the launcher does to the process group next."""

    NOTHING = "nothing"
    TERMINATE = "terminate"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Limits:
    """Instants of `now()`. `deadline`: the group is dead by then; None: no limit."""

    deadline: float | None
    grace: float
    reason: StopReason


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop under way: the reason that will be told, and when patience ends."""

    reason: StopReason
    kill_at: float


@dataclass(frozen=True, slots=True)
class Asked:
    """Which signals came so far: how many asked to stop, and whether a person insisted."""

    stops: int = 0
    insisted: bool = False


def decide(limits: Limits, asked: Asked, stop: Stop | None, at: float) -> tuple[Action, Stop | None]:
    """What to do at instant `at`; pure. The deadline beats everything, a person who insists beats patience.

    A repeated SIGTERM changes nothing (the kubelet and the Job controller may both ask); a SIGINT after any other
    signal is a person who insists.
    """
    timer = limits.deadline is not None and at >= limits.deadline - limits.grace
    if stop is None and not timer and not asked.stops:
        return Action.NOTHING, None
    if stop is None:
        by_limit = limits.deadline is not None and at >= limits.deadline - limits.grace - _SAME_MOMENT
        margin = min(_KILL_MARGIN, limits.grace / 4)
        patience = limits.deadline if timer and limits.deadline is not None else at + limits.grace - margin
        begun = Stop(limits.reason if by_limit else StopReason.SIGNAL, patience)
        stop, action = begun, Action.TERMINATE
    else:
        action = Action.NOTHING
    if limits.deadline is not None and stop.kill_at > limits.deadline:
        stop = replace(stop, kill_at=limits.deadline)
    if asked.insisted or at >= stop.kill_at:
        return Action.KILL, stop
    return action, stop


class Watch:
    """Signals of this process as values, and a wait that each of them ends."""

    def __init__(self) -> None:
        self.asked = Asked()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def install(self) -> None:
        """Take SIGTERM, SIGINT, SIGHUP and SIGCHLD. Done first: pid 1 has no default action for them."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or earlier when a signal came or `wake` was called."""
        select.select([self._read], [], [], max(seconds, 0.0))
        try:
            while os.read(self._read, 4096):
                pass
        except BlockingIOError:
            return

    def wake(self) -> None:
        """End a wait from another thread."""
        try:
            os.write(self._write, b"\0")
        except BlockingIOError:
            return  # the pipe is full: the wait ends anyway

    def _note(self, number: int, _frame: FrameType | None) -> None:
        insisted = self.asked.insisted or (number == signal.SIGINT and self.asked.stops > 0)
        self.asked = Asked(self.asked.stops + 1, insisted)


class Beside(Generic[T]):
    """A function that runs beside the watch: a volume or a name server that hangs must not hold up the deadline."""

    def __init__(self, function: Callable[[], T], watch: Watch) -> None:
        self._result: list[T] = []
        self._error: list[BaseException] = []
        self._done = threading.Event()

        def work() -> None:
            try:
                self._result.append(function())
            except BaseException as error:
                self._error.append(error)
            finally:
                self._done.set()
                watch.wake()

        threading.Thread(target=work, daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether it has returned or raised."""
        return self._done.is_set()

    def result(self) -> T:
        """What it returned; raises what it raised. Only when done."""
        if self._error:
            raise self._error[0]
        return self._result[0]
