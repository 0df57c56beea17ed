"""After training: the evaluation's own Job, then the verdicts. Without evidence the run succeeds and no gate passes."""

from __future__ import annotations

from datetime import datetime, timedelta

from tollgate.api.training_run import Attempt, AttemptOutcome, ConditionType, EvaluationState, EvaluationStatus
from tollgate.contract import FailureClass, Role, StopReason
from tollgate.limits.refusal import Refusal
from tollgate_operator.decision import Decision, EmitEvent, Look
from tollgate_operator.runs.policies.restart import described
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.starting import held_up, reservation, start
from tollgate_operator.runs.status import Told, succeeded
from tollgate_operator.runs.terms import evaluation_of, terms
from tollgate_operator.runs.verdicts import judged, sentence

MAX_ATTEMPTS = 3
_PAUSE = timedelta(seconds=5)


def evaluation(situation: Situation, now: datetime) -> Decision | None:
    """Evaluate a trained model once, again only after a disruption; then the run has succeeded, whatever came of it."""
    if situation.current is not None or not situation.trained:
        return None
    if situation.manifest is None or not evaluation_of(situation.spec, situation.manifest.manifest).enabled:
        return _succeed(situation, now, EvaluationState.SKIPPED, "no evaluation was asked for")
    last = situation.last(Role.EVALUATE)
    if last is not None and last.outcome is AttemptOutcome.COMPLETED:
        evidence = situation.status.evaluation
        if evidence is not None and evidence.state is EvaluationState.SUCCEEDED:
            return _succeed(situation, now, EvaluationState.SUCCEEDED, "")
        return _succeed(situation, now, EvaluationState.FAILED, "the evaluation ended without evidence in its words")
    if last is not None and not _once_more(last):
        why = described(last.failure) if last.failure else "no cause is known"
        return _succeed(situation, now, EvaluationState.FAILED, f"the evaluation failed: {why}")
    if last is not None and last.end_time is not None and now < last.end_time + _PAUSE:
        return Decision(status=situation.status, requeue_after=(last.end_time + _PAUSE - now).total_seconds())
    agreed = terms(situation, Role.EVALUATE)
    reserved = agreed if isinstance(agreed, Refusal) else reservation(situation, agreed, now)
    if isinstance(agreed, Refusal) or isinstance(reserved, Refusal):
        refusal = agreed if isinstance(agreed, Refusal) else reserved
        why = f"{refusal.reason}: {refusal.message}" if isinstance(refusal, Refusal) else ""
        return _succeed(situation, now, EvaluationState.FAILED, f"the evaluation could not start: {why}")
    if not situation.live or situation.foreign_pods is None:
        return Decision(look=frozenset({Look.CHILDREN, Look.OUTPUT}))
    if (wait := held_up(situation, now)) is not None:
        return wait
    pending = EvaluationStatus(state=EvaluationState.RUNNING)
    told = situation.with_status(situation.status.model_copy(update={"evaluation": pending}))
    return start(told, agreed, reserved, now)


def _once_more(last: Attempt) -> bool:
    if last.outcome is AttemptOutcome.STOPPED:
        return last.stop_reason is StopReason.SUSPENDED
    passing = (FailureClass.DISRUPTION, FailureClass.UNSCHEDULABLE)
    return last.number < MAX_ATTEMPTS and last.failure is not None and last.failure.class_ in passing


def _succeed(situation: Situation, now: datetime, state: EvaluationState, message: str) -> Decision:
    status = situation.status
    if state is not EvaluationState.SUCCEEDED:
        status = status.model_copy(update={"evaluation": EvaluationStatus(state=state, message=message)})
    status = judged(situation, status)
    truth = Told(
        ConditionType.EVALUATED,
        "True" if state is EvaluationState.SUCCEEDED else "False",
        "Evaluated" if state is EvaluationState.SUCCEEDED else state.value,
        message,
    )
    text = sentence(status)
    done = succeeded(situation.with_status(status), now, text, truth)
    return Decision(status=done, events=(EmitEvent("Normal", "Succeeded", text),))
