"""All or none: a gang that lost a member is stopped at once, because the others can only wait and pay."""

from __future__ import annotations

from datetime import datetime

from tollgate.contract import StopReason
from tollgate_operator.decision import Decision
from tollgate_operator.runs.classify import first_lost
from tollgate_operator.runs.ledgering import lost_with_node
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.stopping import stop_attempt


def gang(situation: Situation, now: datetime) -> Decision | None:
    """Any pod deleted, disrupted or failed while others live. What was lost is noted as the cause."""
    attempt = situation.current
    job = situation.job_of(attempt) if attempt is not None else None
    if attempt is None or job is None:
        return None
    pods = situation.pods_of(attempt)
    lost = first_lost(pods)
    if lost is None or all(pod.over for pod in pods):
        return None
    if situation.gang_size(attempt) == 1 and not any(lost_with_node(situation, pod, now) for pod in pods):
        return None  # the Job controller ends a gang of one by itself, and the pod may still be saving
    return stop_attempt(situation, attempt, job, StopReason.GANG, lost, now)
