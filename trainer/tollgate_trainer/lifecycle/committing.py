"""From when on a checkpoint counts: the lifecycle's state is in it, the first process committed it, all know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tollgate_trainer.lifecycle.checkpoints import CheckpointError, Checkpoints
from tollgate_trainer.lifecycle.goodput import State
from tollgate_trainer.lifecycle.lease import Fenced
from tollgate_trainer.lifecycle.plan import Plan
from tollgate_trainer.lifecycle.session import Session


class Committing:
    """Commits the checkpoints of one training, in one process."""

    def __init__(self, session: Session, plan: Plan, checkpoints: Checkpoints, rotate: Callable[[], None]) -> None:
        self.session = session
        self.plan = plan
        self.checkpoints = checkpoints
        self._rotate = rotate

    def remember(self, step: int) -> dict[str, float]:
        """Bring the lifecycle state to this step; answers the run's seconds by state."""
        session = self.session
        best = session.state.best
        if best is not None and best.step == step and self.plan.tracks_best:
            session.remember(best=replace(best, path=f"checkpoints/checkpoint-{step}"))
        run_seconds = session.run_seconds()
        session.remember(
            step=step,
            samples=self.plan.order.samples_until(step),
            tokens=self.plan.order.tokens_until(step),
            goodput={str(name): round(value, 3) for name, value in run_seconds.items()},
        )
        return run_seconds

    def commit(self, step: int, expected: list[str]) -> None:
        """Rank 0 commits and tells the others how it went, so that none waits for one that has failed.

        Args: expected: the files that have to be there.
        Raises: Fenced, CheckpointError, in the first process also OSError.
        """
        session = self.session
        told: tuple[str, Any] = ("", None)
        failure: BaseException | None = None
        run_seconds = self.remember(step)
        if session.attempt.leads:
            try:
                session.state.write(self.checkpoints.staging / f"checkpoint-{step}")
                told = ("", self.checkpoints.commit(step, expected).ref())
                self._rotate()
            except (Fenced, CheckpointError, OSError) as error:
                failure = error
                told = (f"{type(error).__name__}: {error}", isinstance(error, Fenced))
        problem, result = session.agreement.from_first(told)
        if failure is not None:
            raise failure
        if problem:
            raise Fenced(problem) if result else CheckpointError(problem)
        session.committed = result
        session.committed_step_seconds = run_seconds[State.STEP]
        session.progress.checkpoint_step, session.progress.checkpoint_at = step, result.saved_at.timestamp()
