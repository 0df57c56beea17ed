"""From samples to a value with one-sided bounds: the only place of the trainer where intervals are made.

Each bound holds with `confidence` by itself, both together with 2 x confidence - 1: a gate asks for one end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tollgate.contract import Metric
from tollgate_trainer.evaluate.samples import Mean, Measured, Rate

RESAMPLES = 2000
_CHUNK = 2_000_000  # resampled indices held at once (16 MB)


class UnmeasuredError(ValueError):
    """The samples do not give a number; the metric is missing, which is never the same as 0."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A point with its one-sided bounds; a bound that cannot be known from so few samples is None."""

    value: float
    lower: float | None
    upper: float | None


def metric(measured: Measured, confidence: float, seed: int) -> Metric:
    """The metric as evidence states it.

    Raises: UnmeasuredError when there are no samples or the value is not finite.
    """
    samples = measured.samples
    count = samples.trials if isinstance(samples, Rate) else len(samples.totals)
    if count == 0:
        raise UnmeasuredError(f"{measured.metric}: there are no samples")
    estimate = rate(samples, confidence) if isinstance(samples, Rate) else mean(samples, confidence, seed)
    if not math.isfinite(estimate.value):
        raise UnmeasuredError(
            f"{measured.metric}: the value is {estimate.value}; the model gives no finite likelihoods"
        )
    return Metric(
        name=measured.metric,
        value=estimate.value,
        lower=_finite(estimate.lower),
        upper=_finite(estimate.upper),
        confidence=confidence,
        samples=count,
    )


def _finite(bound: float | None) -> float | None:
    return bound if bound is not None and math.isfinite(bound) else None


def lower_bound(successes: int, trials: int, confidence: float) -> float:
    """One-sided Clopper-Pearson lower bound of a success rate, in [0, 1]; 0.0 without trials (nothing is known).

    Raises: ValueError when a count or the confidence is out of range.
    Source: Clopper and Pearson 1934, Biometrika 26; computed by scipy.stats.beta.ppf.
    """
    _check(successes, trials, confidence)
    return float(stats.beta.ppf(1 - confidence, successes, trials - successes + 1)) if successes else 0.0


def upper_bound(successes: int, trials: int, confidence: float) -> float:
    """One-sided Clopper-Pearson upper bound of a success rate, in [0, 1]; 1.0 without trials (nothing is known).

    Raises: ValueError when a count or the confidence is out of range.
    Source: as lower_bound.
    """
    _check(successes, trials, confidence)
    return float(stats.beta.ppf(confidence, successes + 1, trials - successes)) if successes < trials else 1.0


def rate(samples: Rate, confidence: float) -> Estimate:
    """A rate corrected for chance: (p - chance) / (1 - chance), 0 for guessing, 1 for always right; may be negative."""

    def corrected(p: float) -> float:
        return (p - samples.chance) / (1 - samples.chance)

    return Estimate(
        corrected(samples.successes / samples.trials),
        corrected(lower_bound(samples.successes, samples.trials, confidence)),
        corrected(upper_bound(samples.successes, samples.trials, confidence)),
    )


def mean(samples: Mean, confidence: float, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """A weighted mean with percentile bounds of a bootstrap over documents, seeded.

    Documents are drawn whole: tokens of one document are not independent. One document says nothing about others, so
    its bounds are None.
    Raises: ValueError for fewer than 1,000 resamples.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.
    """
    if resamples < 1000:
        raise ValueError(f"{resamples} resamples are too few for a bound; take at least 1000")
    _check(0, 0, confidence)

    def out(value: float) -> float:
        return math.exp(value) if samples.exponential and value < 700 else math.inf if samples.exponential else value

    value = float(samples.totals.sum() / samples.weights.sum())
    documents = len(samples.totals)
    if documents < 2 or not np.isfinite(samples.totals).all():
        return Estimate(out(value) if math.isfinite(value) else value, None, None)
    generator = np.random.Generator(np.random.PCG64(seed))
    means = []
    step = max(1, _CHUNK // documents)
    for first in range(0, resamples, step):
        chosen = generator.integers(0, documents, size=(min(step, resamples - first), documents))
        means.append(samples.totals[chosen].sum(axis=1) / samples.weights[chosen].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [1 - confidence, confidence])
    return Estimate(out(value), out(float(low)), out(float(high)))


def _check(successes: int, trials: int, confidence: float) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials are impossible")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"a one-sided confidence of {confidence} is not in [0.5, 1)")
