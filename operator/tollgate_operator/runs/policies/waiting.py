"""An attempt that is on its way out is left alone until nothing of it lives."""

from __future__ import annotations

from datetime import datetime

from tollgate.api.training_run import Attempt, Phase
from tollgate_operator.decision import Decision
from tollgate_operator.runs.ledgering import next_lost_at, suspended_after_start
from tollgate_operator.runs.situation import Situation, with_attempt
from tollgate_operator.runs.status import tell
from tollgate_operator.runs.stopping import end_job

_LOOK_AGAIN = 30.0


def waiting(situation: Situation, now: datetime) -> Decision | None:
    """The stop was asked for, or the Job decided its outcome: watch until the pods are gone."""
    attempt = situation.current
    job = situation.job_of(attempt) if attempt is not None else None
    if attempt is None or job is None:
        return None
    going = job.decided or job.stop_reason or job.deleting or suspended_after_start(attempt, job)
    reason = attempt.stop_reason
    if reason is not None and not going:
        # The status says stopped and the Job does not: the patch was undone, so it is made again.
        return Decision(before=(end_job(job, reason),), status=situation.status, requeue_after=_LOOK_AGAIN)
    if not going:
        return None
    asked = reason or job.stop_reason
    if asked is None:
        return Decision(status=situation.status, requeue_after=_until_lost(situation, attempt, now))
    noted = attempt.model_copy(update={"stop_reason": asked})
    told = situation.with_status(with_attempt(situation.status, noted))
    message = (
        situation.status.message
        if situation.status.phase is Phase.STOPPING
        else (f"stops attempt {attempt.number}: {asked}; waits until its pods have ended")
    )
    return Decision(status=tell(told, now, Phase.STOPPING, message), requeue_after=_until_lost(situation, attempt, now))


def _until_lost(situation: Situation, attempt: Attempt, now: datetime) -> float:
    """Until a pod on a node that does not answer is presumed lost; else a long look, for events can be lost too."""
    at = next_lost_at(situation, attempt)
    return _LOOK_AGAIN if at is None else min(max((at - now).total_seconds(), 1.0), _LOOK_AGAIN)
