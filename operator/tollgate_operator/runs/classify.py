"""Why an attempt ended: the cause among all the ends of a gang, and its class.

A gang dies together: one member fails, the others are told to go or lose their peer. So each pod's end is read by
itself, victims are set apart from causes, and the cause is the first end that is nobody else's doing: not a stop that
came with the Job's own end, not `PeerLost`; then the earliest, then the lowest index.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tollgate.api.training_run import Failure
from tollgate.contract import (
    USER_FAILURES,
    ExitCode,
    FailureClass,
    FailureReason,
    LastWords,
    Outcome,
    StopReason,
    shorten,
)
from tollgate_operator.facts import JobFacts, PodFacts

MAX_MESSAGE: Final = 1024
LIMIT_STOPS: Final = frozenset({StopReason.BUDGET, StopReason.RUNTIME, StopReason.SUSPENDED, StopReason.DELETED})
USER_WAITS: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_PEERS: Final = frozenset({FailureReason.PEER_LOST, FailureReason.RENDEZVOUS})
"""Reasons of a rank that missed another one: the cause lies elsewhere, if anything else is known."""
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_EXIT = re.compile(r"pod \S+?/(?P<pod>\S+) failed with exit code (?P<code>[0-9]+)")
_CONDITION = re.compile(r"[Pp]od \S+?/(?P<pod>\S+) has condition DisruptionTarget")


@dataclass(frozen=True, slots=True)
class End:
    """How one pod ended, read by itself. `victim`: it went because its gang did, so it is not the cause."""

    failure: Failure
    at: datetime | None
    index: int
    victim: bool
    words: LastWords | None


def failure(
    kind: FailureClass,
    reason: str,
    message: str = "",
    *,
    exit_code: int | None = None,
    pod: str | None = None,
    node: str | None = None,
    rank: int | None = None,
) -> Failure:
    """A Failure; `class` is no word that Python lets a keyword be."""
    fields = {"reason": reason, "exit_code": exit_code, "pod": pod, "node": node, "rank": rank}
    return Failure.model_validate({"class": kind, "message": shorten(message, MAX_MESSAGE), **fields})


def words_of(pod: PodFacts) -> LastWords | None:
    """The pod's last words, if it left any."""
    return LastWords.parse(pod.last_words)


def completed(pods: Sequence[PodFacts], nodes: int, job: JobFacts | None) -> LastWords | None:
    """The words of rank 0 when the gang did its work to the end, whatever its Job was told meanwhile.

    A Job that is Complete proves the work of pods that nobody saw end.
    """
    done = {pod.index: pod for pod in pods if pod.phase == "Succeeded" or pod.exit_code == ExitCode.COMPLETED}
    proven = job is not None and job.condition("Complete") is not None
    if 0 not in done or (set(range(nodes)) - set(done) and not proven):
        return None
    words = words_of(done[0])
    return words if words is not None and words.outcome is Outcome.COMPLETED else None


def cause(
    pods: Sequence[PodFacts], job: JobFacts | None, stopped_at: datetime | None, noted: Failure | None = None
) -> Failure | None:
    """The cause of a failed gang; None when neither a pod nor the Job tells anything.

    `stopped_at`: when the operator or the Job controller began to stop the gang; ends by signal after that are victims.
    `noted`: what the operator took for the cause when it stopped the gang for a lost member.
    """
    ends = [end for pod in pods if (end := _end(pod, stopped_at)) is not None]
    own = min((end for end in ends if not end.victim), key=_order, default=None)
    if own is not None and own.failure.reason not in _PEERS:
        return own.failure
    if noted is not None:
        seen = next((end.failure for end in ends if end.failure.pod == noted.pod), None)
        code = seen.exit_code if seen is not None and noted.exit_code is None else noted.exit_code
        return noted.model_copy(update={"exit_code": code})
    told, precise = _job_tells(job)
    if precise:
        return told
    if own is not None:
        return own.failure
    return min(ends, key=_order).failure if ends else told


def first_lost(pods: Sequence[PodFacts]) -> Failure | None:
    """The first member that was lost, while others still run: deleted, disrupted or failed. None: none is lost."""
    ends = [
        end
        for pod in pods
        if (pod.over and pod.phase != "Succeeded") or pod.exit_code or pod.disrupted or pod.deleting_at is not None
        if (end := _end(pod, None)) is not None
    ]
    return min(ends, key=_order).failure if ends else None


def deletion_asked_at(pod: PodFacts) -> datetime | None:
    """When the pod was deleted: its deletionTimestamp lies one grace period later."""
    if pod.deleting_at is None:
        return None
    return pod.deleting_at - timedelta(seconds=pod.deletion_grace or 0)


def _order(end: End) -> tuple[bool, datetime, int]:
    return (end.failure.reason in _PEERS, end.at or _LAST, end.index)


def _end(pod: PodFacts, stopped_at: datetime | None) -> End | None:
    """How this pod ended or is ending; None while it goes on, or did its work."""
    if pod.phase == "Succeeded":
        return None
    words = words_of(pod)
    if not (pod.over or pod.disrupted or pod.deleting_at is not None or pod.exit_code is not None):
        return None
    asked = deletion_asked_at(pod)
    at = min((t for t in (pod.finished_at, pod.disruption_at, asked) if t is not None), default=None)
    class_, reason, message = _read(pod, words)
    rank = words.error.rank if words and words.error else None
    found = failure(class_, reason, message, exit_code=pod.exit_code, pod=pod.name, node=pod.node or None, rank=rank)
    return End(found, at, pod.index, _is_victim(pod, words, stopped_at, asked), words)


