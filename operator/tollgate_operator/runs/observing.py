"""What this look adds to the status, before any rule says what to do about it.

Pods become charges, the newest words become checkpoint and model, an attempt whose pods are over gets its outcome. All
of it follows from the facts alone; it is written down only when something changed that somebody waits for (settle.py).
"""

from __future__ import annotations

import math
from datetime import datetime

from tollgate.api.quantities import Usd
from tollgate.api.training_run import (
    Attempt,
    AttemptOutcome,
    CheckpointStatus,
    Failure,
    ModelStatus,
    Progress,
    TrainingRunStatus,
)
from tollgate.contract import FailureClass, LastWords, Outcome, StopReason
from tollgate.gates.evidence import evaluation_status
from tollgate.limits.forecast import Outlook, forecast
from tollgate.limits.ledger import Folded, is_closed, rate_per_hour, spent
from tollgate.limits.stop import limit_reached
from tollgate_operator.facts import JobFacts, PodFacts, ProgressFacts
from tollgate_operator.runs.classify import LIMIT_STOPS, cause, completed, failure, words_of
from tollgate_operator.runs.ledgering import all_seen, book, charge, job_end, lost_with_node, suspended_after_start
from tollgate_operator.runs.situation import Situation, with_attempt
from tollgate_operator.runs.terms import caps_in_force, used_by_others


def observe(situation: Situation, now: datetime) -> Situation:
    """The situation with a status that knows everything which the facts tell."""
    seen = situation
    for attempt in situation.status.attempts:
        if is_closed(attempt):
            continue
        charged = charge(seen, _adopted(seen, attempt), now)
        if charged.outcome is None:
            charged = _stop_learned(seen, _progressed(seen, charged), now)
            charged = _ended(seen, charged, now)
        # Only the end itself brings news; an older attempt that waits to be booked must not speak again.
        status = _words_kept(seen, charged) if attempt.outcome is None else seen.status
        seen = seen.with_status(with_attempt(status, charged))
        charged = book(charged, _checkpoint_at(seen, charged))
        seen = seen.with_status(with_attempt(seen.status, charged))
    current = seen.current
    if current is not None and current.role == "train":
        seen = seen.with_status(seen.status.model_copy(update={"progress": _progress(seen, current, now)}))
    elif (last := seen.status.progress) is not None and last.estimated_completion is not None:
        rests = last.model_copy(update={"estimated_completion": None})
        seen = seen.with_status(seen.status.model_copy(update={"progress": rests}))
    if seen.status.start_time is None and (starts := [a.start_time for a in seen.status.attempts if a.start_time]):
        seen = seen.with_status(seen.status.model_copy(update={"start_time": min(starts)}))
    return seen


def over(situation: Situation, attempt: Attempt, now: datetime) -> bool:
    """Whether no pod of the attempt lives any more, as far as can be known: nothing of it can spend or commit."""
    job, pods = situation.job_of(attempt), situation.pods_of(attempt)
    if job is not None and job.finished is not None:
        return situation.live or (all_seen(job, pods) and all(pod.over for pod in pods))
    if job_end(situation, attempt, job, now) is not None:
        return True
    if job is None:
        return False
    left = [pod for pod in pods if not pod.over]
    stopped = job.decided is not None or job.stop_reason is not None
    return stopped and bool(left) and all(lost_with_node(situation, pod, now) for pod in left)


def _adopted(situation: Situation, attempt: Attempt) -> Attempt:
    """The attempt with the uid of its Job, also of one that is gone but whose pods were seen."""
    if attempt.job_uid is not None:
        return attempt
    job = situation.job_of(attempt)
    pods = [p for p in situation.pods if p.job_uid and p.attempt == attempt.number and p.role == attempt.role]
    uid = job.uid if job is not None else pods[-1].job_uid if pods else None
    return attempt.model_copy(update={"job_uid": uid})


def _stop_learned(situation: Situation, attempt: Attempt, now: datetime) -> Attempt:
    """The attempt with the stop that only its Job tells of: whoever made it died before writing it to the status.

    The limit that made it is not on the Job. If the limits as they are now would have stopped the attempt as well, it
    was they; else they were raised since, and the limit of the stop stays unknown (absent), which any limit exceeds.
    """
    job = situation.job_of(attempt)
    if job is None or job.stop_reason is None or attempt.stop_reason is not None:
        return attempt
    learned = attempt.model_copy(update={"stop_reason": job.stop_reason})
    if job.stop_reason not in (StopReason.BUDGET, StopReason.RUNTIME, StopReason.EVALUATION_TIMEOUT):
        return learned
    limit, reserve = caps_in_force(situation, attempt)
    pods = attempt.pods or []
    running = attempt.model_copy(update={"pods": [pod.model_copy(update={"end": None}) for pod in pods]})
    ended = max((pod.end or now for pod in pods), default=now)
    others = used_by_others(situation, attempt, attempt.role, now)
    same = limit_reached(limit, running, others, reserve, ended) is not None
    return learned.model_copy(
        update={
            "limit_usd": _usd(limit.cost) if same else None,
            "limit_seconds": limit.runtime if same else None,
        }
    )


