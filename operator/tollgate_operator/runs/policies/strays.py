"""A Job of this run that belongs to no going attempt must not run: never two gangs that can commit."""

from __future__ import annotations

from datetime import datetime

from tollgate.contract import StopReason
from tollgate_operator.decision import Decision
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.stopping import end_job

_LOOK_AGAIN = 1.0


def strays(situation: Situation, now: datetime) -> Decision | None:
    """Stop or delete what is left of closed attempts: a suspended Job would start anew, another one still runs."""
    current = situation.current
    kept = situation.job_of(current) if current is not None else None
    found = [
        job
        for job in situation.jobs
        if job.finished is None
        and job.deleting is None
        and (kept is None or job.uid != kept.uid)
        and ((job.stop_reason is None and job.decided is None) or job.suspend)
    ]
    if not found:
        return None
    return Decision(before=tuple(end_job(job, StopReason.GANG) for job in found), requeue_after=_LOOK_AGAIN)
