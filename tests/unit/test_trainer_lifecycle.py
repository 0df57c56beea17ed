"""The pure parts of an attempt's life: clock, deadline, state, agreement of one process, environment."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.contract import Env, FailureReason, StopReason
from tollgate.manifest.errors import ManifestError, Problem
from tollgate.manifest.loader import load_document
from tollgate_trainer.lifecycle import outcome
from tollgate_trainer.lifecycle.agreement import Agreement
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.lifecycle.events import Events
from tollgate_trainer.lifecycle.goodput import Goodput, State, without_lost_steps
from tollgate_trainer.lifecycle.heartbeat import Beat, Heartbeat, last_beat
from tollgate_trainer.lifecycle.lease import Fenced, Lease
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.lifecycle.state import Best, Evaluated, LifecycleState, after_evaluation
from tollgate_trainer.lifecycle.stop import Deadline, Durations, StopFlag, save_fits
from tollgate_trainer.refusal import DatasetRefused, ManifestRefused


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    st.lists(st.tuples(st.sampled_from([s for s in State if s is not State.LOST]), st.floats(0, 50))), st.floats(0, 90)
)
def test_the_states_always_add_up_to_the_wall_time(moves: list[tuple[State, float]], before: float) -> None:
    clock = Clock()
    goodput = Goodput(1000.0 - before, wall=lambda: 1000.0, clock=clock)
    for index, (state, seconds) in enumerate(moves):
        if index % 3:
            goodput.switch(state)
            clock.now += seconds
        else:
            with goodput.spend(state):
                clock.now += seconds
    assert sum(goodput.seconds().values()) == pytest.approx(before + clock.now - 100.0)


def test_time_in_a_block_is_the_blocks_and_the_state_of_before_goes_on_after_it() -> None:
    clock = Clock()
    goodput = Goodput(None, wall=lambda: 0.0, clock=clock)
    goodput.switch(State.STEP)
    clock.now += 4

    def save_that_fails() -> None:
        with goodput.spend(State.SAVE):
            clock.now += 2
            raise RuntimeError

    with pytest.raises(RuntimeError):
        save_that_fails()
    clock.now += 1
    assert (goodput.state, goodput.seconds()[State.STEP], goodput.seconds()[State.SAVE]) == (State.STEP, 5, 2)


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_steps_after_the_last_commit_are_lost_and_no_second_vanishes(steps: float, committed: float) -> None:
    total = {State.STEP: steps, State.SAVE: 3.0}
    told = without_lost_steps(total, committed)
    assert sum(told.values()) == pytest.approx(steps + 3.0)
    assert told[State.STEP] == pytest.approx(min(steps, committed))


@pytest.mark.parametrize(
    ("grace", "save", "margin", "leave"),
    [
        (30, None, 0, 970),
        (30, 5, 0, 970),
        (30, 40, 0, 950),
        (5, None, 0, 990),
        (30, 5, 200, 800),
    ],
)
def test_the_trainer_leaves_before_the_kill_by_the_largest_of_grace_save_and_margin(
    grace: float, save: float | None, margin: float, leave: float
) -> None:
    deadline = Deadline(1000, grace, margin)
    assert deadline.leave_before(save) == leave
    assert not deadline.reached(leave - 1, 0.5, save)
    assert deadline.reached(leave - 1, 1.5, save)


def test_a_save_is_only_begun_when_it_can_be_finished() -> None:
    assert save_fits(0, None, 30, 1e9)
    assert save_fits(0, 30, 30, None)
    assert save_fits(0, 30, 30, 19.9)
    assert not save_fits(0, 30, 30, 20.1)
    assert not save_fits(25, 30, 30, 1)


def test_p95_is_unknown_without_a_measurement_and_near_the_largest_with_many() -> None:
    durations = Durations(keep=100)
    assert durations.p95() is None
    durations.add(3)
    assert durations.p95() == 3
    for second in range(100):
        durations.add(second)
    assert durations.p95() == 95


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_never_the_best_and_counts_against_patience(value: float) -> None:
    state = LifecycleState(best=Best("eval_loss", 2.0, 5))
    found, better = after_evaluation(state, Evaluated(10, {"eval_loss": value}), "eval_loss", "min", 0.0)
    assert (better, found.best, found.bad_evaluations) == (False, state.best, 1)
    assert found.last_evaluation == Evaluated(10, {})


@pytest.mark.parametrize(
    ("mode", "delta", "value", "better"),
    [("min", 0.0, 1.9, True), ("min", 0.2, 1.9, False), ("min", 0.0, 2.0, False), ("max", 0.0, 2.1, True)],
)
def test_better_means_better_by_more_than_min_delta(mode: str, delta: float, value: float, better: bool) -> None:
    state = LifecycleState(best=Best("m", 2.0, 5), bad_evaluations=2)
    found, is_better = after_evaluation(
        state, Evaluated(10, {"m": value}), "m", "min" if mode == "min" else "max", delta
    )
    assert is_better is better
    assert found.bad_evaluations == (0 if better else 3)


def test_the_lifecycle_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    state = LifecycleState(
        step=7,
        samples=28,
        best=Best("eval_loss", 2.5, 5, "checkpoints/checkpoint-5"),
        bad_evaluations=1,
        last_evaluation=Evaluated(7, {"eval_loss": 2.6}),
        goodput={"step": 1.5},
        topology={"world": 2},
    )
    state.write(tmp_path)
    assert LifecycleState.read(tmp_path) == state


def test_a_beat_of_another_run_or_one_that_was_cut_off_is_not_ours(tmp_path: Path) -> None:
    def beat(attempt: int, uid: str) -> Beat:
        return Beat(attempt, uid, 1.0, "step", 5, {"step": 1.0}, {"step": 2.0})

    assert last_beat(tmp_path, 9, "us") is None
    for attempt, uid in ((1, "us"), (2, "them"), (7, "us")):
        Heartbeat(tmp_path, attempt, lambda attempt=attempt, uid=uid: beat(attempt, uid)).stop()
    (tmp_path / "logs" / "heartbeat-3.json").write_text('{"attempt": 3, ')
    found = last_beat(tmp_path, 4, "us")
    assert found is not None
    assert (found.attempt, found.run_seconds["step"]) == (1, 2.0)
    seventh = last_beat(tmp_path, 7, "us")
    assert seventh is not None
    assert seventh.attempt == 7


@pytest.mark.parametrize(
    ("error", "world", "reason"),
    [
        (DatasetRefused("x", "dataset.path"), 1, FailureReason.DATASET),
        (ManifestError("m", [Problem("seed", 1, "bad", "mend")]), 1, FailureReason.MANIFEST),
        (outcome.NonFinite("x"), 2, FailureReason.NON_FINITE),
        (Fenced("x"), 1, FailureReason.FENCED),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, FailureReason.OUT_OF_MEMORY),
        (MemoryError(), 1, FailureReason.OUT_OF_MEMORY),
        (RuntimeError("[pair.cc] Connection closed by peer [10.0.0.1]:77"), 2, FailureReason.PEER_LOST),
        (RuntimeError("Connection closed by peer"), 1, FailureReason.EXCEPTION),
        (ValueError("Connection closed by peer"), 2, FailureReason.EXCEPTION),
        (ZeroDivisionError("x"), 2, FailureReason.EXCEPTION),
    ],
)
def test_each_failure_has_its_reason(error: BaseException, world: int, reason: FailureReason) -> None:
    assert outcome.failure_of(error, world) is reason


def test_the_words_of_a_failure_name_its_field_and_its_place() -> None:
    assert outcome.words_of(DatasetRefused("gone", "dataset.path"), 0, FailureReason.DATASET).field == "dataset.path"
    try:
        raise ZeroDivisionError("no toll")
    except ZeroDivisionError as error:
        words = outcome.words_of(error, 3, FailureReason.EXCEPTION)
    assert words.message.startswith("no toll (in test_the_words_of_a_failure_name_its_field_and_its_place, ")
    assert (words.rank, words.type) == (3, "ZeroDivisionError")


BASE = {
    Env.RUN: "r",
    Env.UID: "u",
    Env.ATTEMPT: "2",
    Env.MANIFEST: "/m.json",
    Env.DATASET_ROOT: "/data",
    Env.OUTPUT_ROOT: "/out",
}


def test_the_environment_is_parsed_once_with_defaults_that_mean_no_limit() -> None:
    attempt = Attempt.parse(BASE)
    assert (attempt.number, attempt.rank, attempt.world, attempt.leads) == (2, 0, 1, True)
    assert (attempt.deadline, attempt.deadline_reason, attempt.metrics_address) == (None, StopReason.RUNTIME, None)
    more = Attempt.parse(
        {**BASE, Env.DEADLINE: "99.5", Env.METRICS_PORT: "9464", Env.POD_IP: "10.1.2.3", "RANK": "1", Env.FRESH: "True"}
    )
    assert (more.deadline, more.metrics_address, more.leads, more.fresh) == (99.5, ("10.1.2.3", 9464), False, True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({Env.RUN: ""}, "TOLLGATE_RUN is not set"),
        ({Env.ATTEMPT: "two"}, "TOLLGATE_ATTEMPT='two' is not a whole number"),
        ({Env.DEADLINE: "soon"}, "TOLLGATE_DEADLINE='soon' is not a number"),
        ({Env.STOP_REASON: "Bored"}, "is not one of BudgetExceeded"),
    ],
)
def test_an_environment_that_says_nonsense_is_refused_by_name(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ManifestRefused, match=words.replace("(", r"\(")):
        Attempt.parse({**BASE, **changes})


def test_an_upload_under_way_counts_when_it_is_asked_whether_another_save_fits_before_the_kill(tmp_path: Path) -> None:
    attempt = Attempt.parse(
        {
            **{"TOLLGATE_RUN": "r", "TOLLGATE_UID": "u", "TOLLGATE_ATTEMPT": "1", "TOLLGATE_MANIFEST": "/m"},
            **{"TOLLGATE_DATASET_ROOT": "/d", "TOLLGATE_OUTPUT_ROOT": str(tmp_path), "TOLLGATE_GRACE_SECONDS": "60"},
        }
    )
    flag = StopFlag()
    flag.signalled_at = time.time()
    session = Session(
        attempt=attempt,
        loaded=load_document({"name": "m", "dataset": {"path": "d"}}, "m"),
        dataset_digest="",
        goodput=Goodput(None),
        events=Events(tmp_path, False, 1),
        agreement=Agreement(1),
        flag=flag,
        lease=Lease(tmp_path, "u", 1),
    )
    session.saves.add(30.0)  # staging and upload
    assert session.may_save(), "30 s and 10 s are less than 60 s"
    session.saves_under_way = 1
    assert not session.may_save(), "twice 30 s and 10 s are more"
