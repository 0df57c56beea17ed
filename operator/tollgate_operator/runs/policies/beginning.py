"""Nothing goes on and nothing forbids it: training starts, or the run says which limit it waits for."""

from __future__ import annotations

from datetime import datetime

from tollgate.api.training_run import Phase
from tollgate.contract import Role, StopReason
from tollgate.limits.refusal import Refusal
from tollgate_operator.decision import Decision, EmitEvent, Look
from tollgate_operator.runs.admission import claims_refusal
from tollgate_operator.runs.policies.acceptance import LOOK_AGAIN
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.starting import held_up, reservation, start
from tollgate_operator.runs.status import refused, stopped
from tollgate_operator.runs.terms import terms
from tollgate_operator.runs.waits import moment


def suspended(situation: Situation, now: datetime) -> Decision | None:
    """A person wants the run to rest."""
    if situation.current is not None or not situation.spec.suspend:
        return None
    last = situation.last(Role.TRAIN)
    at = situation.status.checkpoint
    since = f"rests since {moment(last.end_time)}" if last is not None and last.end_time else "nothing was started"
    where = f" with a checkpoint of step {at.step}" if at is not None else ""
    message = f"{since}{where}; set spec.suspend to false to go on"
    status = stopped(situation, now, Phase.SUSPENDED, StopReason.SUSPENDED.value, message)
    return Decision(status=status)


def beginning(situation: Situation, now: datetime) -> Decision | None:
    """The intent of the next training attempt, after everything that it rests on was asked live."""
    if situation.current is not None or situation.trained:
        return None
    agreed = terms(situation, Role.TRAIN)
    if isinstance(agreed, Refusal):
        raise AssertionError(f"the policy acceptance comes before and refuses: {agreed.message}")
    reserved = reservation(situation, agreed, now)
    if isinstance(reserved, Refusal):
        status = stopped(situation, now, Phase.STOPPED, reserved.reason, reserved.message)
        return Decision(status=status, events=(EmitEvent("Warning", reserved.reason, reserved.message),))
    if not situation.live or situation.claims is None or situation.foreign_pods is None:
        return Decision(look=frozenset({Look.CHILDREN, Look.CLAIMS, Look.OUTPUT}))
    if found := claims_refusal(situation, situation.claims):
        event = EmitEvent("Warning", found.reason, found.message)
        status = refused(situation, now, found.reason, found.message)
        return Decision(status=status, requeue_after=LOOK_AGAIN, events=(event,))
    if (wait := held_up(situation, now)) is not None:
        return wait
    return start(situation, agreed, reserved, now)
