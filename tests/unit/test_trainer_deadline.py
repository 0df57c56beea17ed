"""The loop is left in time: window end - (steps until the next chance + evaluation + save + margin)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.lifecycle.stop import Deadline, Durations, Rhythm


@pytest.mark.parametrize(
    ("step", "lag", "seconds"),
    [
        pytest.param(3, 0, 1, id="only the next step"),
        pytest.param(3, 1, 2, id="several processes hear it one step later"),
        pytest.param(5, 0, 11, id="the evaluation that is due now comes first"),
        pytest.param(4, 1, 12, id="one that falls between now and the next chance too"),
        pytest.param(8, 0, 1 + 100, id="a save that is due now"),
        pytest.param(98, 0, 1, id="the last step but one"),
        pytest.param(99, 0, 1 + 10 + 1000, id="before the last step: the final evaluation and the model"),
        pytest.param(98, 1, 2 + 10 + 1000, id="with lag, one step earlier"),
    ],
)
def test_what_has_to_be_paid_before_the_loop_can_be_left(step: int, lag: int, seconds: float) -> None:
    assert Rhythm(100, 5, 8, 1, 10, 100, 1000).until_next_chance(step, lag) == seconds


def test_without_held_out_documents_nothing_is_evaluated_at_the_end() -> None:
    assert Rhythm(100, None, None, 1, 10, 100, 1000).until_next_chance(99, 0) == 1001


def test_an_evaluation_that_was_not_yet_takes_the_longer_of_the_guess_and_the_rehearsal() -> None:
    session = Session.__new__(Session)
    session.evaluations, session.expected_evaluation = Durations(), None
    assert session.evaluation_seconds(3.0) == 3.0
    session.expected_evaluation = 40.0  # its samples are written token by token, which no guess by the steps knows
    assert session.evaluation_seconds(3.0) == 40.0
    session.evaluations.add(7.0)
    assert session.evaluation_seconds(3.0) == 7.0


@given(
    total=st.integers(1, 60),
    every=st.one_of(st.none(), st.integers(1, 20)),
    save_every=st.one_of(st.none(), st.integers(1, 20)),
    step=st.floats(0.1, 5),
    evaluation=st.floats(0, 50),
    save=st.floats(0, 50),
    lag=st.integers(0, 1),
    window=st.floats(60, 400),
)
def test_a_loop_of_steady_pace_has_saved_before_it_is_killed(
    total: int,
    every: int | None,
    save_every: int | None,
    step: float,
    evaluation: float,
    save: float,
    lag: int,
    window: float,
) -> None:
    rhythm = Rhythm(total, every, save_every, step, evaluation, save, save)
    deadline = Deadline(window, 10.0, 0.0)
    now, flagged, started_in_time = 0.0, False, False
    for done in range(total):
        asked = deadline.reached(now, rhythm.until_next_chance(done, lag), save)
        if done == 0:
            started_in_time = not asked
        if (asked and lag == 0) or flagged:
            break
        flagged = asked
        if done and every is not None and done % every == 0:
            now += evaluation
        if done and save_every is not None and done % save_every == 0:
            now += save
        now += step
    else:
        now += (evaluation if every is not None else 0.0) + save  # the model
    now += save  # the checkpoint
    assert now <= window or not started_in_time
