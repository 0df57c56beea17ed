"""What happens between two steps: look at the clock and the flags, decide together, log, evaluate, save, stop."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from tollgate_trainer.lifecycle.agreement import Flags
from tollgate_trainer.lifecycle.loop import TrainingLoop
from tollgate_trainer.lifecycle.state import Evaluated, after_evaluation
from tollgate_trainer.lifecycle.stop import Rhythm, StopCode
from tollgate_trainer.plan.forecasting import evaluation_guess


class StepEnd(TrainerCallback):
    """Joined to one TrainingLoop; the order of the checks in on_step_end is the policy."""

    def __init__(self, loop: TrainingLoop, when_steps_begin: Callable[[], object]) -> None:
        self.loop = loop
        self._when_steps_begin: Callable[[], object] | None = when_steps_begin
        self.session = loop.session
        self.plan = loop.plan
        self._begun = time.monotonic()
        self._saved_at = time.monotonic()
        self._logged = (time.monotonic(), 0)
        self._losses: Any = None
        self.exhausted = False

    # --- beginning --------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seeds of this process; a resumed one gets its own generators back just before its first batch."""
        seed = (self.loop.args.seed + 1_000_003 * self.session.attempt.rank + 7919 * state.global_step) % 2**32
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self._logged = (time.monotonic(), self.plan.order.tokens_until(state.global_step))
        self._saved_at = time.monotonic()
        if self.plan.deterministic:
            attempt = self.session.attempt
            folder = attempt.output_root / "logs" / "losses"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"attempt-{attempt.number}-rank-{attempt.rank}.jsonl"
            self._losses = path.open("a", encoding="utf-8", buffering=1)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The order of the coming epoch."""
        self.loop.batches.epoch = state.global_step // self.plan.order.steps_per_epoch

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The clock of one step."""
        if self._when_steps_begin is not None:
            self._when_steps_begin()
            self._when_steps_begin = None
        self._begun = time.monotonic()
        self.loop.step_loss.clear()

    # --- the end of a step ------------------------------------------------------------------------------------------

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Decide what comes next; all processes decide the same."""
        step = state.global_step
        self._note(step, state)
        last = step >= self.plan.total_steps
        remote = self.loop.remote
        busy = remote.saves.busy() if remote is not None else 0
        agreed = self.session.agreement.exchange(Flags(self._own_stop(step), self._save_is_due(), busy, 1))
        if remote is not None:
            remote.saves.observe(agreed.busy, bool(agreed.known))
        code = StopCode(agreed.stop)
        if code is not StopCode.NONE and (not last or code > StopCode.DEADLINE):
            self.loop.leave(code)
            control.should_training_stop, control.should_evaluate = True, False
            # All or none: the slowest process's doubt decides.
            control.should_save = self.session.agreement.now(int(not self.session.may_save())) == [0]
            return control
        control.should_evaluate = bool(len(self.plan.validation)) and (last or step % self.plan.eval_every == 0)
        every = self.plan.save_every
        control.should_save = last or bool(agreed.save) or (every is not None and step % every == 0)
        control.should_save = control.should_save or (remote is not None and remote.saves.due)
        return control

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> Any:
        """Patience and the best checkpoint; a metric that is not finite is never best."""
        evaluated = Evaluated(state.global_step, dict(metrics or {}))
        name = self.plan.best_metric
        if name not in evaluated.metrics:
            if self.plan.tracks_best:
                message = f"{name} is undefined on the held-out documents; this evaluation is neither better nor worse"
                self.session.say("warning", step=state.global_step, message=message)
            return control
        value = evaluated.metrics[name]
        if not math.isfinite(value):
            self.session.say("warning", step=state.global_step, message=f"{name} is {value}; it never counts as best")
        self.session.state, better = after_evaluation(
            self.session.state, evaluated, name, self.plan.best_mode, self.plan.min_delta
        )
        self.session.progress.eval_loss = evaluated.metrics.get("eval_loss")
        if self.plan.tracks_best and better:
            control.should_save = True
        if self.plan.patience is not None and self.session.state.bad_evaluations >= self.plan.patience:
            self.exhausted = True
            control.should_save = control.should_training_stop = True
            self.session.say(
                "early_stop",
                step=state.global_step,
                message=f"{name} has not improved in {self.session.state.bad_evaluations} evaluations",
            )
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The clock of saving by minutes starts again."""
        self._saved_at = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """One line for people and reports."""
        if not logs or "loss" not in logs or "learning_rate" not in logs:
            return
        step, progress = state.global_step, self.session.progress
        progress.loss, progress.learning_rate = float(logs["loss"]), float(logs["learning_rate"])
        progress.grad_norm = float(logs["grad_norm"]) if "grad_norm" in logs else None
        now, tokens = time.monotonic(), self.plan.order.tokens_until(step)
        since, before = self._logged
        self._logged = (now, tokens)
        self.session.say(
            "step",
            step=step,
            total_steps=self.plan.total_steps,
            epoch=round(float(state.epoch or 0.0), 4),
            loss=progress.loss,
            learning_rate=progress.learning_rate,
            grad_norm=progress.grad_norm,
            tokens=tokens,
            tokens_per_second=round((tokens - before) / max(now - since, 1e-9), 1),
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close what was opened."""
        if self._losses is not None:
            self._losses.close()

    # --- parts ------------------------------------------------------------------------------------------------------

    def _note(self, step: int, state: Any) -> None:
        self.session.steps.add(time.monotonic() - self._begun)
        progress = self.session.progress
        progress.step, progress.epoch = step, float(state.epoch or 0.0)
        progress.tokens, progress.samples = self.plan.order.tokens_until(step), self.plan.order.samples_until(step)
        progress.touch()
        if self._losses is not None:
            record = {"step": step, "loss": self.loop.local_loss().hex(), "grad_norm": self.loop.last_grad_norm.hex()}
            self._losses.write(json.dumps(record) + "\n")

    def _own_stop(self, step: int) -> StopCode:
        # On a GPU reading the loss would wait for the device; there the reduced norm, already read, has to do.
        if self.loop.args.device.type == "cpu" and not math.isfinite(self.loop.local_loss()):
            return StopCode.NON_FINITE
        return self.session.own_stop(self._rhythm().until_next_chance(step, int(self.session.attempt.world > 1)))

    def _rhythm(self) -> Rhythm:
        """By what was measured; an evaluation that was not yet is guessed and rehearsed, a save goes by the volume."""
        plan, session = self.plan, self.session
        step, save = session.steps.p95() or 0.0, session.save_seconds() or 0.0
        held_out = bool(len(plan.validation))
        adapter = session.loaded.manifest.adapter.type != "none"
        evaluation = session.evaluation_seconds(evaluation_guess(plan, step, adapter) if held_out else 0.0)
        again = evaluation if plan.tracks_best and held_out else 0.0
        every = plan.eval_every if held_out else None
        return Rhythm(plan.total_steps, every, plan.save_every, step, evaluation, save, again + save)

    def _save_is_due(self) -> int:
        """By rank 0's clock; the others learn it by the agreement."""
        minutes = self.plan.save_minutes
        if minutes is None or not self.session.attempt.leads:
            return 0
        return int(time.monotonic() - self._saved_at >= minutes * 60)
