"""What the trainer's benches conclude: a bar is passed or missed only by figures that could have said otherwise."""

from __future__ import annotations

import random

import pytest
from bench import rig
from bench.trainer import figures, render
from bench.trainer.figures import Interval, State
from bench.trainer.options import parsed


def stretches(spread: float = 0.002, count: int = 16, **means: float) -> list[dict[str, list[float]]]:
    """Steps of arms around their means, in seconds; a drift of the machine meets all of them alike."""
    chance = random.Random(3)
    return [
        {
            arm: [mean * (1 + 0.02 * number) * (1 + chance.gauss(0, spread)) for _ in range(8)]
            for arm, mean in means.items()
        }
        for number in range(count)
    ]


def exact(value: float) -> Interval:
    return Interval(value, value - 0.005, value + 0.005)


def test_a_ratio_of_medians_finds_the_slowdown_that_was_put_in_and_its_interval_holds_it() -> None:
    given = stretches(stock=0.2, tollgate=0.21)
    found = figures.interval(given, figures.ratio("stock", "tollgate"))
    assert found.low <= 0.2 / 0.21 <= found.high
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.05


def test_more_noise_makes_a_wider_interval_and_the_same_figures_the_same_one() -> None:
    calm = figures.interval(stretches(0.002, stock=0.2, again=0.2), figures.ratio("stock", "again"))
    noisy = figures.interval(stretches(0.3, stock=0.2, again=0.2), figures.ratio("stock", "again"))
    assert noisy.high - noisy.low > calm.high - calm.low
    assert calm == figures.interval(stretches(0.002, stock=0.2, again=0.2), figures.ratio("stock", "again"))


def test_one_outlier_step_moves_no_median() -> None:
    given = stretches(0.0, count=4, stock=0.2, tollgate=0.2)
    given[0]["tollgate"][0] = 50.0
    assert figures.ratio("stock", "tollgate")(given) == pytest.approx(1.0, abs=0.02)


def test_one_stretch_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least two"):
        figures.interval(stretches(count=1, a=1.0, b=1.0), figures.ratio("a", "b"))


@pytest.mark.parametrize(
    ("same", "speed", "step_ms", "blocks", "equal", "expected"),
    [
        pytest.param(exact(1.0), exact(0.99), 220, 32, True, State.PASSED, id="passed"),
        pytest.param(exact(1.0), exact(0.90), 220, 32, True, State.MISSED, id="too slow"),
        pytest.param(exact(1.0), exact(0.952), 220, 32, True, State.INCONCLUSIVE, id="the bar lies within"),
        pytest.param(exact(1.02), exact(0.99), 220, 32, True, State.INCONCLUSIVE, id="A/A does not contain 1"),
        pytest.param(Interval(1, 0.96, 1.01), exact(0.99), 220, 32, True, State.INCONCLUSIVE, id="A/A too wide"),
        pytest.param(exact(1.0), exact(0.99), 150, 32, True, State.INCONCLUSIVE, id="short steps"),
        pytest.param(exact(1.0), exact(0.99), 220, 28, True, State.INCONCLUSIVE, id="few blocks"),
        pytest.param(exact(1.0), exact(0.90), 150, 32, True, State.INCONCLUSIVE, id="slow, but nothing can be said"),
        pytest.param(exact(1.0), exact(1.20), 220, 32, False, State.MISSED, id="another training"),
    ],
)
def test_overhead_is_judged_only_where_stock_equals_itself(
    same: Interval, speed: Interval, step_ms: float, blocks: int, equal: bool, expected: State
) -> None:
    assert figures.overhead(same, speed, step_ms, blocks, equal).state is expected


@pytest.mark.parametrize(
    ("same", "extra", "blocks", "equal", "expected"),
    [
        (Interval(0, -0.3, 0.4), Interval(1.0, 0.5, 1.6), 32, True, State.PASSED),
        (Interval(0, -0.3, 0.4), Interval(3.0, 2.5, 3.6), 32, True, State.MISSED),
        (Interval(0, -0.3, 0.4), Interval(2.0, 1.5, 2.6), 32, True, State.INCONCLUSIVE),
        (Interval(0, -1.3, 0.4), Interval(1.0, 0.5, 1.6), 32, True, State.INCONCLUSIVE),
        (Interval(0.5, 0.3, 0.7), Interval(1.0, 0.5, 1.6), 32, True, State.INCONCLUSIVE),
        (Interval(0, -0.3, 0.4), Interval(1.0, 0.5, 1.6), 8, True, State.INCONCLUSIVE),
        (Interval(0, -0.3, 0.4), Interval(1.0, 0.5, 1.6), 32, False, State.MISSED),
    ],
)
def test_added_milliseconds_are_judged_the_same_way(
    same: Interval, extra: Interval, blocks: int, equal: bool, expected: State
) -> None:
    assert figures.added(same, extra, blocks, equal).state is expected


