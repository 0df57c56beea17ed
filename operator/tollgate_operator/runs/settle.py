"""Whether a status is worth writing, and the figures that are refreshed with every write.

Time alone never causes a write. Figures that always move (spend, progress, the outlook) travel with the next
transition, and by themselves at most once a minute while pods run. What is left after taking them out is the essence: a
write is due when that changed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from tollgate.api.quantities import Usd, format_spent, format_usd
from tollgate.api.training_run import Attempt, ConditionType, Cost, Forecast, TrainingRunStatus
from tollgate.limits.forecast import newly_crossed
from tollgate.limits.ledger import Folded, by_category, fold, is_closed, rate_per_hour, spent
from tollgate.limits.stop import exhaustion
from tollgate_operator.decision import Decision, EmitEvent
from tollgate_operator.runs.counting import folded
from tollgate_operator.runs.observing import outlook_of
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.terms import caps_in_force, used_by_others

REFRESH: Final = timedelta(seconds=60)
KEPT_ATTEMPTS: Final = 10
_ALWAYS_MOVING: Final = ("message", "progress", "startTime")
_MOVING_COST: Final = (
    "spentUSD",
    "spent",
    "ratePerHourUSD",
    "forecastUSD",
    "exhaustedAt",
    "updatedAt",
    "byCategory",
)
_MOVING_ATTEMPT: Final = ("jobUID", "pods", "startTime")


def settle(before: Situation, decided: Situation, decision: Decision, now: datetime) -> Decision:
    """The decision with the status that is to be written, or with None when nothing is worth a write.

    `before`: as it is stored; `decided`: the facts that the rules saw.
    """
    if not isinstance(decision.status, TrainingRunStatus):
        raise AssertionError("a decision about a run carries a run's status")
    wanted = decided.with_status(decision.status)
    status = _fold(_costed(wanted.with_status(_notified(wanted, now)), now))
    status = status.model_copy(update={"observed_generation": before.run.generation})
    running = pods_run(status)
    updated = before.status.cost.updated_at if before.status.cost else None
    due = running and updated is not None and now - updated >= REFRESH
    changed = essence(before.status) != essence(status)
    requeue = decision.requeue_after
    if running:
        since = timedelta(0) if changed or due or updated is None else now - updated
        requeue = _sooner(requeue, max((REFRESH - since).total_seconds(), 0.0))
    if not (changed or due):
        return replace(decision, status=None, requeue_after=requeue, events=())
    return replace(
        decision,
        status=status,
        requeue_after=requeue,
        events=(*decision.events, *_crossed(before.status, status)),
    )


def essence(status: TrainingRunStatus) -> dict[str, Any]:
    """The status without what always moves."""
    document = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    for name in _ALWAYS_MOVING:
        document.pop(name, None)
    for name in _MOVING_COST:
        document.get("cost", {}).pop(name, None)
    for attempt, written in zip(status.attempts, document["attempts"], strict=True):
        for name in _MOVING_ATTEMPT if not is_closed(attempt) else ():
            # An evaluation has no phase of its own for "its pod has a node"; its start says it.
            if not (name == "startTime" and attempt.role == "evaluate"):
                written.pop(name, None)
    document["conditions"] = [
        (c.type, c.status, c.reason)
        for c in status.conditions
        if not (c.type == ConditionType.PROGRESSING and c.status != "False")
    ]
    return document


def pods_run(status: TrainingRunStatus) -> bool:
    """Whether some pod of the run costs money now."""
    return any(c.start is not None and c.end is None for a in status.attempts if not is_closed(a) for c in a.pods or [])


def _costed(situation: Situation, now: datetime) -> TrainingRunStatus:
    status = situation.status
    old = status.cost
    if old is None:
        return status
    history = Folded.of(status)
    used = spent(status.attempts, now, history)
    rate = rate_per_hour(status.attempts)
    open_attempts = [a for a in status.attempts if not is_closed(a)]
    current = situation.current
    outlook = outlook_of(situation, now) if current else None
    limit = caps_in_force(situation, current)[0].cost if current else old.limit_usd
    cost = old.model_copy(
        update={
            "spent_usd": Usd(used.micro),
            "spent": format_spent(used.micro, more=used.unknown_pods > 0),
            "reserved_usd": _usd(sum(a.reserved_usd or 0 for a in open_attempts)) if open_attempts else None,
            "rate_per_hour_usd": _usd(rate),
            "by_category": {k.value: Usd(v) for k, v in by_category(status.attempts, now, history).items() if v},
            "forecast_usd": Forecast(p50=_usd(outlook.cost_p50), p90=_usd(outlook.cost_p90)) if outlook else None,
            "exhausted_at": _exhausted_at(situation, now),
            "limit_usd": _usd(limit),
            "notified": _still_crossed(old, limit, used.micro),
            "updated_at": now,
        }
    )
    return status.model_copy(update={"cost": cost})


def _still_crossed(old: Cost, limit: int | None, used: int) -> list[float] | None:
    """Thresholds of a limit that was raised since are told again when they are crossed again."""
    if limit is None or old.limit_usd == limit:
        return old.notified
    return [share for share in old.notified or [] if used >= share * limit]


def _exhausted_at(situation: Situation, now: datetime) -> datetime | None:
    current = situation.current
    if current is None:
        return None
    limit, reserve = caps_in_force(situation, current)
    others = used_by_others(situation, current, current.role, now)
    end = exhaustion(limit, current, others, reserve, now)
    return end.exhausted_at if end else None


def _notified(situation: Situation, now: datetime) -> TrainingRunStatus:
    status = situation.status
    if status.cost is None:
        return status
    used = spent(status.attempts, now, Folded.of(status))
    notified = status.cost.notified or []
    crossed = newly_crossed(situation.spec.limits.notify_at, notified, used.micro, status.cost.limit_usd)
    if not crossed:
        return status
    return status.model_copy(
        update={"cost": status.cost.model_copy(update={"notified": sorted([*notified, *crossed])})}
    )


def _crossed(before: TrainingRunStatus, after: TrainingRunStatus) -> tuple[EmitEvent, ...]:
    known = set((before.cost.notified if before.cost else None) or [])
    new = [share for share in (after.cost.notified if after.cost else None) or [] if share not in known]
    if not new or after.cost is None:
        return ()
    limit = format_usd(after.cost.limit_usd or 0)
    message = f"{format_usd(after.cost.spent_usd)} USD of {limit} are spent: more than {max(new):.0%} of the limit"
    return (EmitEvent("Warning", "BudgetThreshold", message),)


def _fold(status: TrainingRunStatus) -> TrainingRunStatus:
    kept, rest = fold(status.attempts, Folded.of(status), KEPT_ATTEMPTS)
    if len(kept) == len(status.attempts):
        return status
    remaining: set[tuple[str, int]] = {(a.role, a.number) for a in kept}
    removed: list[Attempt] = [a for a in status.attempts if (a.role, a.number) not in remaining]
    return status.model_copy(
        update={
            "attempts": kept,
            "folded_attempts": rest.attempts,
            "folded_cost_usd": Usd(rest.micro),
            "folded_run_seconds": rest.run_seconds,
            "folded_by_category": {name: Usd(micro) for name, micro in rest.by_category.items()},
            "folded_unknown_pods": rest.unknown_pods,
            "folded_counts": folded(status.folded_counts, removed),
        }
    )


def _usd(micro: int | None) -> int | None:
    return None if micro is None else Usd(micro)


def _sooner(a: float | None, b: float) -> float:
    return b if a is None else min(a, b)
