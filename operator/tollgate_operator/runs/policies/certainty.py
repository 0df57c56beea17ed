"""A store proves presence, never absence: what rests on something not being there is asked of the API server first."""

from __future__ import annotations

from datetime import datetime

from tollgate.api.training_run import Attempt
from tollgate.limits.ledger import is_closed
from tollgate_operator.decision import Decision, Look
from tollgate_operator.runs.ledgering import all_seen, suspended_after_start
from tollgate_operator.runs.situation import Situation


def certainty(situation: Situation, now: datetime) -> Decision | None:
    """Look at Jobs and pods live before a create, before `gone` and before `lost`."""
    if situation.live or (situation.terminal and all(is_closed(a) for a in situation.status.attempts)):
        return None
    if any(_uncertain(situation, attempt) for attempt in situation.status.attempts if not is_closed(attempt)):
        return Decision(look=frozenset({Look.CHILDREN}))
    return None


def _uncertain(situation: Situation, attempt: Attempt) -> bool:
    job, pods = situation.job_of(attempt), situation.pods_of(attempt)
    if job is None and attempt.outcome is None:
        return True
    known = {pod.uid for pod in pods}
    vanished = any(c.end is None and c.uid not in known for c in attempt.pods or [])
    if job is None:
        return vanished
    settled = job.finished is not None or job.decided is not None or job.stop_reason is not None
    ended = job.finished is not None or suspended_after_start(attempt, job)
    unseen = any(not pod.over for pod in pods) or not all_seen(job, pods)
    return (settled and vanished) or (ended and unseen) or suspended_after_start(attempt, job)
