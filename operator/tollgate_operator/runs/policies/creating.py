"""An intent whose Job is not there: the Job is created, also by whoever comes after the one that wrote the intent."""

from __future__ import annotations

from datetime import datetime

from tollgate.api.training_run import ConditionType, Phase
from tollgate.limits.refusal import Refusal
from tollgate_operator.decision import Decision, Look
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.starting import agreed_terms, creation, held_up
from tollgate_operator.runs.status import Told, tell

_LOOK_AGAIN = 30.0


def creating(situation: Situation, now: datetime) -> Decision | None:
    """Create it, under the same name and reservation. A Job that was recorded and is gone was lost: never the same."""
    attempt = situation.current
    if attempt is None or situation.job_of(attempt) is not None:
        return None
    if situation.foreign_pods is None or not situation.live:
        return Decision(look=frozenset({Look.CHILDREN, Look.OUTPUT}))
    agreed = agreed_terms(situation, attempt)
    manifest = situation.manifest
    if isinstance(agreed, Refusal) or manifest is None or manifest.digest != situation.status.manifest_digest:
        why = agreed.message if isinstance(agreed, Refusal) else "spec.manifest is not the one that was accepted"
        message = f"attempt {attempt.number} cannot be created: {why}"
        phase = situation.status.phase or Phase.PENDING
        told = [Told(ConditionType.ADMITTED, "False", "NotCreated", message)]
        return Decision(status=tell(situation, now, phase, message, told), requeue_after=_LOOK_AGAIN)
    if (wait := held_up(situation, now)) is not None:
        return wait
    return Decision(status=situation.status, after=creation(situation, attempt, agreed))
