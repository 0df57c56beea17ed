"""What the restart rules count: failures, disruptions, and the two reasons that have rules of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tollgate.api.training_run import Attempt, AttemptOutcome, TrainingRunStatus
from tollgate.contract import FailureClass, FailureReason

FAILURES = "failures"
DISRUPTIONS = "disruptions"
_COUNTED = {
    FailureClass.APPLICATION: FAILURES,
    FailureClass.STALL: FAILURES,
    FailureClass.USER: FAILURES,
    FailureClass.DISRUPTION: DISRUPTIONS,
    FailureClass.UNSCHEDULABLE: DISRUPTIONS,
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Over all training attempts, also those that were folded away. `in_a_row`: the last ones of the newest's kind."""

    failures: int = 0
    disruptions: int = 0
    out_of_memory: int = 0
    non_finite: int = 0
    in_a_row: int = 0


def names(attempt: Attempt) -> tuple[str, ...]:
    """What this attempt counts as."""
    if attempt.role != "train" or attempt.failure is None:
        return ()
    if attempt.outcome not in (AttemptOutcome.FAILED, AttemptOutcome.LOST):
        return ()
    if attempt.failure.reason == FailureReason.OUT_OF_MEMORY:
        return (FailureReason.OUT_OF_MEMORY.value,)
    counted = _COUNTED.get(attempt.failure.class_)
    if counted is None:
        return ()
    if attempt.failure.reason == FailureReason.NON_FINITE:
        return (counted, FailureReason.NON_FINITE.value)
    return (counted,)


def count(status: TrainingRunStatus) -> Counts:
    """The counts of a run."""
    total = dict(status.folded_counts)
    training = sorted((a for a in status.attempts if a.role == "train"), key=lambda a: a.number)
    for attempt in training:
        for name in names(attempt):
            total[name] = total.get(name, 0) + 1
    return Counts(
        failures=total.get(FAILURES, 0),
        disruptions=total.get(DISRUPTIONS, 0),
        out_of_memory=total.get(FailureReason.OUT_OF_MEMORY.value, 0),
        non_finite=total.get(FailureReason.NON_FINITE.value, 0),
        in_a_row=_in_a_row([names(a) for a in training if a.outcome is not None]),
    )


def folded(counts: dict[str, int], removed: Sequence[Attempt]) -> dict[str, int]:
    """The counts with those of attempts that are taken out of the status."""
    total = dict(counts)
    for attempt in removed:
        for name in names(attempt):
            total[name] = total.get(name, 0) + 1
    return total


def _in_a_row(ends: Sequence[tuple[str, ...]]) -> int:
    if not ends or not ends[-1]:
        return 0
    row = 0
    for end in reversed(ends):
        if end != ends[-1]:
            break
        row += 1
    return row
