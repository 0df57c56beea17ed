"""Where a run is heading: cost and completion from the pace of its steps, and which thresholds were crossed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class StepSeen:
    """At `at`, `step` steps were done."""

    at: datetime
    step: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """p50: as likely too low as too high; p90: passed in one of ten. Cost in micro-USD at the end of training, plus what is reserved
    for evaluation; None: unknown.
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
    """The outlook, or None while it is unknown (no total, fewer than three usable intervals, no step since the last restart)."""
    raise NotImplementedError


def newly_crossed(
    notify_at: Iterable[float], notified: Iterable[float], spent_micro: int, limit: int | None
) -> list[float]:
    """Thresholds (shares of the limit) that spend has reached and nobody was told of yet, ascending."""
    raise NotImplementedError
