"""When the training will be done, by its own steps: told in events and metrics, and held against what came."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback

from tollgate.planning.pace import WARM_STEPS, Ahead, Chore, Span, error, remaining
from tollgate_trainer.lifecycle.goodput import State
from tollgate_trainer.lifecycle.loop import TrainingLoop
from tollgate_trainer.lifecycle.plan import Plan
from tollgate_trainer.plan.making import Planning, usd_per_node_hour
from tollgate_trainer.plan.workload import Workload

TOLD = 10
"""Forecasts that are told over a whole run, besides the first and the last."""
WINDOW = 500
"""Steps that are looked back at: enough to know a pace by, and a forecast costs the same at step 100,000."""
SAVE_ITSELF = Span(0.12, 0.03, 0.5)
"""Seconds of a save besides its bytes: files that are opened, flushed and renamed, on a local disk or a network's."""


class Forecasting(TrainerCallback):
    """Joined to one TrainingLoop after StepEnd. A step's seconds are those of the goodput state `step`."""

    def __init__(self, loop: TrainingLoop, planning: Planning) -> None:
        self.loop = loop
        self.session = loop.session
        self.planning = planning
        self._workload = Workload(loop.plan.order, loop.fixed)
        self._seconds: list[float] = []
        self._work: list[float] = []
        self._before: float | None = None
        self._took: dict[State, list[float]] = {State.EVALUATE: [], State.SAVE: []}
        self._booked = {State.EVALUATE: 0.0, State.SAVE: 0.0}
        self._first: tuple[float, int, Span] | None = None
        self._told = -1

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The clock of the first step."""
        if self._before is None:
            seconds = self.session.goodput.seconds()
            self._before = seconds[State.STEP]
            self._booked = {state: seconds[state] for state in self._took}

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One more evaluation was measured."""
        self._measure(State.EVALUATE)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One more save was measured."""
        self._measure(State.SAVE)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One more step; the forecast goes to the metrics each time, to the events now and then."""
        now = self.session.goodput.seconds()[State.STEP]
        before, self._before = self._before or 0.0, now
        if not self.session.attempt.leads:
            return
        self._seconds.append(now - before)
        self._work.append(self._workload.of_step(state.global_step))
        if len(self._seconds) > WARM_STEPS + 2 * WINDOW:
            del self._seconds[WARM_STEPS : WARM_STEPS + WINDOW], self._work[WARM_STEPS : WARM_STEPS + WINDOW]
        found = remaining(self._seconds, self._ahead(state.global_step), self._work)
        if found is None:
            return
        progress = self.session.progress
        progress.remaining = (found.expected, found.low, found.high)
        progress.completion_at = time.time() + found.expected
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
                "forecast_seconds": found.expected,
                "forecast_low": found.low,
                "forecast_high": found.high,
                "actual_seconds": seconds,
                "error": error(found.expected, seconds),
                "covered": found.low <= seconds <= found.high,
            }
        self.session.outlook = told
        self.session.say("forecast", source="end", step=state.global_step, **told)

    # --- parts ------------------------------------------------------------------------------------------------------

    def _tell(self, step: int, found: Span) -> None:
        self.session.say(
            "forecast",
            source="steps",
            step=step,
            seconds_remaining=round(found.expected, 3),
            low=round(found.low, 3),
            high=round(found.high, 3),
        )

    def _measure(self, state: State) -> None:
        """What the state has gained since it was last looked at is what one more of it took."""
        now = self.session.goodput.seconds()[state]
        self._took[state].append(now - self._booked[state])
        self._booked[state] = now

    def _ahead(self, step: int) -> Ahead:
        plan = self.loop.plan
        left = plan.total_steps - step
        measured = self._seconds[WARM_STEPS:] or self._seconds
        each = sum(measured) / len(measured)
        evaluations = due(step, plan.total_steps, plan.eval_every) if len(plan.validation) else 0
        chores = [Chore(self._saves(step, each * left, evaluations), self._save())]
        if evaluations:
            chores.append(Chore(Span.exactly(evaluations), self._evaluation(each)))
        return Ahead(left, tuple(chores), self._workload.between(step, plan.total_steps))

    def _evaluation(self, step_seconds: float) -> Span:
        """Seconds of one: as measured, or by the FLOPs, of which nobody knows how fast they are without a backward."""
        took = self._took[State.EVALUATE]
        if took:
            return Span.measured(took)
        rehearsed = self.session.expected_evaluation
        if rehearsed is not None:
            return Span(1.1 * rehearsed, 0.6 * rehearsed, 2.0 * rehearsed)
        guess = evaluation_guess(self.loop.plan, step_seconds, self.planning.asked_adapter())
        # Samples are written token by token, which no step tells the time of.
        return Span(guess, 0.4 * guess, (2.0 if self.loop.sampling is None else 5.0) * guess)

    def _save(self) -> Span:
        """Seconds of one: as measured, or its bytes by the speed of the volume, which a first write seldom tells."""
        took = self._took[State.SAVE]
        if took:
            return Span.measured(took)
        written = self.session.save_seconds() or 0.0
        return Span(SAVE_ITSELF.expected + written, SAVE_ITSELF.low + written / 2, SAVE_ITSELF.high + 3 * written)

    def _saves(self, step: int, seconds: float, evaluations: int) -> Span:
        """How many are left: by steps, by the clock where they come further apart, and one for each that is better."""
        plan = self.loop.plan
        times = due(step, plan.total_steps, plan.save_every)
        if plan.save_minutes is not None:
            times = max(times, 1 + int(seconds / (60 * plan.save_minutes)))
        better = evaluations if plan.tracks_best else 0
        return Span(times + better / 2, times, times + better)


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
