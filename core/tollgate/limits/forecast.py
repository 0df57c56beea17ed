"""Where a run is heading: cost and completion from the pace of its steps, and which thresholds were crossed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

_P90 = 1.2815515655446004  # 0.9 quantile of the normal distribution
_MIN_INTERVALS = 3
_HORIZON = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class StepSeen:
    """At `at`, `step` steps were done."""

    at: datetime
    step: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """p50: as likely too low as too high; p90: passed in one of ten.

    Cost in micro-USD when training is done, plus what is reserved for evaluation; None: unknown.
    """

    completion_p50: datetime
    completion_p90: datetime
    cost_p50: int | None
    cost_p90: int | None


def forecast(
    seen: Sequence[StepSeen],
    total_steps: int | None,
    spent_micro: int | None,
    rate_per_hour: int | None,
    evaluation_reserve: int,
    now: datetime,
) -> Outlook | None:
    """The outlook, or None while unknown: no total, or fewer than three intervals with steps since the last restart.

    Intervals are batches of steps. With seconds per step of mean m and variance v (estimated from the batches' means,
    weighted by their steps), the N steps that are left take N m on average, with a variance of N v for the steps
    themselves and N^2 v / n for the n steps that m was learnt from. Both are taken as normal.
    Source: the method of batch means; Law and Kelton, Simulation Modeling and Analysis, chapter 9.
    """
    intervals = _intervals(seen)
    if total_steps is None or len(intervals) < _MIN_INTERVALS:
        return None
    done = sum(steps for _, steps in intervals)
    mean = sum(seconds for seconds, _ in intervals) / done
    variance = sum(n * (seconds / n - mean) ** 2 for seconds, n in intervals) / (len(intervals) - 1)
    last = max(seen, key=lambda one: one.at)
    left = max(0, total_steps - last.step)
    spread = _P90 * math.sqrt(left * variance + left * left * variance / done)
    ends = []
    for seconds in (left * mean, left * mean + spread):
        if seconds > _HORIZON.total_seconds():
            return None
        ends.append(max(now, last.at + timedelta(seconds=seconds)))
    costs: list[int | None] = [None, None]
    if spent_micro is not None and rate_per_hour is not None:
        costs = [spent_micro + evaluation_reserve + _cost(rate_per_hour, now, end) for end in ends]
    return Outlook(ends[0], ends[1], costs[0], costs[1])


def newly_crossed(
    notify_at: Iterable[float], notified: Iterable[float], spent_micro: int, limit: int | None
) -> list[float]:
    """Thresholds (shares of the limit) that spend has reached and nobody was told of yet, ascending."""
    if limit is None or spent_micro <= 0:
        return []
    told = set(notified)
    return sorted(t for t in set(notify_at) - told if spent_micro >= Decimal(repr(t)) * limit)


def _cost(rate_per_hour: int, now: datetime, end: datetime) -> int:
    return math.ceil(rate_per_hour * (end - now).total_seconds() / 3600)


def _intervals(seen: Sequence[StepSeen]) -> list[tuple[float, int]]:
    """(seconds, steps) between looks that saw steps, since the step last went back (a restart)."""
    result: list[tuple[float, int]] = []
    base: StepSeen | None = None
    for one in sorted(seen, key=lambda s: s.at):
        if base is not None and one.step < base.step:
            result, base = [], one
        elif base is None:
            base = one
        elif one.step > base.step and one.at > base.at:
            result.append(((one.at - base.at).total_seconds(), one.step - base.step))
            base = one
    return result
