"""Which checkpoints stay: the newest, the best, and the best few by the metric."""

from __future__ import annotations

from tollgate_trainer.lifecycle.checkpoints import Checkpoints, committed
from tollgate_trainer.lifecycle.loop import Plan
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.lifecycle.state import LifecycleState


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
        if self.plan.keep_best:
            sign = 1 if self.plan.best_mode == "min" else -1
            scored = []
            for one in committed(self.checkpoints.root):
                evaluated = LifecycleState.read(one.folder).last_evaluation
                if (
                    evaluated is not None
                    and evaluated.step == one.commit.step
                    and self.plan.best_metric in evaluated.metrics
                ):
                    scored.append((sign * evaluated.metrics[self.plan.best_metric], one.commit.step))
            protected |= {step for _, step in sorted(scored)[: self.plan.keep_best]}
        self.checkpoints.rotate(self.plan.keep_last, protected)
