"""The operator's layer of the cap, and the person's wish to suspend: the going attempt is stopped."""

from __future__ import annotations

from datetime import datetime

from tollgate.contract import StopReason
from tollgate.limits.stop import exhaustion
from tollgate_operator.decision import Decision
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.stopping import stop_attempt, unwanted
from tollgate_operator.runs.terms import caps_in_force, used_by_others


def limits(situation: Situation, now: datetime) -> Decision | None:
    """Stop the attempt that reached its limit, or that nobody wants to go on."""
    attempt = situation.current
    job = situation.job_of(attempt) if attempt is not None else None
    if attempt is None or job is None:
        return None
    found = unwanted(situation, attempt, now)
    if found is None:
        return None
    return stop_attempt(situation, attempt, job, StopReason(found.reason), found, now)


def stop_due(situation: Situation, now: datetime) -> datetime | None:
    """When the going attempt has to be stopped by a limit, as its pods run now."""
    attempt = situation.current
    if attempt is None:
        return None
    limit, reserve = caps_in_force(situation, attempt)
    end = exhaustion(limit, attempt, used_by_others(situation, attempt, attempt.role, now), reserve, now)
    return end.stop_at if end else None
