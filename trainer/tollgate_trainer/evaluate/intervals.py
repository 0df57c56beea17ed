"""From samples to a value with one-sided bounds: the only place of the trainer where intervals are made.

Each bound holds with `confidence` by itself, both together with 2 x confidence - 1: a gate asks for one end.
Rates have exact bounds (Clopper and Pearson), means and other statistics a seeded bootstrap over whole units. A
bootstrap of equal samples has no width, so nothing that is a rate is bootstrapped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import stats

from tollgate.contract import Metric
from tollgate_trainer.evaluate.samples import (
    Booleans,
    Gap,
    Indices,
    Mean,
    Measured,
    Rate,
    Samples,
    Statistic,
    Vector,
    Weighted,
)

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
    count = size(measured.samples)
    if count == 0:
        raise UnmeasuredError(f"{measured.metric}: there are no samples")
    found = estimate(measured.samples, confidence, seed)
    if not math.isfinite(found.value):
        raise UnmeasuredError(f"{measured.metric}: the value is {found.value}, not a number that can be judged")
    return Metric(
        name=measured.metric,
        value=found.value,
        lower=_finite(found.lower),
        upper=_finite(found.upper),
        confidence=confidence,
        samples=count,
        advisory=measured.advisory,
    )


def size(samples: Samples) -> int:
    """How many independent units there are: trials, documents, or scenarios per group."""
    if isinstance(samples, Rate):
        return samples.trials
    if isinstance(samples, Weighted):
        return sum(rate.trials for rate in samples.rates) if all(r.trials for r in samples.rates) else 0
    if isinstance(samples, Mean):
        return len(samples.totals)
    if isinstance(samples, Gap):
        return int(samples.outcomes.shape[1])
    return samples.units if isinstance(samples, Statistic) else samples.samples


def estimate(samples: Samples, confidence: float, seed: int) -> Estimate:
    """Value and bounds of any samples. Raises: ValueError for a confidence outside of [0.5, 1)."""
    if isinstance(samples, Rate):
        return rate(samples, confidence)
    if isinstance(samples, Weighted):
        return weighted(samples, confidence)
    if isinstance(samples, Mean):
        return mean(samples, confidence, seed)
    if isinstance(samples, Gap):
        return gap(samples, confidence)
    if isinstance(samples, Statistic):
        return statistic(samples, confidence, seed)
    return Estimate(samples.value, None, None)


def _finite(bound: float | None) -> float | None:
    return bound if bound is not None and math.isfinite(bound) else None


# --- rates ------------------------------------------------------------------------------------------------------------


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


def weighted(samples: Weighted, confidence: float) -> Estimate:
    """The weighted mean of corrected rates. Each rate's bound holds with 1 - (1 - confidence) / rates, so that their
    sum holds with `confidence` (Bonferroni): conservative, and exact for one rate.
    """
    _check(0, 0, confidence)
    share = np.asarray(samples.weights) / sum(samples.weights)
    parts = [rate(one, 1 - (1 - confidence) / len(samples.rates)) for one in samples.rates]

    def total(values: list[float | None]) -> float:
        return float(np.dot(share, np.asarray(values, dtype=np.float64)))

    return Estimate(total([p.value for p in parts]), total([p.lower for p in parts]), total([p.upper for p in parts]))


def paired(first: Booleans, second: Booleans, confidence: float) -> Estimate:
    """rate(first) - rate(second) on the same units, shape [units] each.

    The difference is p(first alone) - p(second alone), and each of both has a Clopper-Pearson bound with half of the
    error: exact and conservative, also where the two never differ.
    """
    alone, other, units = int((first & ~second).sum()), int((second & ~first).sum()), len(first)
    half = 1 - (1 - confidence) / 2
    return Estimate(
        (alone - other) / units,
        lower_bound(alone, units, half) - upper_bound(other, units, half),
        upper_bound(alone, units, half) - lower_bound(other, units, half),
    )


def gap(samples: Gap, confidence: float) -> Estimate:
    """The largest |rate(g) - rate(h)| over all pairs of groups, in [0, 1], with simultaneous bounds.

    Each ordered pair is bounded with (1 - confidence) / pairs of the error, so all of them hold together: no pair of
    groups differs by more than the upper bound, and the pair with the largest lower bound differs by that at least.
    """
    _check(0, 0, confidence)
    pairs = list(permutations(range(len(samples.groups)), 2))
    each = 1 - (1 - confidence) / len(pairs)
    found = [paired(samples.outcomes[g], samples.outcomes[h], each) for g, h in pairs]
    return Estimate(
        max(one.value for one in found),
        max(0.0, *(one.lower for one in found if one.lower is not None)),
        min(1.0, max(one.upper for one in found if one.upper is not None)),
    )


# --- the bootstrap ----------------------------------------------------------------------------------------------------


def mean(samples: Mean, confidence: float, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """A weighted mean with percentile bounds of a bootstrap over documents, seeded.

    Documents are drawn whole: tokens of one document are not independent. One document says nothing about others, so
    its bounds are None.
    Raises: ValueError for fewer than 1,000 resamples.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.
    """

    def of(chosen: Indices) -> Vector:
        return np.asarray(samples.totals[chosen].sum(axis=-1) / samples.weights[chosen].sum(axis=-1))

    value = float(samples.totals.sum() / samples.weights.sum())
    documents = len(samples.totals)
    if documents < 2 or not np.isfinite(samples.totals).all():
        _resampled(of, 0, confidence, seed, resamples)
        return Estimate(_out(value, samples), None, None)
    low, high = _resampled(of, documents, confidence, seed, resamples)
    return Estimate(_out(value, samples), _out(low, samples), _out(high, samples))


def statistic(samples: Statistic, confidence: float, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """A statistic with percentile bounds of a bootstrap over its units, seeded; as `mean`.

    The bounds are None when more than 1 % of the resampled sets give no number: they would be those of the others only.
    """

    def of(chosen: Indices) -> Vector:
        return np.asarray([samples.compute(row) for row in chosen], dtype=np.float64)

    value = float(samples.compute(np.arange(samples.units)))
    if samples.units < 2 or not math.isfinite(value):
        return Estimate(value, None, None)
    low, high = _resampled(of, samples.units, confidence, seed, resamples)
    return Estimate(value, _finite(low), _finite(high))


def _resampled(
    of: Callable[[Indices], Vector], units: int, confidence: float, seed: int, resamples: int
) -> tuple[float, float]:
    """(lower, upper) percentile of the statistic over resampled sets of units; `of`: [sets, units] -> [sets]."""
    if resamples < 1000:
        raise ValueError(f"{resamples} resamples are too few for a bound; take at least 1000")
    _check(0, 0, confidence)
    if units == 0:
        return math.nan, math.nan
    generator = np.random.Generator(np.random.PCG64(seed))
    found = []
    step = max(1, _CHUNK // units)
    for first in range(0, resamples, step):
        found.append(of(generator.integers(0, units, size=(min(step, resamples - first), units))))
    values = np.concatenate(found)
    if np.isnan(values).mean() > 0.01:
        return math.nan, math.nan
    low, high = np.nanquantile(values, [1 - confidence, confidence])
    return float(low), float(high)


def _out(value: float, samples: Mean) -> float:
    if not samples.exponential or not math.isfinite(value):
        return value
    return math.exp(value) if value < 700 else math.inf


def _check(successes: int, trials: int, confidence: float) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials are impossible")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"a one-sided confidence of {confidence} is not in [0.5, 1)")


# --- two models on the same units -------------------------------------------------------------------------------------


def difference(ours: Samples, theirs: Samples, confidence: float, seed: int) -> Estimate | None:
    """Our value minus theirs, on the same units in the same order; None for samples that cannot be paired.

    Rates: exact, on the units where the two differ. Means and statistics: a bootstrap that draws the same units for
    both. Raises: ValueError when the two have another number of units or another chance.
    """
    if isinstance(ours, Rate) and isinstance(theirs, Rate) and ours.outcomes and theirs.outcomes:
        if (ours.trials, ours.chance) != (theirs.trials, theirs.chance):
            raise ValueError(f"{ours.trials} and {theirs.trials} trials are not the same units")
        found = paired(np.asarray(ours.outcomes), np.asarray(theirs.outcomes), confidence)
        scale = 1 / (1 - ours.chance)
        return Estimate(found.value * scale, _scaled(found.lower, scale), _scaled(found.upper, scale))
    if isinstance(ours, Weighted) and isinstance(theirs, Weighted) and len(ours.rates) == len(theirs.rates):
        each = 1 - (1 - confidence) / len(ours.rates)
        parts = [difference(a, b, each, seed) for a, b in zip(ours.rates, theirs.rates, strict=True)]
        share = np.asarray(ours.weights) / sum(ours.weights)
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        ends = np.asarray([[p.value, p.lower, p.upper] for p in known], dtype=np.float64)
        value, lower, upper = (float(end) for end in share @ ends)
        return Estimate(value, lower, upper)
    mine, other = _compute(ours), _compute(theirs)
    if mine is None or other is None or type(ours) is not type(theirs):
        return None
    if size(ours) != size(theirs):
        raise ValueError(f"{size(ours)} and {size(theirs)} documents are not the same units")
    return statistic(Statistic(size(ours), _minus(mine, other)), confidence, seed)


def _minus(first: Callable[[Indices], float], second: Callable[[Indices], float]) -> Callable[[Indices], float]:
    return lambda chosen: first(chosen) - second(chosen)


def mcnemar(ours: Rate, theirs: Rate) -> float:
    """Two-sided exact p-value that two models do equally well on the same trials.

    Source: McNemar 1947, Psychometrika 12; exact by scipy.stats.binomtest on the trials where the two differ.
    """
    first, second = np.asarray(ours.outcomes), np.asarray(theirs.outcomes)
    alone, other = int((first & ~second).sum()), int((second & ~first).sum())
    return float(stats.binomtest(alone, alone + other, 0.5).pvalue) if alone + other else 1.0


def _compute(samples: Samples) -> Callable[[Indices], float] | None:
    if isinstance(samples, Statistic):
        return samples.compute
    if isinstance(samples, Mean):
        chosen_mean = samples  # bound here, so that the function below sees a Mean

        def of(chosen: Indices) -> float:
            value = float(chosen_mean.totals[chosen].sum() / chosen_mean.weights[chosen].sum())
            return _out(value, chosen_mean)

        return of
    return None


def _scaled(bound: float | None, scale: float) -> float | None:
    return bound if bound is None else bound * scale
