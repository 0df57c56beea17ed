"""Events of a run -> what a tracker is told. Pure: the same events give the same calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tollgate_trainer.track.protocol import Dataset, Point, Status

NOT_METRICS = ("step", "attempt", "total_steps")
QUIET = ("start", "restore", "warning", "adopt")
"""Events that don't begin a tracking run: a start may be refused, or find that there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters by dotted name."""

    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt ended."""

    status: Status


Told = Parameters | Point | Dataset | Ended


@dataclass(frozen=True, slots=True)
class Steps:
    """told: the newest step whose metrics were told; known: steps up to here are repeated bit for bit."""

    told: int = 0
    known: int = 0


def translate(event: Mapping[str, Any], dataset_path: str, steps: Steps) -> tuple[Told | None, Steps]:
    """What one event means for a tracker (None: nothing), and the steps after it.

    Steps that are done again after a restart are told once, unless they differ from the ones that were lost.
    """
    name = event["event"]
    if name == "start":
        return None, replace(steps, known=0)
    if name == "restore":
        return None, replace(steps, known=steps.told if event.get("equality") == "bit-equal" else 0)
    if name in ("step", "eval", "experts"):
        return _point(event, name, steps)
    if name == "data" and "digest" in event:
        facts = {key: event[key] for key in ("train", "validation") if isinstance(event.get(key), dict)}
        return Dataset(str(event["digest"]), dataset_path, dict(_numbers("", facts))), steps
    if name == "plan":
        plan = {key: value for key, value in event.items() if key not in ("event", "time", "attempt")}
        return Parameters(flat({"plan": plan})), steps
    if name == "end":
        return Ended(Status.FAILED if "error" in event else Status.FINISHED), steps
    return (Ended(Status.KILLED), steps) if name == "stop" else (None, steps)


def _point(event: Mapping[str, Any], name: str, steps: Steps) -> tuple[Told | None, Steps]:
    step = event.get("step")
    if not isinstance(step, int) or step <= steps.known:
        return None, steps
    if name == "step":
        steps = replace(steps, told=max(step, steps.told))
    values = {key: value for key, value in event.items() if key not in NOT_METRICS}
    if name == "eval":
        values["eval_seconds"] = values.pop("seconds", None)
    found = dict(_numbers("experts" if name == "experts" else "", values))
    return (Point(step, datetime.fromisoformat(event["time"]), found) if found else None), steps


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Finite numbers in a value, by dotted name; a number that is not finite stands in events as its name."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        if math.isfinite(value):
            yield name, float(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _numbers(f"{name}.{number}", item)


def flat(value: Any, name: str = "") -> dict[str, str]:
    """Leaves by dotted name, as text; nulls and empty lists are left out."""
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for key, item in value.items():
            found |= flat(item, f"{name}.{key}" if name else str(key))
        return found
    if value is None or value == []:
        return {}
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return flat({str(number): item for number, item in enumerate(value)}, name)
    if isinstance(value, list):
        return {name: ", ".join(map(str, value))}
    return {name: str(value).lower() if isinstance(value, bool) else str(value)}
