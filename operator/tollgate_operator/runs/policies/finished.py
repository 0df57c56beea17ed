"""A run that is over: its verdicts follow its policy, its children go after their time; nothing else ever changes."""

from __future__ import annotations

from datetime import datetime, timedelta

from tollgate.api.training_run import Phase, TrainingRunStatus
from tollgate.gates.evidence import policy_digest
from tollgate.limits.ledger import is_closed
from tollgate_operator.decision import Decision, DeleteJob, EmitEvent
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.status import at_end
from tollgate_operator.runs.verdicts import judged, sentence


def finished(situation: Situation, now: datetime) -> Decision | None:
    """Re-judge when the policy changed, then remove children by ttlSecondsAfterFinished."""
    if not situation.terminal:
        return None
    status = _judged_anew(situation)
    events = (
        (EmitEvent("Normal", "Judged", "the policy changed, and the gates were judged anew"),)
        if status is not situation.status
        else ()
    )
    if status is not situation.status and status.phase is Phase.SUCCEEDED:
        status = status.model_copy(update={"message": sentence(status)})
    status = at_end(situation.with_status(status), now)
    at = _remove_at(situation)
    if at is None:
        return Decision(status=status, requeue_after=_bound(situation, now), events=events)
    if now < at:
        return Decision(status=status, requeue_after=(at - now).total_seconds(), events=events)
    old = tuple(DeleteJob(j.namespace, j.name, j.uid) for j in situation.jobs if j.finished and not j.deleting)
    return Decision(before=old, status=status, events=events)


def _judged_anew(situation: Situation) -> TrainingRunStatus:
    """Verdicts stand as they were made; only another policy makes new ones, from the same evidence."""
    policy = situation.policy.spec if situation.policy else None
    if policy is None or situation.spec.policy_ref is None or situation.status.evaluation is None:
        return situation.status
    digest = policy_digest(policy)
    if situation.status.gates and all(gate.policy_digest == digest for gate in situation.status.gates):
        return situation.status
    return judged(situation, situation.status)


def _remove_at(situation: Situation) -> datetime | None:
    ttl, ended = situation.spec.ttl_seconds_after_finished, situation.status.completion_time
    if ttl is None or ended is None or not all(is_closed(a) for a in situation.status.attempts):
        return None
    return ended + timedelta(seconds=ttl)


def _bound(situation: Situation, now: datetime) -> float | None:
    """When the last pod that was lost from sight can be booked at its bound."""
    ends = [
        charge.start + timedelta(seconds=attempt.reserved_seconds)
        for attempt in situation.status.attempts
        if not is_closed(attempt) and attempt.reserved_seconds is not None
        for charge in attempt.pods or []
        if charge.end is None and charge.start is not None
    ]
    return max((min(ends) - now).total_seconds(), 1.0) if ends else None
