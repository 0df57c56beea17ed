"""Pods become charges.

A charge is one pod's node time x price. It starts when the API server bound the pod (PodScheduled), and ends at the
first proof of its end. Once closed it is persisted and never recomputed, so replay, duplicates and another order of the
same observations give the same sum. What was not seen is charged to its bound, never as nothing:

    bound = start + the attempt's reserved seconds (pod deadline + grace), or the Job's end if that was earlier.

An open charge accrues. Every amount is an integer of micro-USD, rounded up per pod; an interval counts by the
microsecond. What charges add up to is in ledger.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from tollgate.api.quantities import Usd
from tollgate.api.training_run import Attempt, PodCharge

HOUR_US = 3_600_000_000  # microseconds
_MICROSECOND = timedelta(microseconds=1)
_Ordered = TypeVar("_Ordered", datetime, str, int)


@dataclass(frozen=True, slots=True)
class PodRecord:
    """What one look at a pod told. Every field but `uid` and `name` may be unknown (None).

    `scheduled_at`: transition of PodScheduled=True. `created_at` stands in for it when a pod has a node but no such
    condition. `finished_at`: finishedAt of the container; when the pod has several, of the last, and only when all have
    ended. `collected_at`: transition of DisruptionTarget, only if its reason is DeletionByPodGC (other reasons come
    before the end). `written_at`: the API server's own time of the write in which the end stands
    (metadata.managedFields of the status), only when the pod is over. It bounds a node's wrong clock, and is itself the
    end of a pod that became terminal without ever running a container. For a pod whose deletion was seen while it was
    still unbound: its deletionTimestamp, which proves that it never will be bound. `per_hour`: prices.charged_rate() in
    micro-USD.
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

    @property
    def start(self) -> datetime | None:
        """When the pod was bound, as far as this look tells; None: it was not bound yet."""
        return self.scheduled_at or (self.created_at if self.node else None)

    @property
    def end(self) -> datetime | None:
        """The first proof of its end, not after the API server heard of it; None while there is none."""
        return _first(_first(self.finished_at, self.collected_at), self.written_at)


@dataclass(frozen=True, slots=True)
class _Known:
    """What all looks at one pod told together. Joining is commutative, associative and idempotent: earliest and lowest
    win.
    """

    uid: str
    name: str
    index: int
    node: str | None
    start: datetime | None
    end: datetime | None
    per_hour: int | None

    def join(self, other: _Known) -> _Known:
        return _Known(
            self.uid,
            min(self.name, other.name),
            min(self.index, other.index),
            _first(self.node, other.node),
            _first(self.start, other.start),
            _first(self.end, other.end),
            _first(self.per_hour, other.per_hour),
        )


def observe(
    charges: Sequence[PodCharge],
    records: Iterable[PodRecord],
    *,
    now: datetime,
    reserved_seconds: int | None,
    reserved_per_hour: int | None,
    job_start: datetime | None = None,
    job_end: datetime | None = None,
    absent: Collection[str] = (),
) -> list[PodCharge]:
    """The charges of one attempt after these records; the same for any order and repetition of them.

    Closed charges come back untouched. Ordered by index, then uid; one charge per uid.

    `reserved_seconds`: of the attempt, per pod, from binding to death; None: unlimited.
    `reserved_per_hour`: the rate of the reservation in micro-USD, which a record may only lower; None: unknown.
    `job_start`: the Job's startTime; it stands in for the binding of an absent pod that nobody saw bound: it may have
    run. `job_end`: time of the Job's Failed or Complete condition, which proves that its pods are over; or of the proof
    that a Job which was deleted in the foreground is gone. `absent`: uids that the API server, asked live, does not
    have, or that are stuck Terminating on a node that is lost. They end at their bound, once `now` has reached it.
    """
    kept = {charge.uid: charge for charge in charges if charge.end is not None}
    known: dict[str, _Known] = {}
    for look in [*map(_of_charge, charges), *map(_of_record, records)]:
        if look.uid not in kept:
            known[look.uid] = known[look.uid].join(look) if look.uid in known else look
    for uid, pod in known.items():
        priced = replace(pod, per_hour=_first(pod.per_hour, reserved_per_hour))
        if priced.end is None and uid in absent:
            priced = _presumed(priced, now, reserved_seconds, job_start, job_end)
        kept[uid] = _charge(priced)
    return sorted(kept.values(), key=lambda charge: (charge.index, charge.uid))


