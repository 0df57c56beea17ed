"""Which checkpoints stay: the newest, the best, and the best few by the metric."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tollgate_trainer.lifecycle.checkpoints import Checkpoints, committed
from tollgate_trainer.lifecycle.state import LifecycleState

if TYPE_CHECKING:
    from tollgate_trainer.lifecycle.plan import Plan
    from tollgate_trainer.lifecycle.session import Session


def surplus(
    scored: Iterable[tuple[int, float | None]], keep_last: int, keep_best: int, mode: str, protected: set[int]
) -> list[int]:
    """Steps of checkpoints that need not stay, oldest first.

    Args: scored: each checkpoint's step and its metric, None when it was not evaluated there; keep_best: so many by the
    metric stay besides the `keep_last` newest and the `protected`; mode: "min" or "max".
    """
    every = sorted(scored)
    sign = 1 if mode == "min" else -1
    best = sorted((sign * value, step) for step, value in every if value is not None)
    kept = (
        {step for step, _ in every[len(every) - min(keep_last, len(every)) :]}
        | protected
        | {step for _, step in best[:keep_best]}
    )
    return [step for step, _ in every if step not in kept]


class Rotation:
    """Called after each commit, in the process that commits."""

    def __init__(self, checkpoints: Checkpoints, plan: Plan, session: Session) -> None:
        self.checkpoints, self.plan, self.session = checkpoints, plan, session

    def __call__(self) -> None:
        """Remove what need not stay."""
        protected: set[int] = set()
        best = self.session.state.best
        if self.plan.tracks_best and best is not None:
            protected.add(best.step)
        plan, found = self.plan, committed(self.checkpoints.root)
        if plan.keep_best:
            scored = [(one.commit.step, _value(one.folder, plan.best_metric)) for one in found]
            removable = surplus(scored, plan.keep_last, plan.keep_best, plan.best_mode, protected)
            protected |= {one.commit.step for one in found} - set(removable)
        self.checkpoints.rotate(plan.keep_last, protected)


def _value(folder: Path, metric: str) -> float | None:
    """The metric of an evaluation at the checkpoint's own step."""
    state = LifecycleState.read(folder)
    evaluated = state.last_evaluation
    return evaluated.metrics.get(metric) if evaluated is not None and evaluated.step == state.step else None
