"""A gang that does not get all of its nodes, or not its image, is given up before it pays for waiting."""

from __future__ import annotations

from datetime import datetime

from tollgate.contract import FailureClass, StopReason
from tollgate_operator.decision import Decision
from tollgate_operator.runs.classify import USER_WAITS, failure
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.stopping import stop_attempt
from tollgate_operator.runs.waits import scheduling_due, why_not_started


def scheduling(situation: Situation, now: datetime) -> Decision | None:
    """Stop what did not start within schedulingTimeout; an image name that cannot be one is the user's at once."""
    attempt = situation.current
    job = situation.job_of(attempt) if attempt is not None else None
    if attempt is None or job is None or job.suspend:
        return None
    pods = situation.pods_of(attempt)
    for pod in pods:
        if pod.waiting_reason in USER_WAITS and not pod.over:
            message = f"image of the profile: {pod.waiting_message or pod.waiting_reason}"
            noted = failure(FailureClass.USER, pod.waiting_reason, message, pod=pod.name, node=pod.node or None)
            return stop_attempt(situation, attempt, job, StopReason.GANG, noted, now)
    due = scheduling_due(situation, attempt, job)
    if due is None or now < due:
        return None
    why = why_not_started(situation, attempt, job, now)
    noted = failure(FailureClass.UNSCHEDULABLE, StopReason.UNSCHEDULABLE.value, why)
    return stop_attempt(situation, attempt, job, StopReason.UNSCHEDULABLE, noted, now)