def add_unseen(
    attempt: Attempt,
    existed: int,
    *,
    now: datetime,
    reserved_per_hour: int | None,
    job_start: datetime,
    job_end: datetime | None,
) -> Attempt:
    """The attempt with charges for pods that existed but that nobody saw (the operator was away, and they are gone).

    Only after a live LIST: a pod whose event is merely late would be charged twice.
    `existed`: pods of the Job that ended (its status.failed + succeeded), or all of its pods when it had started and
    the Job itself is gone. Each unseen one is charged from the Job's start to the bound, because unknown is not zero.
    """
    charges = list(attempt.pods or [])
    for number in range(len({charge.uid for charge in charges}), existed):
        pod = _Known(
            f"unseen-{attempt.job_uid or attempt.number}-{number}",
            "unseen",
            number,
            None,
            None,
            None,
            reserved_per_hour,
        )
        charges.append(_charge(_presumed(pod, now, attempt.reserved_seconds, job_start, job_end)))
    return attempt.model_copy(update={"pods": charges})


def accrued(charge: PodCharge, now: datetime) -> int | None:
    """Micro-USD of one charge up to `now`; None when it was bound and nobody knows its price."""
    if charge.start is None:
        return 0
    if charge.end is not None:
        return charge.charge_usd
    return None if charge.per_hour_usd is None else cost(charge.per_hour_usd, charge.start, now)


def cost(per_hour: int, start: datetime, end: datetime) -> int:
    """Micro-USD for the time from `start` to `end` at `per_hour` micro-USD an hour, rounded up; 0 if `end` is not
    later.
    """
    return -(-per_hour * microseconds(start, end) // HOUR_US)


def microseconds(start: datetime, end: datetime) -> int:
    """Whole microseconds from `start` to `end`, 0 if `end` is not later."""
    return max(0, (end - start) // _MICROSECOND)


def run_microseconds(charges: Iterable[PodCharge], now: datetime, after: datetime | None = None) -> int:
    """Wall time during which at least one of the pods was bound, up to `now` for open ones, counted from `after` if
    given.
    """
    spans = sorted(
        (max(charge.start, after) if after else charge.start, charge.end or now) for charge in charges if charge.start
    )
    total, reached = 0, None
    for start, end in spans:
        begin = start if reached is None else max(start, reached)
        total += microseconds(begin, end)
        reached = end if reached is None else max(reached, end)
    return total


def _of_charge(charge: PodCharge) -> _Known:
    return _Known(charge.uid, charge.name, charge.index, charge.node, charge.start, None, charge.per_hour_usd)


def _of_record(record: PodRecord) -> _Known:
    return _Known(record.uid, record.name, record.index, record.node, record.start, record.end, record.per_hour)


def _presumed(
    pod: _Known, now: datetime, reserved_seconds: int | None, job_start: datetime | None, job_end: datetime | None
) -> _Known:
    start = pod.start or job_start
    if start is None:
        # The Job never started, so none of its pods was ever bound.
        return replace(pod, end=_first(job_end, now))
    bound = _first(job_end, None if reserved_seconds is None else start + timedelta(seconds=reserved_seconds))
    return replace(pod, start=start, end=bound if bound is not None and bound <= now else None)


def _charge(pod: _Known) -> PodCharge:
    end = pod.end if pod.end is None or pod.start is None else max(pod.end, pod.start)
    amount: int | None = None
    if end is not None:
        if pod.start is None:
            amount = 0
        elif pod.per_hour is not None:
            amount = cost(pod.per_hour, pod.start, end)
    return PodCharge(
        uid=pod.uid,
        name=pod.name,
        node=pod.node,
        index=pod.index,
        start=pod.start,
        end=end,
        per_hour_usd=None if pod.per_hour is None else Usd(pod.per_hour),
        charge_usd=None if amount is None else Usd(amount),
    )


def _first(a: _Ordered | None, b: _Ordered | None) -> _Ordered | None:
    """The lesser of two values of which either may be unknown."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)
