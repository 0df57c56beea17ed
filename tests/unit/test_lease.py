"""The fence: only the newest attempt of the run that holds an output folder may commit into it."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.synchronize
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.contract import Env, Files
from tollgate_trainer.lifecycle.lease import Fenced, Holder, Lease, LeaseRefused, read

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def holder(uid: str = "u1", attempt: int = 1, run: str = "demo") -> Holder:
    return Holder.here(uid, attempt, run, "care", NOW)


def test_the_first_attempt_takes_an_empty_folder_and_may_commit(tmp_path: Path) -> None:
    lease = Lease.acquire(tmp_path / "new" / "folder", holder())
    lease.check()
    written = json.loads((tmp_path / "new/folder" / Files.LEASE).read_text())
    assert {"uid", "attempt", "run", "namespace", "host", "at"} == set(written)


def test_a_newer_attempt_fences_the_older_one_that_still_lives(tmp_path: Path) -> None:
    old = Lease.acquire(tmp_path, holder(attempt=1))
    new = Lease.acquire(tmp_path, holder(attempt=2))
    new.check()
    with pytest.raises(Fenced, match="attempt 2 of this run holds"):
        old.check()
    with pytest.raises(Fenced, match="attempt 2"):
        Lease.acquire(tmp_path, holder(attempt=1))


def test_the_same_attempt_takes_its_own_lease_again_after_its_pod_was_replaced(tmp_path: Path) -> None:
    Lease.acquire(tmp_path, holder())
    Lease.acquire(tmp_path, holder()).check()


def test_another_run_is_refused_with_the_holder_s_name_and_what_to_do(tmp_path: Path) -> None:
    mine = Lease.acquire(tmp_path, holder())
    with pytest.raises(LeaseRefused, match=r"care/demo \(uid u1.*output folder of its own"):
        Lease.acquire(tmp_path, holder(uid="u2", run="other"))
    mine.check()


def test_a_take_over_fences_the_run_that_held_the_folder(tmp_path: Path) -> None:
    mine = Lease.acquire(tmp_path, holder(attempt=7))
    Lease.acquire(tmp_path, holder(uid="u2", attempt=1), take_over=True).check()
    with pytest.raises(Fenced, match="took over"):
        mine.check()


def test_a_take_over_never_makes_an_older_attempt_of_the_same_run_the_holder(tmp_path: Path) -> None:
    Lease.acquire(tmp_path, holder(attempt=3))
    with pytest.raises(Fenced):
        Lease.acquire(tmp_path, holder(attempt=2), take_over=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"uid": "x"}', '{"uid": "x", "attempt": "two"}'])
def test_a_lease_that_says_nothing_refuses_and_fences(tmp_path: Path, text: str) -> None:
    mine = Lease.acquire(tmp_path, holder())
    (tmp_path / Files.LEASE).write_text(text)
    with pytest.raises(LeaseRefused, match="remove that file"):
        Lease.acquire(tmp_path, holder())
    with pytest.raises(Fenced):
        mine.check()


def test_a_lease_that_vanished_fences(tmp_path: Path) -> None:
    mine = Lease.acquire(tmp_path, holder())
    (tmp_path / Files.LEASE).unlink()
    with pytest.raises(Fenced, match="removed"):
        mine.check()


def test_other_nodes_wait_until_node_0_has_taken_the_lease(tmp_path: Path) -> None:
    seconds = 0.0

    def sleep(duration: float) -> None:
        nonlocal seconds
        seconds += duration
        if seconds >= 2:
            Lease.acquire(tmp_path, holder(attempt=4))

    Lease.acquire(tmp_path, holder(attempt=3))
    Lease.join(tmp_path, "u1", 4, patience=60, clock=lambda: seconds, sleep=sleep).check()


def test_other_nodes_give_up_with_the_reason_when_node_0_never_comes(tmp_path: Path) -> None:
    seconds = 0.0

    def sleep(duration: float) -> None:
        nonlocal seconds
        seconds += duration

    with pytest.raises(LeaseRefused, match=r"within 60 s .*held by nobody.*same volume"):
        Lease.join(tmp_path, "u1", 4, patience=60, clock=lambda: seconds, sleep=sleep)


def test_the_trainer_finds_its_lease_in_the_environment(tmp_path: Path) -> None:
    Lease.acquire(tmp_path, holder(attempt=2))
    Lease.from_environment({Env.OUTPUT_ROOT: str(tmp_path), Env.UID: "u1", Env.ATTEMPT: "2"}).check()


def _race(root: str, uid: str, gate: multiprocessing.synchronize.Event, results: multiprocessing.Queue[str]) -> None:
    gate.wait()
    try:
        Lease.acquire(Path(root), holder(uid=uid))
        results.put(uid)
    except LeaseRefused:
        results.put("")


def test_of_many_runs_that_start_at_once_exactly_one_gets_the_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for turn in range(5):
        gate, results = context.Event(), context.Queue()
        racers = [
            context.Process(target=_race, args=(str(tmp_path / str(turn)), f"u{i}", gate, results)) for i in range(8)
        ]
        for racer in racers:
            racer.start()
        gate.set()
        winners = [name for name in (results.get(timeout=30) for _ in racers) if name]
        for racer in racers:
            racer.join(30)
        present = read(tmp_path / str(turn))
        assert present is not None
        assert winners == [present.uid]


@given(attempts=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_whatever_the_order_only_the_newest_attempt_can_commit(
    attempts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("lease")
    leases: list[Lease] = []
    for attempt in attempts:
        try:
            leases.append(Lease.acquire(root, holder(attempt=attempt)))
        except Fenced:
            assert attempt < max(lease.attempt for lease in leases)
    for lease in leases:
        if lease.attempt == max(attempts):
            lease.check()
        else:
            with pytest.raises(Fenced):
                lease.check()
