"""How a status is put into words: phase, message and conditions for each thing that can be going on.

`phase` is for people, conditions are for machines. Every function answers a new status and is given the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tollgate.api.meta import find_condition, set_condition
from tollgate.api.training_run import ConditionType, Phase, TrainingRunStatus
from tollgate_operator.runs.situation import Situation

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Told:
    """A condition to set."""

    type: ConditionType
    status: Truth
    reason: str
    message: str = ""


def tell(
    situation: Situation, now: datetime, phase: Phase, message: str, conditions: Sequence[Told] = ()
) -> TrainingRunStatus:
    """The status with that phase, message and these conditions."""
    status = situation.status.model_copy(update={"phase": phase, "message": message})
    return _set(situation, status, now, (*conditions, finish(status, conditions)))


def finish(status: TrainingRunStatus, told: Sequence[Told] = ()) -> Told:
    """Whether the run is at an end: what scripts wait for, in the same write as the phase that says so.

    True with the sentence that people see once it succeeded, failed or was stopped by a limit; False with the phase as
    reason while it is under way, also when it goes on after a stop. A person's pause is no end.
    `told`: conditions that are set with it.
    """
    if status.phase in (Phase.SUCCEEDED, Phase.FAILED):
        return Told(ConditionType.FINISHED, "True", status.phase.value, status.message)
    if status.phase is Phase.STOPPED:
        new = next((one.reason for one in told if one.type is ConditionType.STOPPED), None)
        old = find_condition(status.conditions, ConditionType.STOPPED)
        reason = new or (old.reason if old else Phase.STOPPED.value)
        return Told(ConditionType.FINISHED, "True", reason, status.message)
    return Told(ConditionType.FINISHED, "False", (status.phase or Phase.PENDING).value)


def at_end(situation: Situation, now: datetime) -> TrainingRunStatus:
    """The status of a run that is over: it stands whatever the spec says now.

    So all conditions are of this generation (`kubectl wait` passes over those of an older one), and one that an older
    operator did not know is added.
    """
    told = [finish(situation.status)]
    if situation.status.phase is Phase.SUCCEEDED:
        told.append(Told(ConditionType.COMPLETE, "True", "Trained", situation.status.message))
    status = _set(situation, situation.status, now, told)
    generation = situation.run.generation
    current = [c.model_copy(update={"observed_generation": generation}) for c in status.conditions]
    return status.model_copy(update={"conditions": current})


def _set(
    situation: Situation, status: TrainingRunStatus, now: datetime, conditions: Sequence[Told]
) -> TrainingRunStatus:
    told = status.conditions
    for one in conditions:
        told = set_condition(told, one.type, one.status, one.reason, one.message[:4096], now, situation.run.generation)
    return status.model_copy(update={"conditions": told})


def refused(situation: Situation, now: datetime, reason: str, message: str) -> TrainingRunStatus:
    """The run is not admitted as it stands; the message holds the fix. It is admitted when that was mended."""
    return tell(
        situation,
        now,
        Phase.PENDING,
        f"{reason}: {message}",
        [Told(ConditionType.ACCEPTED, "False", reason, message), _priced(reason, message)],
    )


def failed(situation: Situation, now: datetime, reason: str, message: str) -> TrainingRunStatus:
    """The run is over and has no model."""
    status = tell(
        situation,
        now,
        Phase.FAILED,
        message if reason in message else f"{reason}: {message}" if message else reason,
        [
            Told(ConditionType.FAILED, "True", reason, message),
            Told(ConditionType.RUNNING, "False", reason),
            *_not_stopped(situation),
        ],
    )
    return status.model_copy(update={"completion_time": status.completion_time or now})


def succeeded(situation: Situation, now: datetime, message: str, evaluated: Told) -> TrainingRunStatus:
    """The run has its model; `evaluated` says what came of the evaluation."""
    status = tell(
        situation,
        now,
        Phase.SUCCEEDED,
        message,
        [
            Told(ConditionType.COMPLETE, "True", "Trained", message),
            Told(ConditionType.RUNNING, "False", "Trained"),
            Told(ConditionType.WITHIN_BUDGET, "True", "Finished"),
            evaluated,
            *_not_stopped(situation),
        ],
    )
    return status.model_copy(update={"completion_time": status.completion_time or now})


def stopped(situation: Situation, now: datetime, phase: Phase, reason: str, message: str) -> TrainingRunStatus:
    """The run rests, because of a limit or because somebody suspended it; it can go on."""
    conditions = [
        Told(ConditionType.STOPPED, "True", reason, message),
        Told(ConditionType.RUNNING, "False", reason),
    ]
    if phase is Phase.STOPPED:
        conditions.append(Told(ConditionType.WITHIN_BUDGET, "False", reason, message))
    return tell(situation, now, phase, f"{reason}: {message}" if message else reason, conditions)


def accepted(situation: Situation, now: datetime, *, priced: bool) -> TrainingRunStatus:
    """The run is admitted as it stands."""
    conditions = [
        Told(ConditionType.ACCEPTED, "True", "Accepted"),
        Told(ConditionType.PRICE_KNOWN, "True", "Known")
        if priced
        else Told(ConditionType.PRICE_KNOWN, "False", "HoursOnly", "no price is known; only hours are limited"),
    ]
    return tell(situation, now, situation.status.phase or Phase.PENDING, situation.status.message, conditions)


def _priced(reason: str, message: str) -> Told:
    if reason == "PriceUnknown":
        return Told(ConditionType.PRICE_KNOWN, "False", reason, message)
    return Told(ConditionType.PRICE_KNOWN, "Unknown", "NotAccepted")


def _not_stopped(situation: Situation) -> list[Told]:
    if not situation.holds(ConditionType.STOPPED):
        return []
    return [Told(ConditionType.STOPPED, "False", "WentOn")]