def test_packing_needs_both_bars_and_equal_tokens() -> None:
    good, slow = exact(2.4), exact(0.7)
    assert figures.packing(2.3, good, exact(0.9), 0.01).state is State.PASSED
    assert figures.packing(2.3, exact(1.5), exact(0.9), 0.01).state is State.MISSED
    assert figures.packing(2.3, good, slow, 0.01).state is State.MISSED
    assert figures.packing(2.3, good, exact(0.85), 0.01).state is State.INCONCLUSIVE
    assert figures.packing(2.3, good, exact(0.9), 0.03).state is State.INCONCLUSIVE


def test_tokens_per_second_weigh_steps_by_their_time() -> None:
    given = [{"a": [100.0, 1.0, 300.0, 1.0], "b": [100.0, 2.0]}, {"a": [200.0, 1.0], "b": [100.0, 2.0]}]
    assert figures.rate_ratio("a", "b")(given) == pytest.approx(200 / 50)


def test_a_held_out_loss_is_compared_over_three_seeds() -> None:
    assert figures.held_out([2.0, 2.02, 1.99], [2.0, 2.0, 2.0]).state is State.PASSED
    assert figures.held_out([2.1, 2.1, 2.1], [2.0, 2.0, 2.0]).state is State.MISSED
    assert figures.held_out([2.0, 2.0], [2.0, 2.0]).state is State.INCONCLUSIVE


def test_a_forecast_has_to_hold_in_16_of_20_and_be_narrow() -> None:
    narrow = [0.2] * 20
    assert figures.forecasts([True] * 16 + [False] * 4, narrow).state is State.PASSED
    assert figures.forecasts([True] * 15 + [False] * 5, narrow).state is State.MISSED
    assert figures.forecasts([True] * 20, [0.5] * 20).state is State.MISSED
    assert figures.forecasts([True] * 19, narrow[:19]).state is State.INCONCLUSIVE


def test_the_table_shows_the_verdict_with_its_reason_and_names_the_machine() -> None:
    one = {
        "ranks": 1,
        "stock_ms": 212.34,
        "tollgate_ms": 213.0,
        "same": {"value": 1.0, "low": 0.9, "high": 1.1},
        "figure": {"value": 0.997, "low": 0.99, "high": 1.004},
        "losses_equal": True,
        "steps_compared": 448,
        "blocks": 32,
        "verdict": "inconclusive",
        "because": "stock against itself is wide",
    }
    kept = {
        "at": "2026-11-21T03:00:00+00:00",
        "command": "python -m bench trainer overhead",
        "seconds": 90.0,
        "load_at_start": [4.5, 4.0, 4.0],
        "machine": {"cpu": "Some CPU", "cores": 2, "load": [5.25, 4.0, 4.0]},
        "versions": {"torch": "2.13.0"},
        "results": [one],
    }
    text = render.overhead(kept)
    assert "| 0.997 [0.990, 1.004] |" in text
    assert "**inconclusive**: stock against itself is wide" in text
    assert "2 cores of Some CPU; load average 4.50 at the start and 5.25 at the end; torch 2.13.0" in text
    header, dashes, row = text.splitlines()[:3]
    assert header.count("|") == dashes.count("|") == row.count("|")


def test_the_page_has_a_place_for_each_table() -> None:
    page = render.PAGE.read_text(encoding="utf-8")
    for name in render.TABLES:
        assert f"<!-- bench:trainer-{name} -->\n" in page
        assert f"<!-- /bench:trainer-{name} -->\n" in page
    assert (rig.CHECKOUT / "docs/design/trainer-speed.md") == render.PAGE


@pytest.mark.parametrize("quick", [[], ["--quick"]])
def test_what_is_measured_without_options_has_enough_blocks_to_conclude(quick: list[str]) -> None:
    options = parsed(["overhead", *quick])
    assert 4 * options.rounds >= figures.LEAST_BLOCKS
    assert options.skip == 20
    assert parsed(["forecast", *quick]).runs >= figures.FORECASTS
    assert parsed(["packing", *quick]).runs >= 3
    assert parsed(["overhead", "--blocks", "30"]).rounds == 8


@pytest.mark.parametrize(
    "words", [["nothing"], ["overhead", "--rounds", "0"], ["overhead", "--rounds", "1", "--blocks", "4"]]
)
def test_a_command_that_measures_nothing_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(words)
