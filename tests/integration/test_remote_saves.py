"""Saves to a store beside the training: steps go on, one upload at a time, and all processes agree."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from remote_checkpoints import FILES, checkpoints, staged, steps

from tollgate_trainer.lifecycle.checkpoints import CheckpointError
from tollgate_trainer.lifecycle.remote.saving import MOST_FAILURES, Phase, RemoteSaves, Save, Saved
from tollgate_trainer.lifecycle.remote.store import Store, StoreError


class Alone:
    """An agreement of one."""

    world = 1

    def gathered(self, value: object) -> list[Any]:
        return [value]

    def from_first(self, value: object) -> Any:
        return value


class Bench:
    """One process's saves with what they told."""

    def __init__(self, store: Store) -> None:
        self.saved: list[Saved] = []
        self.failed: list[tuple[int, str]] = []
        self.saves = RemoteSaves(
            *(checkpoints(store), Alone(), 0, 0, 1, lambda: None, self.saved.append),
            lambda step, words: self.failed.append((step, words)),
        )

    def step_end(self) -> None:
        self.saves.observe(self.saves.busy(), True)

    def begin(self, folder: Path, step: int) -> None:
        self.saves.begin(Save(step, staged(folder), tuple(FILES), {}, 0.5, 1.0))


def test_steps_go_on_while_an_upload_is_under_way_and_the_next_save_waits_its_turn(
    store: Store, tmp_path: Path
) -> None:
    bench = Bench(store)
    gate = threading.Event()
    upload = store.upload

    def slow(*arguments: Any) -> Any:
        assert gate.wait(30)
        return upload(*arguments)

    store.upload = slow  # type: ignore[method-assign]
    assert bench.saves.may_begin(must=False)
    bench.begin(tmp_path / "a", 5)
    for _ in range(20):
        bench.step_end()
    assert bench.saves.phase is Phase.UPLOADING, "twenty steps ended and none waited"
    assert steps(store) == []
    assert not bench.saves.may_begin(must=False)
    assert not bench.saves.due
    gate.set()
    while not bench.saved:
        bench.step_end()
    assert steps(store) == [5]
    assert bench.saved[0].save.step == 5
    assert bench.saved[0].seconds > 0.5, "staging counts too"
    assert bench.saves.due, "the save that waited is due now"


def test_a_save_that_must_be_made_waits_for_the_one_before(store: Store, tmp_path: Path) -> None:
    bench = Bench(store)
    bench.begin(tmp_path / "a", 5)
    assert bench.saves.may_begin(must=True)
    assert [one.save.step for one in bench.saved] == [5]
    bench.begin(tmp_path / "b", 6)
    bench.saves.settle()
    assert steps(store) == [6, 5]


def test_a_failed_upload_is_told_and_the_training_goes_on_until_it_was_one_too_many(
    store: Store, tmp_path: Path
) -> None:
    bench = Bench(store)

    def broken(*_: Any) -> Any:
        raise StoreError("the disk of the store is full")

    store.upload = broken  # type: ignore[method-assign]
    for step in range(1, MOST_FAILURES):
        bench.begin(tmp_path / "a", step)
        bench.saves.settle()
        assert bench.failed[-1] == (step, "rank 0: the disk of the store is full")
    bench.begin(tmp_path / "a", MOST_FAILURES)
    with pytest.raises(CheckpointError, match=r"3 checkpoints in a row could not be stored; the last: .*is full"):
        bench.saves.settle()
    assert bench.saved == []


class Together:
    """An agreement of two threads, whose flags are heard one step end later, as those of processes are."""

    world = 2

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=60)
        self._values: list[Any] = [None, None]
        self._rank = threading.local()
        self._pending: list[int | None] = [None, None]

    def be(self, rank: int) -> None:
        self._rank.number = rank

    def gathered(self, value: object) -> list[Any]:
        self._values[self._rank.number] = value
        self._barrier.wait()
        found = list(self._values)
        self._barrier.wait()
        return found

    def from_first(self, value: object) -> Any:
        return self.gathered(value)[0]

    def exchange(self, busy: int, dropped: bool) -> tuple[int, bool]:
        """(largest flag of the step before, whether one was handed in); `dropped`: a collective came between."""
        before = self._pending[self._rank.number]
        self._pending[self._rank.number] = None if dropped else max(self.gathered(busy))
        return (before, True) if before is not None else (0, False)


@pytest.mark.parametrize("dropped", [(), (0, 3, 7), (1, 2, 4, 5)], ids=["never", "sometimes", "often"])
def test_two_processes_commit_when_both_have_uploaded_and_change_phase_at_the_same_step(
    store: Store, tmp_path: Path, dropped: tuple[int, ...]
) -> None:
    agreement, staging = Together(), staged(tmp_path / "a")
    gates = (threading.Event(), threading.Event())
    phases: list[list[Phase]] = [[], []]
    saved: list[list[int]] = [[], []]
    problems: list[BaseException] = []

    def process(rank: int) -> None:
        agreement.be(rank)
        some = checkpoints(store, world=2)
        upload = some.upload
        some.upload = lambda *a: gates[rank].wait(60) and upload(*a)  # type: ignore[assignment,method-assign]
        note = saved[rank].append
        saves = RemoteSaves(
            some, agreement, rank, rank, 2, lambda: "", lambda one: note(one.save.step), lambda *_: None
        )
        saves.begin(Save(5, staging, tuple(FILES), {}, 0.0, 0.0))
        for step in range(20_000):
            time.sleep(0.002)  # a step
            if rank == 0 and step == 5:
                gates[0].set()
            if rank == 0 and step == 20:
                assert steps(store) == [], "the other one is not done"
                gates[1].set()
            saves.observe(*agreement.exchange(saves.busy(), step % 10 in dropped))
            phases[rank].append(saves.phase)
            if saves.phase is Phase.IDLE:
                return

    def run(rank: int) -> None:
        try:
            process(rank)
        except BaseException as error:
            agreement._barrier.abort()
            problems.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert problems == []
    assert phases[0] == phases[1], "a phase changes by what all agreed on"
    assert phases[0][:20] == [Phase.UPLOADING] * 20
    assert Phase.COMMITTING in phases[0]
    assert saved == [[5], [5]]
    assert steps(store) == [5]
    commit = checkpoints(store).committed()[0]
    assert {one.path for one in commit.files} == set(FILES), "each file once, by one of the two"
