"""The ledger: what an attempt and a run have spent, may still spend, and on what.

Charges come from charges.py. A closed attempt carries its sums (close_attempt) and is never recomputed; an open one is
the sum of its charges. What is folded away keeps counting. So the total is: folded + closed attempts + charges of open
attempts, each pod once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from tollgate.api.quantities import Usd
from tollgate.api.training_run import Attempt, AttemptOutcome, PodCharge, TrainingRunStatus
from tollgate.contract import ChargeCategory
from tollgate.limits.charges import (
    PodRecord,
    accrued,
    add_unseen,
    cost,
    microseconds,
    observe,
    run_microseconds,
)

__all__ = [
    "Folded",
    "PodRecord",
    "Spend",
    "add_unseen",
    "all_over",
    "by_category",
    "close_attempt",
    "committed",
    "fold",
    "is_closed",
    "observe",
    "rate_per_hour",
    "spent",
]

RunRole = Literal["train", "evaluate"]
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Folded:
    """What remains of attempts that were removed from the status; money in micro-USD."""

    micro: int = 0
    run_seconds: float = 0.0
    unknown_pods: int = 0
    by_category: Mapping[str, int] = field(default_factory=dict)
    attempts: int = 0

    @classmethod
    def of(cls, status: TrainingRunStatus) -> Folded:
        """The folded part of a run's status."""
        return cls(
            status.folded_cost_usd,
            status.folded_run_seconds,
            status.folded_unknown_pods,
            status.folded_by_category,
            status.folded_attempts,
        )


@dataclass(frozen=True, slots=True)
class Spend:
    """What a run used. `unknown_pods` > 0: so many bound pods have no price, and `micro` is only what is known.

    `run_seconds`: wall time in which pods of an attempt were bound, summed over attempts of one role (maxRuntime counts
    training).
    """

    micro: int
    unknown_pods: int
    run_seconds: float


def spent(attempts: Sequence[Attempt], now: datetime, folded: Folded | None = None, role: RunRole = "train") -> Spend:
    """What all attempts used up to `now`; open charges accrue. Money is of all roles, `run_seconds` of one."""
    base = folded or Folded()
    micro, unknown = base.micro, base.unknown_pods
    seconds = base.run_seconds if role == "train" else 0.0
    for attempt in attempts:
        amounts = [accrued(charge, now) for charge in _open_pods(attempt)]
        micro += (attempt.cost_usd or 0) if is_closed(attempt) else sum(a for a in amounts if a is not None)
        unknown += attempt.unknown_pods or 0 if is_closed(attempt) else amounts.count(None)
        if attempt.role == role:
            seconds += _run_seconds(attempt, now)
    return Spend(micro, unknown, seconds)


def committed(
    attempts: Sequence[Attempt], now: datetime, folded: Folded | None = None, role: RunRole = "train"
) -> Spend:
    """What these attempts used or may still use without anybody's leave: what a new reservation has to keep clear of.

    A closed attempt counts its cost. An open one counts its whole reservation. One that is over (endTime is set) with
    charges still open, because pods were lost from sight, counts these pods at their bound. Never less than spent().
    """
    used = spent(attempts, now, folded, role)
    micro, seconds = used.micro, used.run_seconds
    for attempt in attempts:
        if is_closed(attempt):
            continue
        before = spent([attempt], now, role=attempt.role)
        bounds = [_at_bound(charge, attempt, now) for charge in _open_pods(attempt)]
        amounts = [accrued(charge, bound) for charge, bound in zip(_open_pods(attempt), bounds, strict=True)]
        most = sum(a for a in amounts if a is not None)
        longest = run_microseconds(
            (
                charge.model_copy(update={"end": charge.end or bound})
                for charge, bound in zip(_open_pods(attempt), bounds, strict=True)
            ),
            now,
        )
        most_seconds = longest / _SECOND
        if attempt.end_time is None:
            most = max(most, attempt.reserved_usd or 0)
            most_seconds = max(most_seconds, float(attempt.reserved_seconds or 0))
        micro += most - before.micro
        if attempt.role == role:
            seconds += most_seconds - before.run_seconds
    return Spend(micro, used.unknown_pods, seconds)


def rate_per_hour(attempts: Sequence[Attempt]) -> int | None:
    """Micro-USD per hour that the bound, open pods cost; None when one of them has no price; 0 when none is bound."""
    rates = [
        charge.per_hour_usd
        for attempt in attempts
        for charge in _open_pods(attempt)
        if charge.start is not None and charge.end is None
    ]
    return None if None in rates else sum(rate for rate in rates if rate is not None)


def is_closed(attempt: Attempt) -> bool:
    """Whether close_attempt() settled it."""
    return attempt.unknown_pods is not None


def all_over(attempt: Attempt) -> bool:
    """Whether every charge of the attempt is closed, so that the attempt can be."""
    return all(charge.end is not None for charge in attempt.pods or [])


