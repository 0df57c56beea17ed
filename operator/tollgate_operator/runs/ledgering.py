"""From pods to the charges of an attempt: what the ledger is told, and when an attempt can be booked for good."""

from __future__ import annotations

from datetime import datetime, timedelta

from tollgate.api.compute_profile import ComputeProfileSpec
from tollgate.api.meta import find_condition
from tollgate.api.training_run import Attempt, Compute, ConditionType
from tollgate.limits.ledger import PodRecord, add_unseen, all_over, close_attempt, is_closed, observe
from tollgate.limits.prices import charged_rate
from tollgate.limits.stop import grace_for
from tollgate_operator.facts import JobFacts, PodFacts
from tollgate_operator.runs.render import NODE_LOSS_SECONDS
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.terms import evaluation_of, named_profile, training_profile

POD_GC = "DeletionByPodGC"


def charge(situation: Situation, attempt: Attempt, now: datetime) -> Attempt:
    """The attempt with what its pods cost as far as is known at `now`. A booked attempt comes back untouched."""
    if is_closed(attempt):
        return attempt
    job, pods = situation.job_of(attempt), situation.pods_of(attempt)
    rate = attempt.per_hour_usd
    ended_at = job_end(situation, attempt, job, now)
    charges = observe(
        attempt.pods or [],
        [_record(situation, attempt, pod, rate) for pod in pods],
        now=now,
        reserved_seconds=attempt.reserved_seconds,
        reserved_per_hour=rate,
        job_start=job.start_time if job else attempt.start_time,
        job_end=ended_at,
        absent=absent(situation, attempt, now),
    )
    charged = attempt.model_copy(update={"pods": charges or None})
    # Only after a live look: a pod whose event is merely late would be charged twice.
    if situation.live and ended_at is not None and (existed := _existed(situation, attempt, job)):
        began = (job.start_time if job else None) or attempt.start_time or attempt.intent_time or ended_at
        charged = add_unseen(charged, existed, now=now, reserved_per_hour=rate, job_start=began, job_end=ended_at)
    starts = [c.start for c in charged.pods or [] if c.start is not None]
    return charged.model_copy(update={"start_time": min(starts)}) if starts else charged


def book(attempt: Attempt, checkpoint_at: datetime | None) -> Attempt:
    """The attempt with its sums, once it is over and all of its charges are closed; else as it is."""
    if attempt.outcome is None or is_closed(attempt) or not all_over(attempt):
        return attempt
    return close_attempt(attempt, checkpoint_at)


def job_end(situation: Situation, attempt: Attempt, job: JobFacts | None, now: datetime) -> datetime | None:
    """When it was proven that no pod of the Job lives: its Failed or Complete, or a live look that found none.

    A look proves it for a Job that is gone, and for one that was suspended after it had started. How the Job was
    deleted makes no difference: a pod object goes only when its node says that it ended, or when somebody forces it,
    and that can be done under any Job.
    """
    if job is not None and job.finished is not None:
        return job.finished.at
    known = attempt.job_uid is not None if job is None else suspended_after_start(attempt, job)
    if not known or not situation.live or any(not pod.over for pod in situation.pods_of(attempt)):
        return None
    return now


def all_seen(job: JobFacts, pods: tuple[PodFacts, ...]) -> bool:
    """Whether every pod that the Job counts as ended was seen. Its events may come before those of its pods."""
    return len(pods) >= job.failed + job.succeeded


def suspended_after_start(attempt: Attempt, job: JobFacts) -> bool:
    """Whether somebody suspended a Job that had run: its pods are deleted, and it would start anew by itself."""
    return job.suspend and job.finished is None and attempt.start_time is not None


