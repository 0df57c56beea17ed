"""What a run has to remember besides weights: lifecycle.json inside each committed checkpoint.

Kept here and not in the training library's own state, which forgets patience at a restart and best checkpoints when the
output folder moves. The path of the best checkpoint is relative to the output root for that reason.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tollgate.contract import Files
from tollgate_trainer import durable


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation so far. `path`: its checkpoint, relative to the output root; None when it was not kept."""

    metric: str
    value: float
    step: int
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluation."""

    step: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class LifecycleState:
    """The state at a step.

    bad_evaluations: in a row without improvement; goodput: seconds per state, over all attempts;
    `topology`: what bit-equality depends on (processes, batch, versions, device, threads); trackers: ids of tracking
    runs by tracker, for a restart that finds no notes.
    """

    step: int = 0
    samples: int = 0
    tokens: int = 0
    best: Best | None = None
    bad_evaluations: int = 0
    last_evaluation: Evaluated | None = None
    goodput: dict[str, float] = field(default_factory=dict)
    topology: dict[str, Any] = field(default_factory=dict)
    base_digest: str | None = None
    trackers: dict[str, str] = field(default_factory=dict)

    def write(self, checkpoint: Path) -> None:
        """Put it into a checkpoint's folder."""
        data = json.dumps({"schema": 1, **asdict(self)}, indent=1, allow_nan=False)
        durable.write(checkpoint / Files.LIFECYCLE, data.encode() + b"\n")

    @classmethod
    def read(cls, checkpoint: Path) -> LifecycleState:
        """The state in a committed checkpoint. Raises: OSError, ValueError, KeyError, TypeError when it is not one."""
        document = json.loads((checkpoint / Files.LIFECYCLE).read_text(encoding="utf-8"))
        document.pop("schema")
        if document["best"] is not None:
            document["best"] = Best(**document["best"])
        if document["last_evaluation"] is not None:
            document["last_evaluation"] = Evaluated(**document["last_evaluation"])
        return cls(**document)


Mode = Literal["min", "max"]


def improves(value: float, best: float, mode: Mode, min_delta: float) -> bool:
    """Whether `value` is better than `best` by more than min_delta."""
    return value < best - min_delta if mode == "min" else value > best + min_delta


def after_evaluation(
    state: LifecycleState, evaluated: Evaluated, metric: str, mode: Mode, min_delta: float
) -> tuple[LifecycleState, bool]:
    """The state after an evaluation, and whether it is the best so far.

    A value that is not finite is never the best and counts as no improvement.
    Raises: KeyError when the metric was not measured.
    """
    value = evaluated.metrics[metric]
    finite = math.isfinite(value)
    better = finite and (state.best is None or improves(value, state.best.value, mode, min_delta))
    best = Best(metric, value, evaluated.step) if better else state.best
    kept = Evaluated(evaluated.step, {name: v for name, v in evaluated.metrics.items() if math.isfinite(v)})
    return (
        replace(state, best=best, bad_evaluations=0 if better else state.bad_evaluations + 1, last_evaluation=kept),
        better,
    )