def close_attempt(attempt: Attempt, checkpoint_at: datetime | None) -> Attempt:
    """The attempt with its sums: costUSD, podSeconds, runSeconds, lostSeconds, unknownPods, byCategory; pods are folded
    away.

    `checkpoint_at`: when its newest committed checkpoint was saved; None: none in this attempt. Work after it is lost
    unless the outcome is Completed. Pods without a price stay listed. An attempt without pods costs nothing.
    Raises: ValueError when a charge is still open. A closed attempt comes back untouched.
    """
    if is_closed(attempt):
        return attempt
    if not all_over(attempt):
        names = ", ".join(charge.name for charge in attempt.pods or [] if charge.end is None)
        raise ValueError(f"attempt {attempt.number} still has open charges: {names}")
    bound = [charge for charge in _open_pods(attempt) if charge.start is not None]
    ends = [charge.end for charge in bound if charge.end is not None]
    end = max(ends, default=attempt.end_time)
    unknown = [charge for charge in bound if charge.charge_usd is None]
    split = _split(attempt, bound, end, checkpoint_at) if end else {}
    lost_from = _lost_from(attempt, end, checkpoint_at) if end else None
    known = [charge.charge_usd for charge in bound if charge.charge_usd is not None]
    return attempt.model_copy(
        update={
            "end_time": attempt.end_time or end,
            "cost_usd": Usd(sum(known)) if known or not unknown else None,
            "pod_seconds": sum(microseconds(c.start, c.end) for c in bound if c.start and c.end) / _SECOND,
            "run_seconds": run_microseconds(bound, end) / _SECOND if end else 0.0,
            "lost_seconds": run_microseconds(bound, end, lost_from) / _SECOND if end and lost_from else 0.0,
            "unknown_pods": len(unknown),
            "by_category": _named(split),
            "pods": unknown or None,
        }
    )


def by_category(attempts: Sequence[Attempt], now: datetime, folded: Folded | None = None) -> dict[ChargeCategory, int]:
    """Micro-USD by category; the sum is exactly spent().micro. Open attempts have lost nothing yet."""
    total = dict.fromkeys(ChargeCategory, 0)
    parts: list[Mapping[str, int]] = [(folded or Folded()).by_category]
    for attempt in attempts:
        closed = is_closed(attempt)
        parts.append((attempt.by_category or {}) if closed else _named(_split(attempt, _open_pods(attempt), now, now)))
    for part in parts:
        for name, micro in part.items():
            total[ChargeCategory(name)] += micro
    return total


def fold(attempts: Sequence[Attempt], folded: Folded, keep: int) -> tuple[list[Attempt], Folded]:
    """The newest `keep` closed training attempts and all others untouched, and what the folded ones leave behind.

    Sums before and after are the same; evaluations are never folded, because their seconds are counted apart.
    """
    closed = sorted((a for a in attempts if a.role == "train" and is_closed(a)), key=lambda a: a.number)
    old = closed[: max(0, len(closed) - keep)]
    numbers = {attempt.number for attempt in old}
    categories = dict(folded.by_category)
    for attempt in old:
        for name, micro in (attempt.by_category or {}).items():
            categories[name] = categories.get(name, 0) + micro
    rest = [a for a in attempts if a.role != "train" or a.number not in numbers]
    return rest, Folded(
        folded.micro + sum(a.cost_usd or 0 for a in old),
        folded.run_seconds + sum(a.run_seconds or 0.0 for a in old),
        folded.unknown_pods + sum(a.unknown_pods or 0 for a in old),
        categories,
        folded.attempts + len(old),
    )


def _open_pods(attempt: Attempt) -> list[PodCharge]:
    """The charges of an attempt that is not closed, each uid once; a closed one speaks by its sums."""
    if is_closed(attempt):
        return []
    return list({charge.uid: charge for charge in attempt.pods or []}.values())


def _run_seconds(attempt: Attempt, now: datetime) -> float:
    if is_closed(attempt):
        return attempt.run_seconds or 0.0
    return run_microseconds(_open_pods(attempt), now) / _SECOND


def _at_bound(charge: PodCharge, attempt: Attempt, now: datetime) -> datetime:
    """When an open charge ends at the latest, as far as can be said; it is past that if the pod still lives."""
    if charge.start is None or attempt.reserved_seconds is None:
        return now
    return max(now, charge.start + timedelta(seconds=attempt.reserved_seconds))


def _lost_from(attempt: Attempt, end: datetime, checkpoint_at: datetime | None) -> datetime:
    """From when on the attempt's work is gone: its last checkpoint, or its first step if it saved none; `end` when none
    is.
    """
    productive = attempt.first_step_time
    if attempt.outcome is AttemptOutcome.COMPLETED or productive is None:
        return end
    return min(end, max(productive, checkpoint_at or productive))


def _split(
    attempt: Attempt, charges: Iterable[PodCharge], end: datetime, checkpoint_at: datetime | None
) -> dict[ChargeCategory, int]:
    """One attempt's money by category. Each pod's parts are differences of one rounded running sum, so they add up
    exactly.
    """
    parts: dict[ChargeCategory, int] = {}
    lost_from = _lost_from(attempt, end, checkpoint_at)
    productive_from = min(attempt.first_step_time or end, lost_from)
    for charge in charges:
        amount = accrued(charge, end)
        if charge.start is None or amount is None:
            continue
        if attempt.role == "evaluate":
            marks = [(ChargeCategory.EVALUATION, charge.end or end)]
        else:
            marks = [
                (ChargeCategory.STARTUP, productive_from),
                (ChargeCategory.PRODUCTIVE, lost_from),
                (ChargeCategory.LOST, charge.end or end),
            ]
        booked = 0
        for category, until in marks[:-1]:
            running = min(amount, cost(charge.per_hour_usd or 0, charge.start, min(until, charge.end or end)))
            parts[category] = parts.get(category, 0) + running - booked
            booked = running
        last = marks[-1][0]
        parts[last] = parts.get(last, 0) + amount - booked
    return parts


def _named(split: Mapping[ChargeCategory, int]) -> dict[str, int]:
    return {category.value: Usd(micro) for category, micro in split.items()}
