"""The work queue protects two things: no object is worked on twice at a time, and no change is ever forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tollgate_operator.queue import Backoff, Schedule, WorkQueue, work


class ScheduleLaws(RuleBasedStateMachine):
    """Any order of adds, takes, finishes and drops against a model that is a plain dict."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule[str] = Schedule()
        self.due: dict[str, float] = {}
        self.busy: set[str] = set()
        self.now = 0.0

    @rule(key=st.sampled_from("abc"), delay=st.integers(0, 5))
    def add(self, key: str, delay: int) -> None:
        self.schedule.add(key, self.now + delay)
        self.due[key] = min(self.due.get(key, self.now + delay), self.now + delay)

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        ready = {k: t for k, t in self.due.items() if t <= self.now and k not in self.busy}
        taken = self.schedule.take(self.now)
        if not ready:
            assert taken is None
            return
        assert taken is not None
        key, since = taken
        assert since == min(ready.values())
        assert ready[key] == since
        del self.due[key]
        self.busy.add(key)

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.busy)))
        self.schedule.finish(key)
        self.busy.discard(key)

    @rule(key=st.sampled_from("abc"))
    def drop(self, key: str) -> None:
        self.schedule.drop(key)
        self.due.pop(key, None)

    @invariant()
    def agrees_with_the_model(self) -> None:
        free = [t for k, t in self.due.items() if k not in self.busy]
        assert self.schedule.next_due() == (min(free) if free else None)
        assert self.schedule.depth(self.now) == sum(t <= self.now for t in self.due.values())
        assert self.schedule.oldest(self.now) == max([0.0, *(self.now - t for t in self.due.values())])
        assert self.schedule.busy == len(self.busy)


TestScheduleLaws = ScheduleLaws.TestCase


@given(st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_a_backoff_never_shrinks_below_half_and_never_passes_its_longest(failures: int, chance: float) -> None:
    backoff = Backoff(base=0.5, longest=300)
    delay = backoff.delay(failures, chance)
    assert 0.25 <= delay <= 300
    assert delay <= backoff.delay(failures, 0.0)
    assert backoff.delay(failures + 1, chance) >= delay


class Observed:
    """Counts, as the metrics do."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()

    def reconciled(self, key: str, result: str, seconds: float) -> None:
        self.results[result] += 1


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.005)


async def test_a_burst_of_events_is_one_piece_of_work() -> None:
    queue: WorkQueue[str] = WorkQueue(coalesce=0.05)
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        seen.append(key)

    worker = asyncio.create_task(work(queue, reconcile, Observed()))
    for _ in range(100):
        queue.add("gang")
    await until(lambda: seen)
    await asyncio.sleep(0.1)
    worker.cancel()
    assert seen == ["gang"]


async def test_a_key_that_changes_while_it_is_worked_on_is_worked_on_once_more_and_never_twice_at_a_time() -> None:
    queue: WorkQueue[str] = WorkQueue(coalesce=0)
    running, most, times = 0, 0, 0
    gate = asyncio.Event()

    async def reconcile(key: str) -> None:
        nonlocal running, most, times
        running += 1
        times += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    workers = [asyncio.create_task(work(queue, reconcile, Observed())) for _ in range(4)]
    queue.add("a")
    await until(lambda: times == 1)
    for _ in range(5):
        queue.add("a")
    await asyncio.sleep(0.05)
    assert times == 1
    gate.set()
    await until(lambda: times == 2)
    await asyncio.sleep(0.05)
    for worker in workers:
        worker.cancel()
    assert (times, most) == (2, 1)


async def test_a_failed_key_is_tried_again_and_the_worker_lives() -> None:
    queue: WorkQueue[str] = WorkQueue(coalesce=0, backoff=Backoff(base=0.01))
    observed = Observed()
    tries: Counter[str] = Counter()

    async def reconcile(key: str) -> None:
        tries[key] += 1
        if key == "bad" and tries[key] < 4:
            raise RuntimeError("no")

    worker = asyncio.create_task(work(queue, reconcile, observed))
    queue.add("bad")
    queue.add("good")
    await until(lambda: tries["bad"] == 4)
    await until(lambda: observed.results["ok"] == 2)
    worker.cancel()
    assert tries["good"] == 1
    assert observed.results["error"] == 3


async def test_a_requeue_comes_after_its_delay_and_an_event_before_it_replaces_it() -> None:
    queue: WorkQueue[str] = WorkQueue(coalesce=0)
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def reconcile(key: str) -> float | None:
        times.append(loop.time())
        return 0.2 if len(times) == 1 else None

    worker = asyncio.create_task(work(queue, reconcile, Observed()))
    queue.add("a")
    await until(lambda: len(times) == 1)
    queue.add("a")  # an event: the answer of this look is that no other is needed
    await until(lambda: len(times) == 2)
    await asyncio.sleep(0.4)
    worker.cancel()
    assert len(times) == 2


async def test_a_key_that_was_handed_to_a_worker_as_it_was_cancelled_is_not_lost() -> None:
    queue: WorkQueue[str] = WorkQueue(coalesce=0)
    first = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add_after("a", 0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    async with asyncio.timeout(5):
        assert await queue.take() == "a"


async def test_a_forgotten_key_is_not_worked_on() -> None:
    queue: WorkQueue[str] = WorkQueue(coalesce=0)
    queue.add_after("gone", 0.02)
    queue.add_after("there", 0.04)
    queue.forget("gone")
    async with asyncio.timeout(5):
        assert await queue.take() == "there"
    assert queue.depth == 0
