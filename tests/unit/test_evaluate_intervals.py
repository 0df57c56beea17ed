"""Intervals: they cover what they promise, and what can't be known is not a number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tollgate_trainer.evaluate import intervals
from tollgate_trainer.evaluate.samples import Mean, Measured, Rate


def mean(values: list[float], weights: list[float] | None = None, *, exponential: bool = False) -> Mean:
    ones = [1.0] * len(values)
    return Mean(np.asarray(values), np.asarray(weights or ones), exponential)


@pytest.mark.parametrize(
    ("successes", "trials", "confidence", "lower", "upper"),
    [
        (0, 0, 0.95, 0.0, 1.0),
        (0, 100, 0.95, 0.0, 1 - 0.05 ** (1 / 100)),  # the rule of three, exactly
        (100, 100, 0.95, 0.05 ** (1 / 100), 1.0),
        (10, 100, 0.95, 0.0553, 0.1637),  # Newcombe 1998 gives these to four digits for 90 % two-sided
    ],
)
def test_clopper_pearson_has_its_published_values(
    successes: int, trials: int, confidence: float, lower: float, upper: float
) -> None:
    assert intervals.lower_bound(successes, trials, confidence) == pytest.approx(lower, abs=1e-4)
    assert intervals.upper_bound(successes, trials, confidence) == pytest.approx(upper, abs=1e-4)


@given(trials=st.integers(1, 60), p=st.floats(0.01, 0.99), confidence=st.sampled_from([0.9, 0.95, 0.99]))
@settings(max_examples=40, deadline=None)
def test_each_bound_of_a_rate_covers_the_truth_at_least_as_often_as_promised(
    trials: int, p: float, confidence: float
) -> None:
    counts = range(trials + 1)
    chances = stats.binom.pmf(counts, trials, p)
    above = sum(c for k, c in zip(counts, chances, strict=True) if intervals.upper_bound(k, trials, confidence) >= p)
    below = sum(c for k, c in zip(counts, chances, strict=True) if intervals.lower_bound(k, trials, confidence) <= p)
    assert above >= confidence - 1e-9
    assert below >= confidence - 1e-9


@given(successes=st.integers(0, 40), more=st.integers(0, 40), confidence=st.floats(0.5, 0.999))
def test_a_rate_lies_between_its_bounds_and_more_confidence_never_narrows_them(
    successes: int, more: int, confidence: float
) -> None:
    samples = Rate(successes, successes + more + 1, 0.25)
    got, wider = intervals.rate(samples, confidence), intervals.rate(samples, min(confidence + 0.0005, 0.9999))
    assert got.lower is not None
    assert got.upper is not None
    assert wider.lower is not None
    assert got.lower <= got.value + 1e-12
    assert got.value <= got.upper + 1e-12
    assert wider.lower <= got.lower + 1e-12


def test_guessing_scores_0_and_knowing_scores_1() -> None:
    assert intervals.rate(Rate(25, 100, 0.25), 0.95).value == 0
    assert intervals.rate(Rate(100, 100, 0.25), 0.95).value == 1


def test_the_bootstrap_of_a_mean_covers_the_truth_about_as_often_as_promised() -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for turn in range(200):
        sizes = generator.integers(5, 80, 120).astype(float)
        noise = generator.normal(0, 1, 120)  # of a whole document: its tokens are not independent
        estimate = intervals.mean(Mean((3 + noise) * sizes, sizes), 0.95, seed=turn, resamples=1000)
        assert estimate.upper is not None
        covered += estimate.upper >= 3
    assert covered >= 180, "95 % of 200 are 190; fewer than 180 have a chance below 1 in 10,000"


def test_the_same_seed_gives_the_same_bounds_and_another_does_not() -> None:
    samples = mean([1.0, 2.0, 4.0, 3.0, 2.5])
    assert intervals.mean(samples, 0.95, 1) == intervals.mean(samples, 0.95, 1)
    assert intervals.mean(samples, 0.95, 1) != intervals.mean(samples, 0.95, 2)


def test_perplexity_is_e_to_the_mean_over_tokens_not_over_documents() -> None:
    estimate = intervals.mean(mean([2.0, 30.0], [1.0, 10.0], exponential=True), 0.95, 1)
    assert estimate.value == pytest.approx(math.exp(32 / 11))


def test_one_document_has_a_value_but_no_bounds() -> None:
    estimate = intervals.mean(mean([2.0]), 0.95, 1)
    assert (estimate.value, estimate.lower, estimate.upper) == (2.0, None, None)


@pytest.mark.parametrize(
    "samples",
    [Rate(0, 0), mean([]), mean([float("nan"), 1.0]), mean([float("inf"), 1.0]), mean([1e9, 1e9], exponential=True)],
)
def test_what_was_not_measured_is_an_error_never_a_number(samples: Rate | Mean) -> None:
    with pytest.raises(intervals.UnmeasuredError), np.errstate(all="ignore"):
        intervals.metric(Measured("m", samples, "sha256:0", "s", "1"), 0.95, 1)


def test_impossible_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="impossible"):
        Rate(3, 2)
    with pytest.raises(ValueError, match="weight above 0"):
        mean([1.0], [0.0])
    with pytest.raises(ValueError, match="at least 1000"):
        intervals.mean(mean([1.0, 2.0]), 0.95, 1, resamples=10)
    with pytest.raises(ValueError, match="confidence"):
        intervals.upper_bound(1, 2, 1.0)
