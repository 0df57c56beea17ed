"""What follows a failed attempt: the end of the run, a wait, or the next attempt."""

from __future__ import annotations

from datetime import datetime, timedelta

from tollgate.api.training_run import Attempt, AttemptOutcome, ConditionType, Failure, Phase
from tollgate.contract import MAX_REPLANS, FailureClass, FailureReason, Role
from tollgate_operator.decision import Decision, EmitEvent
from tollgate_operator.runs.counting import Counts, count
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.status import Told, failed, tell
from tollgate_operator.runs.waits import moment

MAX_NON_FINITE = 1


def restart(situation: Situation, now: datetime) -> Decision | None:
    """Fail the run when the class or its count says so; else wait for the backoff, and let the next policy start."""
    last = situation.last(Role.TRAIN)
    if last is None or last.outcome not in (AttemptOutcome.FAILED, AttemptOutcome.LOST) or last.failure is None:
        return None
    counts = count(situation.status)
    cause = last.failure
    why = _gives_up(situation, cause, counts)
    where = described(cause)
    if why is not None:
        message = f"attempt {last.number}: {where}. {why}"
        return Decision(
            status=failed(situation, now, cause.reason, message), events=(EmitEvent("Warning", "Failed", message),)
        )
    at = due_at(last, cause, counts)
    if now < at:
        message = f"attempt {last.number}: {where}; attempt {last.number + 1} starts at {moment(at, seconds=True)}"
        conditions = [Told(ConditionType.RUNNING, "False", cause.reason)]
        return Decision(
            status=tell(situation, now, Phase.PENDING, message, conditions),
            requeue_after=(at - now).total_seconds(),
            events=(EmitEvent("Warning", "Restarting", message),) if situation.holds(ConditionType.RUNNING) else (),
        )
    return None


def described(cause: Failure) -> str:
    """`NonFinite (Application, pod x, node y, rank 3, exit code 70): message`."""
    parts = [
        cause.class_.value,
        f"pod {cause.pod}" if cause.pod else "",
        f"node {cause.node}" if cause.node else "",
        f"rank {cause.rank}" if cause.rank is not None else "",
        f"exit code {cause.exit_code}" if cause.exit_code is not None else "",
    ]
    message = f": {cause.message}" if cause.message else ""
    return f"{cause.reason} ({', '.join(part for part in parts if part)}){message}"


def due_at(last: Attempt, cause: Failure, counts: Counts) -> datetime:
    """When the next attempt may start: a pause that doubles while the same kind of end repeats."""
    ended = last.end_time or last.intent_time or datetime.min
    return ended + timedelta(seconds=_pause(cause, counts.in_a_row))


def _pause(cause: Failure, in_a_row: int) -> float:
    repeats = max(in_a_row - 1, 0)
    if cause.reason in (FailureReason.OUT_OF_MEMORY, FailureReason.NON_FINITE):
        return 0.0  # the next attempt runs on another plan, or is the only one that is given
    if cause.class_ is FailureClass.DISRUPTION:
        return 0.0 if repeats == 0 else min(5.0 * 2.0 ** min(repeats - 1, 10), 300.0)
    if cause.class_ is FailureClass.UNSCHEDULABLE:
        return min(60.0 * 2.0 ** min(repeats, 10), 1800.0)
    return min(10.0 * 2.0 ** min(repeats, 10), 600.0)


def _gives_up(situation: Situation, cause: Failure, counts: Counts) -> str | None:
    allowed = situation.spec.restart
    if cause.class_ is FailureClass.USER:
        return "Trying again would change nothing; mend it and apply the run anew"
    if cause.reason == FailureReason.OUT_OF_MEMORY:
        if counts.out_of_memory <= MAX_REPLANS:
            return None
        return (
            f"The micro-batch was halved {MAX_REPLANS} times; use a larger profile, a shorter max_seq_length, "
            "gradient_checkpointing or quantization"
        )
    if cause.reason == FailureReason.NON_FINITE and counts.non_finite > MAX_NON_FINITE:
        return "It was not finite a second time; lower the learning rate or look at the data that the message names"
    if counts.failures > allowed.max_failures:
        return f"That is failure {counts.failures}, and spec.restart.maxFailures is {allowed.max_failures}"
    if counts.disruptions > allowed.max_disruptions:
        return f"That is disruption {counts.disruptions}, and spec.restart.maxDisruptions is {allowed.max_disruptions}"
    return None
