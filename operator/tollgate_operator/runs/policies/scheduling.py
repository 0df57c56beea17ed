"""A gang that does not get all of its nodes, or not its image, is given up before it pays for waiting."""

from __future__ import annotations

from datetime import datetime, timedelta

from tollgate.api.training_run import Attempt
from tollgate.contract import FailureClass, StopReason
from tollgate_operator.decision import Decision
from tollgate_operator.facts import JobFacts, PodFacts
from tollgate_operator.runs.classify import USER_WAITS, failure
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.stopping import stop_attempt


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
    noted = failure(FailureClass.UNSCHEDULABLE, StopReason.UNSCHEDULABLE.value, why_not_started(situation, attempt))
    return stop_attempt(situation, attempt, job, StopReason.UNSCHEDULABLE, noted, now)


def scheduling_due(situation: Situation, attempt: Attempt, job: JobFacts) -> datetime | None:
    """When the gang has to have started; None when it has, or when its Job has not (it waits in a queue)."""
    if job.suspend or job.start_time is None or all_started(situation, attempt):
        return None
    return job.start_time + timedelta(seconds=situation.spec.restart.scheduling_timeout)


def all_started(situation: Situation, attempt: Attempt) -> bool:
    """Whether every member's container started."""
    started = {pod.index for pod in situation.pods_of(attempt) if pod.started_at is not None or pod.over}
    return len(started) >= situation.gang_size(attempt)


def all_bound(situation: Situation, attempt: Attempt) -> bool:
    """Whether every member has a node."""
    bound = {pod.index for pod in situation.pods_of(attempt) if pod.node or pod.over}
    return len(bound) >= situation.gang_size(attempt)


def why_not_started(situation: Situation, attempt: Attempt) -> str:
    """What the first member that has not started waits for."""
    pods = situation.pods_of(attempt)
    size = situation.gang_size(attempt)
    waiting = next((pod for pod in pods if pod.started_at is None and not pod.over), None)
    started = sum(1 for pod in pods if pod.started_at is not None or pod.over)
    return f"{started} of {size} pods have started; {_waits_for(waiting)}"


def _waits_for(pod: PodFacts | None) -> str:
    if pod is None:
        return "the others were not created (a quota or an admission rule may forbid them; see the Job's events)"
    if pod.unschedulable:
        return f"{pod.name}: {pod.unschedulable}"
    if pod.waiting_reason:
        return f"{pod.name}: {pod.waiting_reason} {pod.waiting_message}".strip()
    return f"{pod.name} has no node yet" if not pod.node else f"{pod.name} starts on {pod.node}"