def _usd(micro: int | None) -> int | None:
    return None if micro is None else Usd(micro)


def _progressed(situation: Situation, attempt: Attempt) -> Attempt:
    progress = progress_of(situation, attempt)
    if progress is None or attempt.first_step_time is not None or not progress.step:
        return attempt
    resumed = situation.status.checkpoint.step if situation.status.checkpoint and attempt.number > 1 else 0
    if progress.step <= resumed:
        return attempt
    return attempt.model_copy(update={"first_step_time": progress.last_progress or progress.scraped_at})


def progress_of(situation: Situation, attempt: Attempt) -> ProgressFacts | None:
    """The last scrape, if it was of a pod of this attempt."""
    progress = situation.progress
    if progress is None or attempt.role != "train":
        return None
    return progress if progress.pod_uid in {pod.uid for pod in situation.pods_of(attempt)} else None


def _ended(situation: Situation, attempt: Attempt, now: datetime) -> Attempt:
    """The attempt with its outcome, once nothing of it lives."""
    if not over(situation, attempt, now):
        return attempt
    job, pods = situation.job_of(attempt), situation.pods_of(attempt)
    reason = attempt.stop_reason or (job.stop_reason if job else None)
    outcome, found, reason = _outcome(situation, attempt, job, pods, reason)
    ends = [c.end for c in attempt.pods or [] if c.end is not None]
    proven = job_end(situation, attempt, job, now)
    return attempt.model_copy(
        update={
            "outcome": outcome,
            "failure": found,
            "stop_reason": reason,
            "end_time": proven or max(ends, default=now),
        }
    )


def _outcome(
    situation: Situation,
    attempt: Attempt,
    job: JobFacts | None,
    pods: tuple[PodFacts, ...],
    reason: StopReason | None,
) -> tuple[AttemptOutcome, Failure | None, StopReason | None]:
    if completed(pods, situation.gang_size(attempt), job) is not None:
        return AttemptOutcome.COMPLETED, None, reason
    if job is not None and job.condition("Complete"):
        unread = failure(
            FailureClass.DISRUPTION,
            "ResultUnread",
            "the pods did their work and were gone before anybody read their last words; the next attempt finds the "
            "result on the volume and reports it",
        )
        return AttemptOutcome.LOST, unread, reason
    if reason in LIMIT_STOPS:
        return AttemptOutcome.STOPPED, _limit(reason, attempt), reason
    stopped_at = _stopped_at(job)
    found = cause(pods, job, stopped_at, attempt.failure)
    if reason is not None and reason is not StopReason.GANG:
        return AttemptOutcome.FAILED, _by_operator(reason, attempt.failure or found), reason
    if job is None and (found is None or found.class_ is FailureClass.DISRUPTION):
        gone = f"Job {situation.job_name(attempt)} was deleted"
        return (
            AttemptOutcome.LOST,
            failure(FailureClass.DISRUPTION, "JobDeleted", gone),
            reason,
        )
    if job is not None and suspended_after_start(attempt, job):
        text = "the Job was suspended by somebody else after it had started"
        return (
            AttemptOutcome.FAILED,
            failure(FailureClass.DISRUPTION, "SuspendedByAnother", text),
            reason,
        )
    if found is None:
        found = failure(FailureClass.DISRUPTION, "PodsLost", "no pod of the Job was seen to end")
    if found.class_ is FailureClass.LIMIT:
        return _limit_outcome(attempt, found)
    return AttemptOutcome.FAILED, found, reason


def _limit_outcome(attempt: Attempt, found: Failure) -> tuple[AttemptOutcome, Failure, StopReason | None]:
    """A limit that the launcher, the kubelet or the Job controller kept, without the operator."""
    if found.reason in tuple(StopReason):
        reason = StopReason(found.reason)
    elif attempt.start_time is None:
        message = "the gang was not placed before the Job's deadline"
        late = found.model_copy(update={"class_": FailureClass.UNSCHEDULABLE, "message": message})
        return AttemptOutcome.FAILED, late, StopReason.UNSCHEDULABLE
    else:
        reason = attempt.reserved_by or StopReason.RUNTIME
    if reason is StopReason.EVALUATION_TIMEOUT:
        return AttemptOutcome.FAILED, _by_operator(reason, found), reason
    return AttemptOutcome.STOPPED, found.model_copy(update={"reason": reason.value}), reason


