"""What an attempt waits for before it works, in words: what, since when, until when, and what to do about it.

A sentence alone is never worth a write (settle.py), so a wait that needs somebody has a reason as well, which stands in
a condition: `Hindrance`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tollgate.api.training_run import Attempt
from tollgate_operator.facts import JobFacts, PodFacts
from tollgate_operator.runs.situation import Situation

PODS_LATE: Final = timedelta(seconds=30)
"""The Job controller makes pods in a second; where they are missing for so long, something forbids them."""

_IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_CONTAINER: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})

_ASIDE: Final = re.compile(r"\s+(no new claims to deallocate|preemption:).*", re.DOTALL)
"""What the scheduler thought of besides: taking nodes from others, which nobody can act on."""


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why the attempt does not start, when that is more than a matter of moments. `reason` is of a condition."""

    reason: str
    message: str


PODS_NOT_MADE: Final = "PodsNotMade"
HINDRANCES: Final = frozenset({"Unschedulable", "ImageNotPulled", "ContainerNotMade", PODS_NOT_MADE})
"""The reasons of a Hindrance."""


def moment(at: datetime, *, seconds: bool = False) -> str:
    """`2026-11-21 14:02 UTC`, or with seconds: a time in a sentence."""
    return f"{at.astimezone(UTC):{'%Y-%m-%d %H:%M:%S' if seconds else '%Y-%m-%d %H:%M'}} UTC"


def hindrance(situation: Situation, attempt: Attempt, job: JobFacts, now: datetime) -> Hindrance | None:
    """What keeps the first pod that has not started; None: nothing that does not pass by itself."""
    pod = _first_waiting(situation, attempt)
    if pod is None:
        due = pods_due(situation, attempt, job)
        return None if due is None or now < due else Hindrance(PODS_NOT_MADE, _pods_missing(situation, attempt, job))
    if not pod.node:
        return Hindrance("Unschedulable", _no_node(pod)) if pod.unschedulable else None
    said = f"({pod.waiting_reason}){': ' if pod.waiting_message else ''}{pod.waiting_message}"
    if pod.waiting_reason in _IMAGE:
        return Hindrance(
            "ImageNotPulled",
            f"the image of pod {pod.name} cannot be pulled {said}; the platform admin mends spec.image of the "
            "ComputeProfile or the node's access to the registry",
        )
    if pod.waiting_reason in _CONTAINER:
        return Hindrance("ContainerNotMade", f"the container of pod {pod.name} cannot be made {said}")
    return None


def why_not_started(situation: Situation, attempt: Attempt, job: JobFacts, now: datetime) -> str:
    """What the first member that has not started waits for."""
    found = hindrance(situation, attempt, job, now)
    return _of_gang(situation, attempt) + (found.message if found else _passing(situation, attempt))


def wait(situation: Situation, attempt: Attempt, job: JobFacts, now: datetime) -> str:
    """The same with its times: `waits since ... for ...; gives up at ..., and tries again later`."""
    since = job.start_time or attempt.intent_time
    text = f"waits since {moment(since)}: " if since else "waits: "
    text += why_not_started(situation, attempt, job, now)
    if (due := scheduling_due(situation, attempt, job)) is not None:
        text += f". It gives its nodes back at {moment(due)} (spec.restart.schedulingTimeout) and tries again later"
    return text


def queued(situation: Situation, attempt: Attempt, job: JobFacts | None) -> str:
    """An attempt whose Job is suspended: by a queue, or by somebody else."""
    since = (job.created if job else None) or attempt.intent_time
    begun = f" since {moment(since)}" if since else ""
    if situation.queue:
        return f"waits in queue {situation.queue}{begun} until it is admitted; nothing is spent meanwhile"
    name = situation.job_name(attempt)
    return f"Job {name} is suspended by somebody else; it waits{begun} until its spec.suspend is false"


def scheduling_due(situation: Situation, attempt: Attempt, job: JobFacts) -> datetime | None:
    """When the gang has to have started; None when it has, or when its Job has not (it waits in a queue)."""
    if job.suspend or job.start_time is None or all_started(situation, attempt):
        return None
    return job.start_time + timedelta(seconds=situation.spec.restart.scheduling_timeout)


def pods_due(situation: Situation, attempt: Attempt, job: JobFacts) -> datetime | None:
    """When missing pods are worth a word; None when none are missing."""
    if job.suspend or job.start_time is None or all_made(situation, attempt):
        return None
    return job.start_time + PODS_LATE


def all_made(situation: Situation, attempt: Attempt) -> bool:
    """Whether every member has a pod."""
    return len({pod.index for pod in situation.pods_of(attempt)}) >= situation.gang_size(attempt)


def all_started(situation: Situation, attempt: Attempt) -> bool:
    """Whether every member's container started."""
    started = {pod.index for pod in situation.pods_of(attempt) if pod.started_at is not None or pod.over}
    return len(started) >= situation.gang_size(attempt)


def all_bound(situation: Situation, attempt: Attempt) -> bool:
    """Whether every member has a node."""
    bound = {pod.index for pod in situation.pods_of(attempt) if pod.node or pod.over}
    return len(bound) >= situation.gang_size(attempt)


def _first_waiting(situation: Situation, attempt: Attempt) -> PodFacts | None:
    waiting = [pod for pod in situation.pods_of(attempt) if pod.started_at is None and not pod.over]
    # One that says what it misses tells more than the first of those that only wait for the others.
    return next((pod for pod in waiting if pod.unschedulable or pod.waiting_reason in _IMAGE | _CONTAINER), None) or (
        waiting[0] if waiting else None
    )


def _of_gang(situation: Situation, attempt: Attempt) -> str:
    size = situation.gang_size(attempt)
    if size == 1:
        return ""
    started = sum(1 for pod in situation.pods_of(attempt) if pod.started_at is not None or pod.over)
    return f"{started} of {size} pods have started; "


def _passing(situation: Situation, attempt: Attempt) -> str:
    pod = _first_waiting(situation, attempt)
    if pod is None:
        return "its pods are being made"
    if not pod.node:
        return f"pod {pod.name} has no node yet"
    if pod.waiting_reason in ("", "ContainerCreating", "PodInitializing"):
        return f"pod {pod.name} starts on node {pod.node} (its image is pulled, its volumes are mounted)"
    return f"pod {pod.name} starts on node {pod.node} ({pod.waiting_reason} {pod.waiting_message}".rstrip() + ")"


def _no_node(pod: PodFacts) -> str:
    return f"no node takes pod {pod.name}: {_ASIDE.sub('', pod.unschedulable).rstrip('. ')}"


def _pods_missing(situation: Situation, attempt: Attempt, job: JobFacts) -> str:
    made = len({pod.index for pod in situation.pods_of(attempt)})
    return (
        f"{made} of {situation.gang_size(attempt)} pods could be made; a quota or an admission rule may forbid the "
        f"others: see the events of `kubectl describe job {job.name}`"
    )
