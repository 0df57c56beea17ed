"""The forecaster over step times: recorded traces of real trainings, and what must always hold."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.planning.pace import LEAST_STEPS, WARM_STEPS, Ahead, Chore, Span, error, remaining

TRACES = sorted((Path(__file__).parent.parent / "data" / "step_times").glob("*.json"))
LOADED = sorted((Path(__file__).parent.parent / "data" / "step_times" / "loaded").glob("*.json"))
"""Of a machine with several times more work than cores, with the padded tokens of each step."""
BAR = 0.05
STEADY = 0.10
"""A recording whose quarters differ by less: its machine kept one pace, so that an error is the forecaster's."""


def trace(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def steady(seconds: list[float]) -> bool:
    quarters = [sum(seconds[len(seconds) * i // 4 : len(seconds) * (i + 1) // 4]) for i in range(4)]
    return max(quarters) - min(quarters) < STEADY * sum(quarters) / 4


def test_there_are_traces_of_real_trainings_and_one_of_them_on_a_steady_machine() -> None:
    assert any(steady(trace(path)["step_seconds"]) for path in TRACES)
    assert len(TRACES) >= 3
    assert all(len(trace(path)["step_seconds"]) >= 100 for path in TRACES)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_forecast_of_a_recorded_training_is_at_most_five_per_cent_off_or_says_how_unsure_it_is(
    path: Path, share: float
) -> None:
    seconds = trace(path)["step_seconds"]
    done = int(share * len(seconds))
    found = remaining(seconds[:done], Ahead(len(seconds) - done))
    assert found is not None
    actual = sum(seconds[done:])
    if steady(seconds):
        assert abs(error(found.expected, actual)) <= BAR
    else:  # nobody can foresee what others will do on the machine, but the interval has to know that
        assert found.low <= actual <= found.high


def test_the_intervals_hold_nine_in_ten_of_the_recorded_futures() -> None:
    """From each recorded training, from its 13th step on: the rest lies in the interval as often as it says."""
    inside = total = 0
    for path in TRACES:
        seconds = trace(path)["step_seconds"]
        for done in range(WARM_STEPS + LEAST_STEPS, len(seconds) - 10, 5):
            found = remaining(seconds[:done], Ahead(len(seconds) - done))
            assert found is not None
            inside += found.low <= sum(seconds[done:]) <= found.high
            total += 1
    assert inside / total >= 0.8


@pytest.mark.parametrize("count", [0, 1, WARM_STEPS, WARM_STEPS + LEAST_STEPS - 1])
def test_before_enough_steps_were_measured_nothing_is_forecast(count: int) -> None:
    assert remaining([1.0] * count, Ahead(100)) is None


def test_the_first_steps_say_nothing_about_the_rest() -> None:
    found = remaining([60.0] * WARM_STEPS + [1.0] * 20, Ahead(100))
    assert found is not None
    assert found.expected == pytest.approx(100)
    assert found.high < 110


def test_a_short_even_past_does_not_promise_a_long_even_future() -> None:
    short, long = (remaining([1.0] * 30, Ahead(steps)) for steps in (5, 1000))
    assert short is not None
    assert long is not None
    assert 0 < (short.high - short.low) / 5 < (long.high - long.low) / 1000


def test_evaluations_and_saves_that_are_left_are_counted_by_what_they_took() -> None:
    evaluations = Chore(Span.exactly(3), Span.measured([6.0, 8.0]))
    saves = Chore(Span.exactly(2), Span.measured([11.0]))
    found = remaining([1.0] * 30, Ahead(100, (evaluations, saves)))
    assert found is not None
    assert found.expected == pytest.approx(100 + 21 + 22)


def test_a_save_that_was_never_measured_makes_the_interval_wider_and_not_the_end_earlier() -> None:
    guessed, known = (Chore(Span.exactly(4), one) for one in (Span(5.0, 1.0, 25.0), Span.exactly(5.0)))
    wide, narrow, none = (remaining([1.0] * 30, Ahead(100, chores)) for chores in ((guessed,), (known,), ()))
    assert wide is not None
    assert narrow is not None
    assert none is not None
    assert wide.expected == narrow.expected == none.expected + 20
    assert wide.low < narrow.low
    assert wide.high >= none.expected + 20 + 4 * (25 - 5)


def test_more_measurements_of_a_save_make_its_interval_narrower() -> None:
    one, four = Span.measured([2.0]), Span.measured([2.1, 1.9, 2.0, 2.0])
    assert one.expected == four.expected == pytest.approx(2.0)
    assert one.low < four.low < 2.0 < four.high < one.high


def test_steps_of_known_work_are_forecast_by_it() -> None:
    dice = random.Random(3)
    work = [dice.choice((100.0, 1000.0)) for _ in range(300)]
    seconds = [(0.1 + one / 1000) * dice.uniform(0.98, 1.02) for one in work]
    ahead = sum(work[20:])
    with_work = remaining(seconds[:20], Ahead(280, work=ahead), work[:20])
    without = remaining(seconds[:20], Ahead(280))
    assert with_work is not None
    assert without is not None
    assert abs(error(with_work.expected, sum(seconds[20:]))) <= BAR
    assert with_work.low <= sum(seconds[20:]) <= with_work.high
    assert with_work.high - with_work.low < (without.high - without.low) / 2


def first_forecasts(path: Path) -> tuple[Span, Span, float]:
    """With the work of the steps, without it, and what came."""
    found, first = trace(path), WARM_STEPS + LEAST_STEPS
    seconds, work = found["step_seconds"], found["step_tokens"]
    ahead = len(seconds) - first
    with_work = remaining(seconds[:first], Ahead(ahead, work=sum(work[first:])), work[:first])
    without = remaining(seconds[:first], Ahead(ahead))
    assert with_work is not None
    assert without is not None
    return with_work, without, sum(seconds[first:])


def test_even_under_load_the_first_forecast_of_uneven_steps_is_much_narrower_by_their_work_and_nearer() -> None:
    for name, widths in (("uneven", (0.34, 1.23)), ("grouped", (0.27, 0.86))):
        known, blind, actual = first_forecasts(next(path for path in LOADED if path.stem == name))
        told = [(span.high - span.low) / span.expected for span in (known, blind)]
        assert told == pytest.approx(widths, abs=0.005), "docs/design/trainer-speed.md says so"
        assert known.low <= actual <= known.high
        assert known.high - known.low < (blind.high - blind.low) / 2
        assert abs(error(known.expected, actual)) < abs(error(blind.expected, actual))


def test_of_the_first_forecasts_under_load_one_is_wrong_because_the_load_went_away() -> None:
    held = {
        path.stem: found.low <= actual <= found.high for path in LOADED for found, _, actual in [first_forecasts(path)]
    }
    assert held == {"uneven": True, "grouped": True, "packed": True, "cut": False}


def test_work_that_is_the_same_in_all_steps_changes_nothing() -> None:
    seconds = [1.0, 1.2, 0.9, 1.1] * 6
    plain = remaining(seconds, Ahead(50))
    assert remaining(seconds, Ahead(50, work=50 * 7.0), [7.0] * 24) == plain


def test_a_step_that_is_shorter_for_more_work_is_not_believed() -> None:
    work = [float(number % 5 + 1) for number in range(40)]
    seconds = [6 - one for one in work]
    found, plain = remaining(seconds, Ahead(100, work=100 * 5.0), work), remaining(seconds, Ahead(100))
    assert found is not None
    assert plain is not None
    assert found.expected == pytest.approx(plain.expected)


@given(st.lists(st.floats(0.01, 10), min_size=13, max_size=80), st.integers(0, 10_000))
def test_the_expected_end_lies_in_its_interval_and_nothing_is_left_when_nothing_is_left(
    seconds: list[float], steps: int
) -> None:
    found = remaining(seconds, Ahead(steps))
    assert found is not None
    assert 0 <= found.low <= found.expected + 1e-9
    assert found.expected <= found.high + 1e-9
    done = remaining(seconds, Ahead(0))
    assert done is not None
    assert done.expected == 0


@given(st.lists(st.floats(0.01, 10), min_size=13, max_size=80), st.floats(0.1, 100))
def test_a_clock_in_other_units_forecasts_the_same(seconds: list[float], unit: float) -> None:
    one, other = remaining(seconds, Ahead(50)), remaining([unit * s for s in seconds], Ahead(50))
    assert one is not None
    assert other is not None
    assert other.expected == pytest.approx(unit * one.expected)
    assert other.high == pytest.approx(unit * one.high)


def test_of_runs_that_vary_and_drift_nine_in_ten_end_within_the_interval() -> None:
    dice = random.Random(5)
    inside, widths = 0, []
    for _ in range(300):
        drift = dice.uniform(-0.1, 0.1)  # of the pace, over the whole run: a machine that others use too
        steps = [dice.uniform(0.7, 1.3) * (1 + drift * i / 400) for i in range(400)]
        found = remaining(steps[:60], Ahead(340))
        assert found is not None
        inside += found.low <= sum(steps[60:]) <= found.high
        widths.append((found.high - found.low) / found.expected)
    assert inside / 300 >= 0.85
    assert sorted(widths)[150] <= 0.30


def test_an_error_needs_a_time_that_passed() -> None:
    with pytest.raises(ValueError, match="above 0"):
        error(1.0, 0.0)