def _limit(reason: StopReason | None, attempt: Attempt) -> Failure:
    noted = attempt.failure.message if attempt.failure else ""
    return failure(FailureClass.LIMIT, (reason or StopReason.RUNTIME).value, noted)


def _by_operator(reason: StopReason, noted: Failure | None) -> Failure:
    classes = {
        StopReason.STALLED: FailureClass.STALL,
        StopReason.UNSCHEDULABLE: FailureClass.UNSCHEDULABLE,
        StopReason.EVALUATION_TIMEOUT: FailureClass.LIMIT,
    }
    class_ = classes.get(reason, FailureClass.DISRUPTION)
    if noted is not None and noted.class_ is class_:
        return noted.model_copy(update={"reason": reason.value})
    return failure(class_, reason.value)


def _stopped_at(job: JobFacts | None) -> datetime | None:
    if job is None:
        return None
    return min((t for t in (job.decided.at if job.decided else None, job.deleting) if t is not None), default=None)


def _newest_words(situation: Situation, attempt: Attempt) -> LastWords | None:
    """Rank 0's words if it left any, else those of the lowest index that did."""
    for pod in situation.pods_of(attempt):
        if (words := words_of(pod)) is not None:
            return words
    return None


def _words_kept(situation: Situation, attempt: Attempt) -> TrainingRunStatus:
    """The status with what the last words report: the newest checkpoint, the model when it is done, the evidence."""
    status = situation.status
    words = _newest_words(situation, attempt) if attempt.outcome is not None else None
    if words is None:
        return status
    if attempt.role == "evaluate":
        if words.outcome is not Outcome.COMPLETED or words.evaluation is None:
            return status
        return status.model_copy(update={"evaluation": evaluation_status(words.evaluation)})
    update: dict[str, object] = {}
    if (saved := words.checkpoint) is not None and (
        status.checkpoint is None or saved.saved_at >= status.checkpoint.saved_at
    ):
        update["checkpoint"] = CheckpointStatus(
            step=saved.step, path=saved.path, digest=saved.digest, saved_at=saved.saved_at
        )
    if words.outcome is Outcome.COMPLETED and words.model is not None:
        update["model"] = ModelStatus(path=words.model.path, digest=words.model.digest)
    if words.step is not None:
        old = status.progress or Progress()
        update["progress"] = old.model_copy(
            update={
                "step": words.step,
                "total_steps": words.total_steps if words.total_steps is not None else old.total_steps,
                "epoch": _finite(words.epoch) if words.epoch is not None else old.epoch,
                "loss": _finite(words.loss) if words.loss is not None else old.loss,
                "updated_at": words.ended_at or attempt.end_time,
                "estimated_completion": None,
            }
        )
    return status.model_copy(update=update)


def _checkpoint_at(situation: Situation, attempt: Attempt) -> datetime | None:
    """When the attempt's newest committed checkpoint was saved; None: it saved none that anybody told of."""
    words = _newest_words(situation, attempt)
    progress = progress_of(situation, attempt)
    told = [
        words.checkpoint.saved_at if words and words.checkpoint else None,
        progress.checkpoint_at if progress else None,
    ]
    began = attempt.start_time
    return max((t for t in told if t is not None and (began is None or t >= began)), default=None)


def _progress(situation: Situation, attempt: Attempt, now: datetime) -> Progress | None:
    """The progress as the last good scrape told it, with the outlook; the old one when this attempt has none."""
    scraped = progress_of(situation, attempt)
    old = situation.status.progress
    if scraped is None or scraped.step is None:
        return old
    outlook = outlook_of(situation, now)
    return Progress(
        step=scraped.step,
        total_steps=scraped.total_steps,
        epoch=_finite(scraped.epoch),
        loss=_finite(scraped.loss),
        tokens_per_second=_finite(scraped.tokens_per_second),
        updated_at=scraped.scraped_at if scraped.ok else (old.updated_at if old else None),
        # People read it in a column, and it is no better than to the second.
        estimated_completion=outlook.completion_p50.replace(microsecond=0) if outlook else None,
    )


def outlook_of(situation: Situation, now: datetime) -> Outlook | None:
    """Where the run is heading, if its pace is known."""
    progress, cost = situation.progress, situation.status.cost
    if progress is None or not progress.seen:
        return None
    attempts = situation.status.attempts
    used = spent(attempts, now, Folded.of(situation.status))
    return forecast(
        progress.seen,
        progress.total_steps,
        None if used.unknown_pods else used.micro,
        rate_per_hour(attempts),
        (cost.evaluation_reserve_usd if cost else None) or 0,
        now,
    )


def _finite(value: float | None) -> float | None:
    # JSON has no NaN; a loss that is not finite is absent here, and the trainer's words say so.
    return value if value is not None and math.isfinite(value) else None
