"""An attempt that goes on as it should: what people see of it, and when to look again."""

from __future__ import annotations

from datetime import datetime

from tollgate.api.training_run import Attempt, ConditionType, Phase
from tollgate_operator.decision import Decision, EmitEvent
from tollgate_operator.facts import JobFacts
from tollgate_operator.runs.ledgering import next_lost_at
from tollgate_operator.runs.observing import progress_of
from tollgate_operator.runs.policies.limits import stop_due
from tollgate_operator.runs.policies.scheduling import all_bound, all_started, scheduling_due, why_not_started
from tollgate_operator.runs.policies.stall import deadlines
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.status import Told, tell


def running(situation: Situation, now: datetime) -> Decision | None:
    """Queued, Pending, Starting, Running or Evaluating; come back at the next deadline."""
    attempt = situation.current
    job = situation.job_of(attempt) if attempt is not None else None
    if attempt is None or job is None:
        return None
    phase, message = _going(situation, attempt, job)
    conditions = _conditions(situation, attempt, job)
    events: tuple[EmitEvent, ...] = ()
    if phase is Phase.RUNNING and situation.status.phase is not Phase.RUNNING:
        events = (EmitEvent("Normal", "Running", f"attempt {attempt.number} made its first step"),)
    return Decision(
        status=tell(situation, now, phase, message, conditions),
        requeue_after=_next_deadline(situation, attempt, job, now),
        events=events,
    )


def _going(situation: Situation, attempt: Attempt, job: JobFacts) -> tuple[Phase, str]:
    if attempt.role == "evaluate":
        started = all_started(situation, attempt)
        return Phase.EVALUATING, "evaluates the model" if started else why_not_started(situation, attempt)
    if job.suspend:
        return Phase.QUEUED, f"waits in queue {situation.queue}" if situation.queue else "its Job is suspended"
    if attempt.first_step_time is not None:
        return Phase.RUNNING, _at_work(situation, attempt)
    if all_bound(situation, attempt):
        starting = "loads" if all_started(situation, attempt) else why_not_started(situation, attempt)
        return Phase.STARTING, starting
    return Phase.PENDING, why_not_started(situation, attempt)


def _at_work(situation: Situation, attempt: Attempt) -> str:
    progress = situation.status.progress
    if progress is None:
        return f"attempt {attempt.number} runs"
    of = f" of {progress.total_steps}" if progress.total_steps is not None else ""
    loss = f", loss {progress.loss:.4g}" if progress.loss is not None else ""
    return f"step {progress.step}{of}{loss}"


def _conditions(situation: Situation, attempt: Attempt, job: JobFacts) -> list[Told]:
    told = [
        Told(ConditionType.ADMITTED, "False", "Queued", f"waits in queue {situation.queue or 'of somebody else'}")
        if job.suspend
        else Told(ConditionType.ADMITTED, "True", "Admitted" if situation.queue else "NoQueue")
    ]
    if attempt.role == "evaluate":
        return told
    if attempt.first_step_time is not None:
        told.append(Told(ConditionType.RUNNING, "True", "FirstStep"))
    progress = progress_of(situation, attempt)
    if progress is not None:
        told.append(
            Told(ConditionType.PROGRESSING, "True", "Scraped")
            if progress.ok
            else Told(ConditionType.PROGRESSING, "Unknown", "ScrapeFailed", progress.error)
        )
    return told


def _next_deadline(situation: Situation, attempt: Attempt, job: JobFacts, now: datetime) -> float | None:
    times = [stop_due(situation, now), scheduling_due(situation, attempt, job)]
    times += [due for due, _ in deadlines(situation, attempt)]
    times.append(next_lost_at(situation, attempt))
    left = [(at - now).total_seconds() for at in times if at is not None]
    return max(min(left), 0.0) if left else None
