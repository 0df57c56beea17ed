"""When will the training be done: a pure function over measured step times, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WARM_STEPS = 5
"""The first steps of a process load kernels and fill caches; they say nothing about the rest."""
LEAST_STEPS = 8
"""Measured steps without which nothing is forecast."""
BATCHES = 8
"""Parts into which the measured steps are cut; their means vary with everything that is slower than one step."""
CHANGE = 2.0
"""Standard errors by which the halves differ when the pace has changed."""
DRIFT = 0.08
"""By how much, at 90 %, a stretch to come that is far longer than the measured one keeps another pace, although the
measured one was even: what a short look can't see. Chosen, not fitted: some more than the quarters of the steady one of
the recorded trainings (tests/data/step_times) are off their mean.
"""
ONE_CHORE = 0.35
"""Of a chore's seconds: half the interval after one measurement, which says nothing of how much they vary."""
_T95 = (math.inf, 6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895)
"""0.95 quantile of Student's t by degrees of freedom: two-sided 90 %."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is expected, and the ends of a 90 % interval around it."""

    expected: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Span:
        """A number that is known."""
        return cls(value, value, value)

    @classmethod
    def measured(cls, seconds: Sequence[float]) -> Span:
        """The mean of `seconds` (at least one of them), with an interval for the mean of as many to come."""
        count, mean = len(seconds), _mean(seconds)
        half = ONE_CHORE * mean / math.sqrt(count)
        if count > 1:
            half = max(half, _t(count - 1) * math.sqrt(2 * _variance(seconds) / count))
        return cls(mean, max(0.0, mean - half), mean + half)


@dataclass(frozen=True, slots=True)
class Chore:
    """Evaluations or saves that are left: how many, and the seconds of one, measured or guessed with its width."""

    times: Span
    each: Span


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is left. work: of all the steps together, in the units in which the measured ones are given."""

    steps: int
    chores: tuple[Chore, ...] = ()
    work: float | None = None


def remaining(step_seconds: Sequence[float], ahead: Ahead, step_work: Sequence[float] | None = None) -> Span | None:
    """Seconds until the training is done, or None while too few steps were measured.

    Args: step_seconds: of the optimizer steps of this process, oldest first, from its first step on; step_work: what
    each of them had to do (padded tokens), as long as step_seconds.

    Where the work of the steps is known, as it is for lengths that vary, their times are fitted to it, and the steps
    to come are counted in steps of the measured ones' mean work. The mean is that of all steps after the warm ones, or
    of the newer half when the two halves differ by more than their parts vary (a machine that others use too changes
    its pace for good). Its error is learnt from the means of consecutive parts, so that a machine whose speed drifts
    is told from one whose steps merely vary; the future is as uncertain as one more stretch of the past, and by DRIFT
    more, the longer it is against that past. What is uncertain in steps, evaluations and saves has nothing to do with
    one another and is added as such.
    Source: the method of batch means; Law and Kelton, Simulation Modeling and Analysis, chapter 9.
    """
    warm, steps, doubt = list(step_seconds[WARM_STEPS:]), float(ahead.steps), 0.0
    if len(warm) < LEAST_STEPS:
        return None
    if step_work is not None and ahead.work is not None and ahead.steps:
        warm, steps, doubt = _in_even_steps(warm, step_work[WARM_STEPS:], ahead.steps, ahead.work)
    if _changed(warm):
        warm = warm[len(warm) // 2 :]
    mean = _mean(warm)
    parts = min(BATCHES, len(warm) // 2)
    variance = _variance(_parts(warm, parts))
    length = len(warm) / parts
    future = min(float(parts), max(1.0, steps / length))
    unseen = DRIFT * mean * math.sqrt(steps / (steps + len(warm)))
    pace = math.hypot(_t(parts - 1 - (doubt > 0)) * math.sqrt(variance / parts + variance / future), unseen)
    halves = [(steps * min(mean, pace), steps * pace), (doubt, doubt)]
    expected = steps * mean
    for chore in ahead.chores:
        seconds = chore.times.expected * chore.each.expected
        expected += seconds
        halves.append((seconds - chore.times.low * chore.each.low, chore.times.high * chore.each.high - seconds))
    below, above = (math.hypot(*side) for side in zip(*halves, strict=True))
    return Span(expected, max(0.0, expected - below), expected + above)


def _in_even_steps(
    seconds: Sequence[float], work: Sequence[float], steps: int, ahead: float
) -> tuple[list[float], float, float]:
    """What the measured steps would have taken with their mean work, and how many such steps are ahead.

    A straight line through (work, seconds) by least squares, neither its slope nor its start below 0. The third number
    is 90 % of what its slope may be off by, in seconds for all that is ahead.
    """
    middle, mean = _mean(work), _mean(seconds)
    square = sum((one - middle) ** 2 for one in work)
    if square <= 1e-12 * middle**2:
        return list(seconds), float(steps), 0.0
    slope = sum((one - middle) * second for one, second in zip(work, seconds, strict=True)) / square
    slope = min(max(slope, 0.0), mean / middle)
    factors = [1 + slope * (one - middle) / mean for one in work]
    rest = [second - mean * factor for second, factor in zip(seconds, factors, strict=True)]
    error = math.sqrt(sum(one**2 for one in rest) / max(1, len(rest) - 2) / square)
    shift = ahead - steps * middle
    even = [second / max(factor, 1e-3) for second, factor in zip(seconds, factors, strict=True)]
    # A quotient's mean is not the mean's quotient: the measured total stays what it was.
    scale = sum(seconds) / sum(even)
    return [scale * one for one in even], max(0.0, steps + slope * shift / mean), _t(len(rest) - 2) * error * abs(shift)


def _changed(warm: Sequence[float]) -> bool:
    """Whether the pace of the newer half is another one than that of the older."""
    if len(warm) < 2 * LEAST_STEPS:
        return False
    means = _parts(warm, BATCHES)
    older, newer = means[: BATCHES // 2], means[BATCHES // 2 :]
    spread = math.sqrt((_variance(older) + _variance(newer)) / len(older))
    return abs(_mean(older) - _mean(newer)) > CHANGE * spread


def _parts(values: Sequence[float], count: int) -> list[float]:
    """Means of `count` consecutive parts."""
    return [_mean(values[len(values) * i // count : len(values) * (i + 1) // count]) for i in range(count)]


def _t(freedom: int) -> float:
    """The quantile; from 7 degrees of freedom on the last one, which is a little too careful."""
    return _T95[min(freedom, len(_T95) - 1)]


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return sum((one - mean) ** 2 for one in values) / (len(values) - 1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def error(forecast: float, actual: float) -> float:
    """Relative error of a forecast; positive: it took longer than said. Raises: ValueError when actual is not > 0."""
    if actual <= 0:
        raise ValueError("an actual time must be above 0")
    return (actual - forecast) / actual
