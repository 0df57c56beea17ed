"""The work queue: which key a worker may take, and when.

The rules are those of client-go's queue: a key waits at most once however often it is added, is never worked on twice
at the same time, and runs once more when it was added meanwhile. A short delay gathers the burst of events that a gang
makes. `Schedule` is the whole of it and reads no clock; `WorkQueue` lets asyncio tasks wait on it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

logger = logging.getLogger(__name__)


class Schedule(Generic[K]):
    """Keys with the time at which each is due; times are seconds on whatever clock the caller reads."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._busy: set[K] = set()
        self._heap: list[tuple[float, int, K]] = []  # may hold outdated entries; _due decides
        self._order = itertools.count()

    def add(self, key: K, due: float) -> None:
        """The key is to be worked on at `due`; an earlier time that it already has stays."""
        held = self._due.get(key)
        if held is not None and held <= due:
            return
        self._due[key] = due
        if key not in self._busy:
            heapq.heappush(self._heap, (due, next(self._order), key))

    def take(self, now: float) -> tuple[K, float] | None:
        """The key that has been due longest, and since when; it is busy until `finish`. None when nothing is due."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._busy.add(key)
        return key, due

    def finish(self, key: K) -> None:
        """The key is no longer worked on; if it was added meanwhile it can be taken again."""
        self._busy.discard(key)
        if (due := self._due.get(key)) is not None:
            heapq.heappush(self._heap, (due, next(self._order), key))

    def drop(self, key: K) -> None:
        """The key need not be worked on any more; if it is busy now, that goes on to its end."""
        self._due.pop(key, None)

    def next_due(self) -> float | None:
        """When the next key that is not busy is due; None when there is none."""
        while self._heap:
            due, _, key = self._heap[0]
            if key not in self._busy and self._due.get(key) == due:
                return due
            heapq.heappop(self._heap)
        return None

    def depth(self, now: float) -> int:
        """How many keys are due, busy or not."""
        return sum(1 for due in self._due.values() if due <= now)

    def oldest(self, now: float) -> float:
        """For how many seconds the key that waits longest has been due; 0 when none is."""
        return max(0.0, now - min(self._due.values(), default=now))

    @property
    def busy(self) -> int:
        """How many keys are being worked on."""
        return len(self._busy)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait after the n-th failure in a row: base x 2^(n-1), at most `longest`, less up to half by jitter."""

    base: float = 0.5
    longest: float = 300.0

    def delay(self, failures: int, chance: float) -> float:
        """The wait after `failures` >= 1; `chance` in [0, 1) spreads keys that failed together."""
        return min(self.longest, self.base * 2.0 ** min(failures - 1, 30)) * (1.0 - chance / 2)


class QueueObserver(Protocol):
    """What is told about the queue's work: for `tollgate_workqueue_*` and `tollgate_reconcile_*`."""

    def added(self) -> None:
        """A key was added."""
        ...

    def taken(self, waited: float) -> None:
        """A worker took a key that had been due for `waited` seconds."""
        ...

    def retried(self) -> None:
        """A key failed and waits for its next try."""
        ...


class WorkQueue(Generic[K]):
    """A Schedule that tasks of one event loop wait on. Everything but `take` returns at once."""

    def __init__(
        self,
        *,
        coalesce: float = 0.1,
        backoff: Backoff | None = None,
        observer: QueueObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._coalesce = coalesce
        self._backoff = backoff or Backoff()
        self._observer = observer
        self._clock = clock
        self._schedule: Schedule[K] = Schedule()
        self._failures: dict[K, int] = {}
        self._waiters: deque[asyncio.Future[K]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._started: dict[K, float] = {}

    def add(self, key: K) -> None:
        """Something about the key changed; it is due after the coalescing delay."""
        self.add_after(key, self._coalesce)

    def add_after(self, key: K, seconds: float) -> None:
        """The key is due in `seconds`, or earlier if that was asked for since it was last taken."""
        if self._observer is not None:
            self._observer.added()
        self._schedule.add(key, self._clock() + max(seconds, 0.0))
        self._hand_out()

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """The key failed: it is due again after its backoff. Answers the delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(at_least, self._backoff.delay(failures, random.random()))
        if self._observer is not None:
            self._observer.retried()
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: K) -> None:
        """The key's work went through: its next failure is its first."""
        self._failures.pop(key, None)

    def forget(self, key: K) -> None:
        """The object is gone: no timer and no backoff of it is kept."""
        self._failures.pop(key, None)
        self._schedule.drop(key)

    async def take(self) -> K:
        """Waits for the next due key. The caller owes a `done` for it."""
        waiter: asyncio.Future[K] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._hand_out()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # handed out in the very moment of the cancellation
                key = waiter.result()
                self.done(key)
                self.add_after(key, 0.0)
            raise

    def done(self, key: K) -> None:
        """The worker is through with the key, however it went."""
        self._started.pop(key, None)
        self._schedule.finish(key)
        self._hand_out()

    @property
    def depth(self) -> int:
        """How many keys are due and wait."""
        return self._schedule.depth(self._clock())

    @property
    def oldest(self) -> float:
        """For how many seconds the key that waits longest has been due."""
        return self._schedule.oldest(self._clock())

    @property
    def longest_running(self) -> float:
        """For how many seconds the longest of the present pieces of work has been going on; 0 when none is."""
        return max((self._clock() - started for started in self._started.values()), default=0.0)

    def _hand_out(self) -> None:
        while self._waiters and self._waiters[0].done():  # cancelled while it waited
            self._waiters.popleft()
        while self._waiters:
            now = self._clock()
            taken = self._schedule.take(now)
            if taken is None:
                break
            key, due = taken
            self._started[key] = now
            if self._observer is not None:
                self._observer.taken(now - due)
            self._waiters.popleft().set_result(key)
            while self._waiters and self._waiters[0].done():
                self._waiters.popleft()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._schedule.next_due()
        if self._waiters and due is not None:
            wait = max(due - self._clock(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(wait, self._hand_out)


class WorkObserver(Protocol):
    """What is told about each piece of work."""

    def reconciled(self, key: str, result: str, seconds: float) -> None:
        """One reconciliation of a key, written as `Kind/namespace/name`; `result` is `ok`, `error` or `cancelled`."""
        ...


async def work(
    queue: WorkQueue[K],
    reconcile: Callable[[K], Awaitable[float | None]],
    observer: WorkObserver,
    retry_after: Callable[[Exception], float] = lambda error: 0.0,
) -> None:
    """One worker: takes keys for ever. A failed key is logged, counted and tried again; the worker goes on.

    Args: reconcile: answers after how many seconds to look again, or None; retry_after: the least wait an error asks
    for.
    """
    while True:
        key = await queue.take()
        started = time.monotonic()
        result = "cancelled"
        try:
            again = await reconcile(key)
            result = "ok"
            queue.succeeded(key)
            if again is not None:
                queue.add_after(key, again)
        except Exception as error:
            result = "error"
            delay = queue.retry(key, retry_after(error))
            logger.exception("reconcile failed, next try in %.1f s", delay, extra={"key": str(key)})
        finally:
            observer.reconciled(str(key), result, time.monotonic() - started)
            queue.done(key)
