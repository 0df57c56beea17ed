"""An attempt that goes on as it should: what people see of it, and when to look again."""

from __future__ import annotations

from datetime import datetime

from tollgate.api.meta import find_condition
from tollgate.api.quantities import format_duration
from tollgate.api.training_run import Attempt, ConditionType, Phase
from tollgate_operator.decision import Decision, EmitEvent, Look
from tollgate_operator.facts import JobFacts
from tollgate_operator.runs.ledgering import next_lost_at
from tollgate_operator.runs.observing import progress_of
from tollgate_operator.runs.policies.limits import stop_due
from tollgate_operator.runs.policies.stall import deadlines
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.status import Told, tell
from tollgate_operator.runs.terms import evaluation_of
from tollgate_operator.runs.waits import (
    HINDRANCES,
    PODS_NOT_MADE,
    all_bound,
    all_started,
    hindrance,
    moment,
    pods_due,
    queued,
    scheduling_due,
    wait,
)


def running(situation: Situation, now: datetime) -> Decision | None:
    """Queued, Pending, Starting, Running or Evaluating; come back at the next deadline."""
    attempt = situation.current
    job = situation.job_of(attempt) if attempt is not None else None
    if attempt is None or job is None:
        return None
    phase, message = _going(situation, attempt, job, now)
    hindered = _hindered(situation, attempt, job, now)
    if not situation.live and any(told.reason == PODS_NOT_MADE and _is_news(situation, told) for told in hindered):
        return Decision(look=frozenset({Look.CHILDREN}))  # a store proves presence, never absence
    conditions = [*_conditions(situation, attempt, job), *hindered]
    events = tuple(EmitEvent("Warning", told.reason, told.message) for told in hindered if _is_news(situation, told))
    if phase is Phase.RUNNING and situation.status.phase is not Phase.RUNNING:
        events = (EmitEvent("Normal", "Running", f"attempt {attempt.number} made its first step"),)
    return Decision(
        status=tell(situation, now, phase, message, conditions),
        requeue_after=_next_deadline(situation, attempt, job, now),
        events=events,
    )


def _going(situation: Situation, attempt: Attempt, job: JobFacts, now: datetime) -> tuple[Phase, str]:
    if job.suspend:
        phase = Phase.QUEUED if attempt.role == "train" else Phase.EVALUATING
        return phase, queued(situation, attempt, job)
    if attempt.role == "evaluate":
        started = all_started(situation, attempt)
        return Phase.EVALUATING, _evaluates(situation, attempt) if started else wait(situation, attempt, job, now)
    if attempt.first_step_time is not None:
        return Phase.RUNNING, _at_work(situation, attempt)
    if all_bound(situation, attempt):
        loading = all_started(situation, attempt)
        return Phase.STARTING, _loads(situation, attempt) if loading else wait(situation, attempt, job, now)
    return Phase.PENDING, wait(situation, attempt, job, now)


def _at_work(situation: Situation, attempt: Attempt) -> str:
    progress = situation.status.progress
    scraped = progress_of(situation, attempt)
    if progress is None:
        return f"attempt {attempt.number} trains"
    of = f" of {progress.total_steps}" if progress.total_steps is not None else ""
    loss = f", loss {progress.loss:.4g}" if progress.loss is not None else ""
    silent = scraped is not None and not scraped.ok and progress.updated_at is not None
    since = f"; its metrics do not answer since {moment(progress.updated_at)}" if silent and progress.updated_at else ""
    return f"step {progress.step}{of}{loss}{since}"


def _loads(situation: Situation, attempt: Attempt) -> str:
    """All containers run, and no step is done yet."""
    started = [pod.started_at for pod in situation.pods_of(attempt) if pod.started_at is not None]
    if not started:
        return "loads the model and the data"
    limit = format_duration(situation.spec.restart.first_step_timeout)
    return (
        f"loads the model and the data since {moment(max(started))}; the first step has to be done within {limit} "
        "(spec.restart.firstStepTimeout)"
    )


def _evaluates(situation: Situation, attempt: Attempt) -> str:
    started = [pod.started_at for pod in situation.pods_of(attempt) if pod.started_at is not None]
    since = f" since {moment(max(started))}" if started else ""
    if situation.manifest is None:
        return f"evaluates the model{since}"
    timeout = format_duration(evaluation_of(situation.spec, situation.manifest.manifest).timeout)
    return f"evaluates the model{since}, for at most {timeout} (spec.evaluation.timeout)"


def _conditions(situation: Situation, attempt: Attempt, job: JobFacts) -> list[Told]:
    told = [
        Told(ConditionType.ADMITTED, "False", "Queued", queued(situation, attempt, job))
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


def _hindered(situation: Situation, attempt: Attempt, job: JobFacts, now: datetime) -> list[Told]:
    """What keeps the attempt from starting stands in the condition that waits for it, and goes when it has passed."""
    kind = ConditionType.RUNNING if attempt.role == "train" else ConditionType.EVALUATED
    started = all_started(situation, attempt)
    if not job.suspend and not started and (found := hindrance(situation, attempt, job, now)) is not None:
        return [Told(kind, "False", found.reason, found.message)]
    old = find_condition(situation.status.conditions, kind)
    passed = old is not None and old.status == "False" and old.reason in HINDRANCES
    return [Told(kind, "False", "Starting")] if passed and attempt.first_step_time is None else []


def _is_news(situation: Situation, told: Told) -> bool:
    old = find_condition(situation.status.conditions, told.type)
    return told.reason in HINDRANCES and (old is None or old.reason != told.reason)


def _next_deadline(situation: Situation, attempt: Attempt, job: JobFacts, now: datetime) -> float | None:
    times = [stop_due(situation, now), scheduling_due(situation, attempt, job)]
    late = pods_due(situation, attempt, job)
    times.append(late if late is not None and late > now else None)
    times += [due for due, _ in deadlines(situation, attempt)]
    times.append(next_lost_at(situation, attempt))
    left = [(at - now).total_seconds() for at in times if at is not None]
    return max(min(left), 0.0) if left else None
