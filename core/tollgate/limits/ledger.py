"""The ledger: pods become charges, charges become what was spent.

A charge is one pod's node time x price. It starts when the API server bound the pod (PodScheduled), and ends at the first proof of
its end. Once closed it is persisted and never recomputed, so replay, duplicates and another order of the same observations give
the same sum. What was not seen is charged to its bound, never as nothing:

    bound = start + the attempt's reserved seconds (pod deadline + grace), or the Job's end if that was earlier.

An open charge accrues. Every amount is an integer of micro-USD, rounded up per pod; an interval counts by the microsecond.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from tollgate.api.quantities import Usd
from tollgate.api.training_run import Attempt, AttemptOutcome, PodCharge, TrainingRunStatus
from tollgate.contract import ChargeCategory

_HOUR = 3_600_000_000  # microseconds
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class PodRecord:
    """What one look at a pod told. Every field but `uid` and `name` may be unknown (None).

    `scheduled_at`: transition of PodScheduled=True. `created_at` stands in for it when a pod has a node but no such condition.
    `finished_at`: finishedAt of the container; when the pod has several, of the last, and only when all have ended.
    `collected_at`: transition of DisruptionTarget, only if its reason is DeletionByPodGC (other reasons come before the end).
    `written_at`: the API server's own time of the write in which the end stands (metadata.managedFields of the status), only
    when the pod is over; it bounds a node's wrong clock, and is itself the end of a pod that became terminal without ever
    running a container. `per_hour`: charged_rate() in micro-USD.
    """

    uid: str
    name: str
    index: int = 0
    node: str | None = None
    created_at: datetime | None = None
    scheduled_at: datetime | None = None
    finished_at: datetime | None = None
    collected_at: datetime | None = None
    written_at: datetime | None = None
    per_hour: int | None = None


@dataclass(frozen=True, slots=True)
class Folded:
    """What remains of attempts that were removed from the status."""

    micro: int = 0
    run_seconds: float = 0.0
    unknown_pods: int = 0
    by_category: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, status: TrainingRunStatus) -> Folded:
        """The folded part of a run's status."""
        return cls(
            status.folded_cost_usd, status.folded_run_seconds, status.folded_unknown_pods, status.folded_by_category
        )


@dataclass(frozen=True, slots=True)
class Spend:
    """What a run used. `unknown_pods` > 0: so many bound pods have no price, and `micro` is only what is known.

    `run_seconds`: wall time in which pods of an attempt were bound, summed over attempts of one role (maxRuntime counts training).
    """

    micro: int
    unknown_pods: int
    run_seconds: float


def observe(
    charges: Sequence[PodCharge],
    records: Iterable[PodRecord],
    *,
    now: datetime,
    reserved_seconds: int | None,
    job_end: datetime | None = None,
    absent: Collection[str] = (),
) -> list[PodCharge]:
    """The charges of one attempt after these records; the same for any order and repetition of them.

    Args: reserved_seconds: of the attempt, per pod; None: unlimited. job_end: time of the Job's Failed or Complete condition,
    which proves that its pods are over; or of the proof that a Job which was deleted in the foreground is gone. absent: uids
    that the API server, asked live, does not have, or that are stuck Terminating on a node that is lost: they end at their
    bound, once it is reached. Closed charges come back untouched. Ordered by index, then uid.
    """
    raise NotImplementedError


def spent(attempts: Sequence[Attempt], now: datetime, folded: Folded | None = None, role: str = "train") -> Spend:
    """What all attempts used up to `now`; open charges accrue. Money is of all roles, `run_seconds` of one."""
    raise NotImplementedError


def committed(attempts: Sequence[Attempt], now: datetime, folded: Folded | None = None, role: str = "train") -> Spend:
    """What these attempts used or may still use without anybody's leave: what a new reservation has to keep clear of.

    A closed attempt counts its cost. An open one counts its whole reservation. One that is over (endTime is set) with charges
    still open, because pods were lost from sight, counts these pods at their bound.
    """
    raise NotImplementedError


def rate_per_hour(attempts: Sequence[Attempt]) -> int | None:
    """Micro-USD per hour that the bound, open pods cost now; None when a bound pod has no price; 0 when none is bound."""
    raise NotImplementedError


def is_closed(attempt: Attempt) -> bool:
    """Whether close_attempt() settled it."""
    return attempt.unknown_pods is not None


def all_over(attempt: Attempt) -> bool:
    """Whether every charge of the attempt is closed, so that it can be."""
    return all(charge.end is not None for charge in attempt.pods or [])


def add_unseen(
    attempt: Attempt, existed: int, per_hour: int | None, job_start: datetime, job_end: datetime | None, now: datetime
) -> Attempt:
    """The attempt with charges for pods that existed but that nobody saw (the operator was away, and they are gone).

    Args: existed: pods of the Job that ended (its status.failed + succeeded), or all of its pods when it started and the Job
    itself is gone. Each unseen one is charged from the Job's start to the bound, because unknown is not zero.
    """
    raise NotImplementedError


def close_attempt(attempt: Attempt, checkpoint_at: datetime | None) -> Attempt:
    """The attempt with its sums: costUSD, podSeconds, runSeconds, lostSeconds, unknownPods, byCategory; pods are folded away.

    Args: checkpoint_at: when its newest committed checkpoint was saved; None: none in this attempt. Work after it is lost
    unless the outcome is Completed. Pods without a price stay listed.
    Raises: ValueError when a charge is still open.
    """
    raise NotImplementedError


def by_category(attempts: Sequence[Attempt], now: datetime, folded: Folded | None = None) -> dict[ChargeCategory, int]:
    """Micro-USD by category; the sum is exactly spent().micro. Open attempts have lost nothing yet."""
    raise NotImplementedError
