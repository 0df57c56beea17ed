from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from tollgate.api.quantities import MICRO
from tollgate.limits.forecast import StepSeen, forecast, newly_crossed

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RATE = 3600 * MICRO


def seen(*pairs: tuple[float, int]) -> list[StepSeen]:
    return [StepSeen(T0 + timedelta(seconds=s), step) for s, step in pairs]


def test_a_steady_pace_ends_when_arithmetic_says_and_costs_what_is_left() -> None:
    looks = seen((0, 0), (10, 10), (20, 20), (30, 30))
    out = forecast(looks, 100, 40 * MICRO, RATE, 5 * MICRO, T0 + timedelta(seconds=30))
    assert out is not None
    assert out.completion_p50 == out.completion_p90 == T0 + timedelta(seconds=100)
    assert out.cost_p50 == out.cost_p90 == (40 + 70 + 5) * MICRO


def test_an_uneven_pace_ends_later_in_one_of_ten_than_in_one_of_two() -> None:
    out = forecast(seen((0, 0), (5, 10), (25, 20), (30, 30)), 300, 0, RATE, 0, T0)
    assert out is not None
    assert out.completion_p90 > out.completion_p50


def test_nine_of_ten_random_runs_end_before_p90() -> None:
    dice = random.Random(7)
    before = 0
    for _ in range(300):
        times = [0.0]
        for _ in range(600):
            times.append(times[-1] + dice.uniform(0.5, 1.5))
        looks = [StepSeen(T0 + timedelta(seconds=times[n]), n) for n in range(0, 201, 10)]
        out = forecast(looks, 600, None, None, 0, T0)
        assert out is not None
        before += T0 + timedelta(seconds=times[600]) <= out.completion_p90
    assert 0.85 <= before / 300 <= 0.95


@pytest.mark.parametrize(
    ("looks", "total"),
    [
        pytest.param([], 100, id="nothing seen"),
        pytest.param(seen((0, 0), (10, 10), (20, 20)), 100, id="two intervals"),
        pytest.param(seen((0, 0), (10, 10), (20, 20), (30, 30)), None, id="no total"),
        pytest.param(seen((0, 0), (10, 10), (20, 20), (30, 5), (40, 10)), 100, id="a restart just now"),
        pytest.param(seen((0, 5), (10, 5), (20, 5), (30, 5)), 100, id="no step made"),
    ],
)
def test_what_is_not_known_is_not_guessed(looks: list[StepSeen], total: int | None) -> None:
    assert forecast(looks, total, 0, RATE, 0, T0) is None


def test_an_unknown_price_leaves_the_time_known() -> None:
    out = forecast(seen((0, 0), (10, 10), (20, 20), (30, 30)), 100, 0, None, 0, T0)
    assert out is not None
    assert (out.cost_p50, out.cost_p90) == (None, None)


def test_the_order_of_looks_does_not_matter() -> None:
    looks = seen((0, 0), (5, 10), (25, 20), (30, 30))
    assert forecast(looks[::-1], 300, 0, RATE, 0, T0) == forecast(looks, 300, 0, RATE, 0, T0)


@pytest.mark.parametrize(
    ("notified", "spent", "limit", "crossed"),
    [
        ([], 49, 100, []),
        ([], 50, 100, [0.5]),
        ([0.5], 50, 100, []),
        ([], 95, 100, [0.5, 0.8]),
        ([0.5], 95, 100, [0.8]),
        ([0.5, 0.8], 50, 200, []),
        ([], 95, None, []),
        ([], 0, 0, []),
        ([], 1, 0, [0.5, 0.8]),
    ],
)
def test_a_threshold_is_told_once_when_spend_reaches_it(
    notified: list[float], spent: int, limit: int | None, crossed: list[float]
) -> None:
    assert newly_crossed([0.8, 0.5], notified, spent, limit) == crossed