def absent(situation: Situation, attempt: Attempt, now: datetime) -> set[str]:
    """Pods of which no end will ever be seen: gone without one, not there when asked live, or lost with their node."""
    pods = {pod.uid: pod for pod in situation.pods_of(attempt)}
    found = {
        uid for uid, pod in pods.items() if (pod.gone and not _end_known(pod)) or lost_with_node(situation, pod, now)
    }
    if situation.live:
        found |= {c.uid for c in attempt.pods or [] if c.end is None and c.uid not in pods}
    return found


def lost_with_node(situation: Situation, pod: PodFacts, now: datetime) -> bool:
    """Whether a Terminating pod is presumed lost: its node has not answered for longer than toleration and grace."""
    node = situation.node_of(pod)
    if pod.over or pod.deleting_at is None or node is None or node.ready is not False or node.ready_since is None:
        return False
    grace = pod.deletion_grace if pod.deletion_grace is not None else grace_for(None)
    return now >= lost_at(node.ready_since, grace)


def lost_at(since: datetime, grace: int) -> datetime:
    """When a pod on a node that has not answered since then is presumed lost."""
    return since + timedelta(seconds=NODE_LOSS_SECONDS + grace)


def next_lost_at(situation: Situation, attempt: Attempt) -> datetime | None:
    """When the first pod that is Terminating on a node which does not answer will be presumed lost."""
    times = [
        lost_at(node.ready_since, pod.deletion_grace if pod.deletion_grace is not None else grace_for(None))
        for pod in situation.pods_of(attempt)
        if not pod.over and pod.deleting_at is not None
        if (node := situation.node_of(pod)) is not None and node.ready is False and node.ready_since is not None
    ]
    return min(times, default=None)


def _record(situation: Situation, attempt: Attempt, pod: PodFacts, rate: int | None) -> PodRecord:
    profile, gpus = _profile(situation, attempt)
    node = situation.node_of(pod)
    per_hour = rate if profile is None else charged_rate(rate, profile, gpus, node, situation.price_book)
    return PodRecord(
        uid=pod.uid,
        name=pod.name,
        index=pod.index,
        node=pod.node or None,
        created_at=pod.created,
        scheduled_at=pod.scheduled_at,
        finished_at=pod.finished_at if pod.over else None,
        collected_at=pod.disruption_at if pod.disruption_reason == POD_GC else None,
        written_at=_heard_at(pod),
        per_hour=per_hour,
    )


def _heard_at(pod: PodFacts) -> datetime | None:
    """When the API server wrote the pod's end down, or that it will never be bound; None: it did neither."""
    if pod.phase in ("Succeeded", "Failed"):
        return pod.written_at
    unbound = pod.scheduled_at is None and not pod.node
    return pod.deleting_at if pod.gone and unbound else None


def _end_known(pod: PodFacts) -> bool:
    collected = pod.disruption_reason == POD_GC and pod.disruption_at is not None
    return (pod.over and pod.finished_at is not None) or collected or _heard_at(pod) is not None


def _existed(situation: Situation, attempt: Attempt, job: JobFacts | None) -> int:
    """How many pods the attempt certainly had, of which some may never have been seen."""
    if job is not None:
        return job.failed + job.succeeded
    admitted = find_condition(situation.status.conditions, ConditionType.ADMITTED)
    started = attempt.start_time is not None or (admitted is not None and admitted.status == "True")
    return situation.gang_size(attempt) if started else 0


def _profile(situation: Situation, attempt: Attempt) -> tuple[ComputeProfileSpec | None, int | None]:
    """The profile that the attempt's pods run on, and the GPUs per node that the run asked for."""
    if situation.manifest is None:
        return None, None
    spec, manifest = situation.spec, situation.manifest.manifest
    compute = spec.compute or Compute(profile="default")
    if attempt.role == "evaluate" and (name := evaluation_of(spec, manifest).profile) is not None:
        found, gpus = named_profile(situation.profiles, name, "spec.evaluation.profile"), None
    else:
        found, gpus = training_profile(situation.profiles, spec, manifest), compute.gpus_per_node
    return (found[1], gpus) if isinstance(found, tuple) else (None, None)
