"""When the training will be done, by its own steps: told in events and metrics, and held against what came."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback

from tollgate.planning.pace import Ahead, Remaining, error, remaining
from tollgate_trainer.lifecycle.goodput import State
from tollgate_trainer.lifecycle.loop import Plan, TrainingLoop
from tollgate_trainer.plan.making import Planning, usd_per_node_hour

TOLD = 10
"""Forecasts that are told over a whole run, besides the first and the last."""


class Forecasting(TrainerCallback):
    """Joined to one TrainingLoop after StepEnd. A step's seconds are those of the goodput state `step`."""

    def __init__(self, loop: TrainingLoop, planning: Planning) -> None:
        self.loop = loop
        self.session = loop.session
        self.planning = planning
        self._seconds: list[float] = []
        self._before: float | None = None
        self._counted = {State.EVALUATE: 0, State.SAVE: 0}
        self._first: tuple[float, int, Remaining] | None = None
        self._told = -1

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The clock of the first step."""
        if self._before is None:
            self._before = self.session.goodput.seconds()[State.STEP]

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One more evaluation was measured."""
        self._counted[State.EVALUATE] += 1

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One more save was measured."""
        self._counted[State.SAVE] += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One more step; the forecast goes to the metrics each time, to the events now and then."""
        now = self.session.goodput.seconds()[State.STEP]
        self._seconds.append(now - (self._before or 0.0))
        self._before = now
        if not self.session.attempt.leads:
            return
        found = remaining(self._seconds, self._ahead(state.global_step))
        if found is None:
            return
        progress = self.session.progress
        progress.remaining = (found.seconds, found.low, found.high)
        progress.completion_at = time.time() + found.seconds
        if self._first is None:
            self._first = (time.monotonic(), state.global_step, found)
        part = state.global_step * TOLD // max(1, self.loop.plan.total_steps)
        if part != self._told and state.global_step < self.loop.plan.total_steps:
            self._told = part
            self._tell(state.global_step, found)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hold the first forecast, and the plan, against what came."""
        progress = self.session.progress
        progress.remaining, progress.completion_at = None, None
        if not self.session.attempt.leads:
            return
        hours, usd = self.planning.first_estimate()
        actual = sum(self.session.run_seconds().values()) / 3600
        rate = usd_per_node_hour()
        paid = None if rate is None else rate / 1e6 * self.planning.nodes() * actual
        finished = state.global_step >= self.loop.plan.total_steps
        told: dict[str, Any] = {
            "finished": finished,
            "planned_hours": hours,
            "actual_hours": actual,
            "planned_usd": usd,
            "actual_usd": paid,
        }
        if self._first is not None and finished:
            at, step, found = self._first
            seconds = time.monotonic() - at
            told |= {
                "forecast_at_step": step,
                "forecast_seconds": found.seconds,
                "forecast_low": found.low,
                "forecast_high": found.high,
                "actual_seconds": seconds,
                "error": error(found.seconds, seconds),
                "covered": found.low <= seconds <= found.high,
            }
        self.session.outlook = told
        self.session.say("forecast", source="end", step=state.global_step, **told)

    # --- parts ------------------------------------------------------------------------------------------------------

    def _tell(self, step: int, found: Remaining) -> None:
        self.session.say(
            "forecast",
            source="steps",
            step=step,
            seconds_remaining=round(found.seconds, 3),
            low=round(found.low, 3),
            high=round(found.high, 3),
        )

    def _ahead(self, step: int) -> Ahead:
        plan = self.loop.plan
        left = plan.total_steps - step
        evaluations = due(step, plan.total_steps, plan.eval_every) if len(plan.validation) else 0
        saves = due(step, plan.total_steps, plan.save_every)
        evaluation = self._mean(State.EVALUATE)
        if evaluation is None and evaluations:
            evaluation = evaluation_guess(plan, self._seconds[-1], self.planning.asked_adapter())
        return Ahead(left, evaluations, evaluation, saves, self._mean(State.SAVE))

    def _mean(self, state: State) -> float | None:
        count = self._counted[state]
        return self.session.goodput.seconds()[state] / count if count else None


def due(step: int, total: int, every: int | None) -> int:
    """How often something happens from the end of `step` on: after every `every` steps and after the last one."""
    if every is None:
        return 1
    first = step if step % every == 0 else step + 1
    times = total // every - (first - 1) // every
    return times + (1 if total % every else 0)


def evaluation_guess(plan: Plan, step_seconds: float, adapter: bool) -> float:
    """Seconds of an evaluation that was never measured: the forward part of training on as many tokens.

    Forward costs 2N of the 6N FLOPs a token of training, or of the 4N with an adapter.
    """
    per_step = plan.order.tokens_until(plan.order.steps_per_epoch) / plan.order.steps_per_epoch
    held_out = float(plan.validation.lengths.sum())
    return step_seconds * held_out / max(per_step, 1.0) * (1 / 2 if adapter else 1 / 3)
