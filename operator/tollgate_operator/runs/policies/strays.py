"""A Job of this run that belongs to no going attempt must not run: never two gangs that can commit."""

from __future__ import annotations

from datetime import datetime

from tollgate.contract import StopReason
from tollgate_operator.decision import Decision
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.stopping import end_job

LOOK_AGAIN = 1.0


def strays(situation: Situation, now: datetime) -> Decision | None:
    """Stop or delete what is left of attempts that are closed in the status as it is stored.

    A suspended Job would start anew as soon as somebody lets it; another one still runs.
    """
    found = situation.leftovers
    if not found:
        return None
    return Decision(before=tuple(end_job(job, StopReason.GANG) for job in found), requeue_after=LOOK_AGAIN)
