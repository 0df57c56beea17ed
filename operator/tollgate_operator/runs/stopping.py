"""Stops: one patch of the Job, the reason noted in the status; or nothing at all when no Job ever ran."""

from __future__ import annotations

from datetime import datetime

from tollgate.api.quantities import Usd, format_duration
from tollgate.api.training_run import Attempt, AttemptOutcome, Failure, Phase
from tollgate.contract import FailureClass, StopReason
from tollgate.limits.stop import limit_reached
from tollgate_operator.decision import Decision, DeleteJob, EmitEvent, StopJob
from tollgate_operator.facts import JobFacts
from tollgate_operator.runs.classify import LIMIT_STOPS, failure
from tollgate_operator.runs.situation import Situation, with_attempt
from tollgate_operator.runs.status import tell
from tollgate_operator.runs.terms import caps_in_force, used_by_others
from tollgate_operator.runs.waits import moment


def end_job(job: JobFacts, reason: StopReason) -> StopJob | DeleteJob:
    """A Job that never started is deleted, for there is nothing to stop; any other is stopped, so that it can save."""
    if job.suspend or job.start_time is None:
        return DeleteJob(job.namespace, job.name, job.uid)
    return StopJob(job.namespace, job.name, job.uid, reason)


def stop_attempt(
    situation: Situation, attempt: Attempt, job: JobFacts, reason: StopReason, noted: Failure, now: datetime
) -> Decision:
    """The Job is stopped at once; the status says why."""
    update: dict[str, object] = {"stop_reason": reason, "failure": noted, "job_uid": job.uid}
    if reason in LIMIT_STOPS or reason is StopReason.EVALUATION_TIMEOUT:
        limit, _ = caps_in_force(situation, attempt)
        update["limit_usd"] = None if limit.cost is None else Usd(limit.cost)
        update["limit_seconds"] = limit.runtime
    told = situation.with_status(with_attempt(situation.status, attempt.model_copy(update=update)))
    message = f"stops attempt {attempt.number} at {moment(now)}: {noted.reason}"
    message += f" ({noted.message})" if noted.message else ""
    trains = attempt.role == "train" and attempt.first_step_time is not None
    if attempt.grace_seconds and trains and isinstance(end_job(job, reason), StopJob):
        message += f"; its pods have {format_duration(attempt.grace_seconds)} to save a checkpoint"
    return Decision(
        before=(end_job(job, reason),),
        status=tell(told, now, Phase.STOPPING, message),
        events=(EmitEvent("Warning" if reason is not StopReason.SUSPENDED else "Normal", "Stopping", message),),
    )


def withdraw(situation: Situation, now: datetime) -> Situation:
    """An intent that nobody wants any more, and whose Job was never created, is closed: it cost nothing."""
    attempt = situation.current
    if attempt is None or attempt.job_uid is not None or not situation.live or situation.job_of(attempt) is not None:
        return situation
    found = unwanted(situation, attempt, now)
    if found is None:
        return situation
    limit, _ = caps_in_force(situation, attempt)
    closed = attempt.model_copy(
        update={
            "outcome": AttemptOutcome.STOPPED,
            "stop_reason": StopReason(found.reason),
            "failure": found,
            "end_time": now,
            "cost_usd": Usd(0),
            "pod_seconds": 0.0,
            "run_seconds": 0.0,
            "lost_seconds": 0.0,
            "unknown_pods": 0,
            "by_category": {},
            "limit_usd": None if limit.cost is None else Usd(limit.cost),
            "limit_seconds": limit.runtime,
        }
    )
    return situation.with_status(with_attempt(situation.status, closed))


def unwanted(situation: Situation, attempt: Attempt, now: datetime) -> Failure | None:
    """Why this attempt has to stop by a limit or by a person's wish; None: it may go on."""
    limit, reserve = caps_in_force(situation, attempt)
    others = used_by_others(situation, attempt, attempt.role, now)
    if reached := limit_reached(limit, attempt, others, reserve, now):
        return failure(FailureClass.LIMIT, reached.reason.value, reached.message)
    if situation.spec.suspend:
        return failure(FailureClass.LIMIT, StopReason.SUSPENDED.value, "spec.suspend is true; set it to false to go on")
    return None
