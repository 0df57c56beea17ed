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
_T95 = {2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 7: 1.895}
"""0.95 quantile of Student's t by degrees of freedom: two-sided 90 %."""


@dataclass(frozen=True, slots=True)
class Remaining:
    """Seconds until training is done: expected, and the ends of a 90 % interval."""

    seconds: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is left besides steps: evaluations and saves, and how long one of each took (None: not measured yet)."""

    steps: int
    evaluations: int = 0
    evaluation_seconds: float | None = None
    saves: int = 0
    save_seconds: float | None = None


def remaining(step_seconds: Sequence[float], ahead: Ahead) -> Remaining | None:
    """The forecast, or None while too few steps were measured.

    Args: step_seconds: of the optimizer steps of this process, oldest first, from its first step on.

    The mean is that of all steps after the warm ones, or of the newer half when the two halves differ by more than
    their parts vary (a machine that others use too changes its pace for good). Its error is learnt from the means of
    consecutive parts, so that a machine whose speed drifts is told from one whose steps merely vary; the future is as
    uncertain as one more stretch of the past. An evaluation or save that was never measured counts as nothing.
    Source: the method of batch means; Law and Kelton, Simulation Modeling and Analysis, chapter 9.
    """
    warm = list(step_seconds[WARM_STEPS:])
    if len(warm) < LEAST_STEPS:
        return None
    if _changed(warm):
        warm = warm[len(warm) // 2 :]
    mean = _mean(warm)
    parts = min(BATCHES, len(warm) // 2)
    variance = _variance(_parts(warm, parts))
    length = len(warm) / parts
    future = min(float(parts), max(1.0, ahead.steps / length))
    spread = _T95[parts - 1] * math.sqrt(variance / parts + variance / future)
    fixed = ahead.evaluations * (ahead.evaluation_seconds or 0.0) + ahead.saves * (ahead.save_seconds or 0.0)
    steps = ahead.steps
    return Remaining(
        seconds=steps * mean + fixed, low=steps * max(0.0, mean - spread) + fixed, high=steps * (mean + spread) + fixed
    )


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
