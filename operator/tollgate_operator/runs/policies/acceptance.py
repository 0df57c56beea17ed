"""A run that cannot be started as it stands says why, and how to mend it."""

from __future__ import annotations

from datetime import datetime

from tollgate.api.training_run import ConditionType
from tollgate.contract import Role
from tollgate_operator.decision import Decision, EmitEvent, Look
from tollgate_operator.runs.admission import refusal
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.status import Told, accepted, failed, refused, tell
from tollgate_operator.runs.terms import Terms, terms

LOOK_AGAIN = 60.0
_LATE = frozenset({"ProfileUnknown", "PolicyUnknown", "BaselineUnknown"})


def admit(situation: Situation, now: datetime) -> Situation:
    """The situation with the run accepted and its manifest pinned, if nothing is wrong with it."""
    if not _is_asked(situation) or refusal(situation) is not None or situation.manifest is None:
        return situation
    agreed = terms(situation, Role.TRAIN)
    status = accepted(situation, now, priced=isinstance(agreed, Terms) and agreed.rate.per_hour is not None)
    return situation.with_status(status.model_copy(update={"manifest_digest": situation.manifest.digest}))


def acceptance(situation: Situation, now: datetime) -> Decision | None:
    """Refuse with a reason. Only a manifest can never be mended, because it is immutable: such a run has failed."""
    found = refusal(situation) if _is_asked(situation) else None
    if found is None:
        return None
    if found.reason in _LATE and not situation.references_live:
        return Decision(look=frozenset({Look.REFERENCES}))
    event = (EmitEvent("Warning", found.reason, found.message),)
    if found.reason == "ManifestRefused":
        told = situation.with_status(failed(situation, now, found.reason, found.message))
        not_accepted = [Told(ConditionType.ACCEPTED, "False", found.reason, found.message)]
        phase = told.status.phase
        status = tell(told, now, phase, told.status.message, not_accepted) if phase is not None else told.status
        return Decision(status=status, events=event)
    return Decision(status=refused(situation, now, found.reason, found.message), requeue_after=LOOK_AGAIN, events=event)


def _is_asked(situation: Situation) -> bool:
    """Whether the next thing that may happen to the run is that training starts."""
    return not situation.terminal and situation.current is None and not situation.trained