def _is_victim(pod: PodFacts, words: LastWords | None, stopped_at: datetime | None, asked: datetime | None) -> bool:
    """Whether the pod went because the gang was being stopped, and not by itself before that."""
    if stopped_at is None or pod.disrupted or pod.oom_killed or pod.reason:
        return False
    if words is not None and words.outcome is Outcome.FAILED:
        return False
    by_signal = words is not None and words.reason == StopReason.SIGNAL
    if words is not None and not by_signal:
        return False
    # Kubernetes' times have whole seconds: an end in the second of the stop is taken as caused by it.
    before = min((t for t in (asked, pod.finished_at) if t is not None), default=None)
    if before is not None and before < stopped_at.replace(microsecond=0):
        return False
    return pod.deleting_at is not None or pod.gone or by_signal or pod.exit_code in (None, 143, 137, ExitCode.STOPPED)


def _read(pod: PodFacts, words: LastWords | None) -> tuple[FailureClass, str, str]:
    """Class, reason and message of one pod's end, by the most telling thing first."""
    if pod.disrupted:
        return FailureClass.DISRUPTION, pod.disruption_reason or "Disrupted", pod.disruption_message or pod.message
    if words is not None and words.outcome is Outcome.FAILED:
        return _failed_class(words), words.reason, _told(words)
    if pod.oom_killed:
        return (
            FailureClass.APPLICATION,
            "OOMKilled",
            "the container used more memory than its profile gives it; use a profile with more memory, a smaller "
            "batch or a shorter max_seq_length",
        )
    # The launcher cannot tell the kubelet's SIGTERM at the pod's deadline from anybody else's.
    by_kubelet = pod.reason == "DeadlineExceeded"
    if (
        words is not None
        and words.outcome is Outcome.STOPPED
        and not (by_kubelet and words.reason == StopReason.SIGNAL)
    ):
        return _stopped_class(words.reason), words.reason, _told(words)
    if by_kubelet:
        return FailureClass.LIMIT, "DeadlineExceeded", pod.message or "the pod reached its deadline"
    if pod.reason == "Evicted":
        # An eviction for the node's sake carries DisruptionTarget; without it the pod broke its own limits.
        return FailureClass.APPLICATION, "Evicted", pod.message
    if pod.exit_code == ExitCode.USER:
        return FailureClass.USER, "UserError", "the trainer refused the run and left no words; its log says why"
    if pod.exit_code is not None and not _ended_by_deletion(pod):
        return FailureClass.APPLICATION, *_bare_exit(pod.exit_code)
    if pod.deleting_at is not None or pod.gone:
        return FailureClass.DISRUPTION, "PodDeleted", "the pod was deleted"
    return FailureClass.DISRUPTION, pod.reason or "PodLost", pod.message or "the pod ended without running"


def _ended_by_deletion(pod: PodFacts) -> bool:
    """Whether the container may have ended because its pod was deleted.

    A pod that died by itself is deleted with its gang a moment later, before the kubelet has told its last phase. In
    the same second (Kubernetes' times have whole ones) SIGKILL was not the deletion's, which gives a grace first.
    """
    asked = deletion_asked_at(pod)
    if asked is None or pod.finished_at is None:
        return asked is not None
    if pod.finished_at == asked:
        return not (pod.exit_code == 137 and (pod.deletion_grace or 0) > 1)
    return pod.finished_at > asked


def _bare_exit(code: int) -> tuple[str, str]:
    if code in (137, 143):
        return FailureReason.KILLED.value, f"killed by signal {code - 128} without last words"
    return FailureReason.EXCEPTION.value, f"exit code {code} without last words; the pod's log says more"


def _failed_class(words: LastWords) -> FailureClass:
    """An out-of-memory that names a field has no smaller plan left: the field is the user's to change."""
    no_plan_left = words.reason == FailureReason.OUT_OF_MEMORY and words.error is not None and words.error.field
    return FailureClass.USER if words.reason in USER_FAILURES or no_plan_left else FailureClass.APPLICATION


def _stopped_class(reason: str) -> FailureClass:
    if reason in (StopReason.BUDGET, StopReason.RUNTIME, StopReason.EVALUATION_TIMEOUT):
        return FailureClass.LIMIT
    return FailureClass.DISRUPTION


def _told(words: LastWords) -> str:
    if words.error is None:
        return f"{words.outcome.value}: {words.reason}" + (f" at step {words.step}" if words.step is not None else "")
    field = f"{words.error.field}: " if words.error.field else ""
    kind = f"{words.error.type}: " if words.error.type and not field else ""
    return f"{field}{kind}{words.error.message}"


def _job_tells(job: JobFacts | None) -> tuple[Failure | None, bool]:
    """What the Job's own condition keeps of a pod that nobody saw end, and whether it names the cause."""
    found = (job.condition("FailureTarget") or job.condition("Failed")) if job else None
    if found is None:
        return None, False
    if match := _EXIT.search(found.message):
        code = int(match["code"])
        kind = {int(ExitCode.USER): FailureClass.USER, int(ExitCode.STOPPED): FailureClass.DISRUPTION}.get(
            code, FailureClass.APPLICATION
        )
        told = failure(kind, found.reason, found.message, exit_code=code, pod=match["pod"])
        return told, kind is FailureClass.USER
    if match := _CONDITION.search(found.message):
        return failure(FailureClass.DISRUPTION, "Disrupted", found.message, pod=match["pod"]), True
    if found.reason == "DeadlineExceeded":
        return failure(FailureClass.LIMIT, found.reason, found.message), True
    return failure(FailureClass.APPLICATION, found.reason or "JobFailed", found.message), False
