"""How the experts of a mixture are used, at every log: to the events, to Prometheus, and aloud when it is uneven."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.models.moe_lora.figures import Watch
from tollgate_trainer.models.moe_lora.routing import Routing

DIGITS = 5


class ExpertsLog(TrainerCallback):
    """Joined to a training of a mixture of LoRA experts."""

    def __init__(self, routing: Routing, session: Session) -> None:
        self.routing, self.session = routing, session
        self._watch = Watch()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What preflight routed is no training."""
        self.routing.take()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """The figures of all tokens since the last log."""
        if not logs or "loss" not in logs:
            return
        taken = self.routing.take()
        if taken is None:
            return
        progress = self.session.progress
        progress.expert_usage = {name: figures.usage for name, figures in taken.layers.items()}
        progress.routing_entropy = taken.routing_entropy
        self.session.say(
            "experts",
            step=state.global_step,
            routing_entropy=round(taken.routing_entropy, DIGITS),
            routing_entropy_nats=round(taken.routing_entropy_nats, DIGITS),
            load_entropy=_rounded(taken.load_entropy),
            balance_loss=round(taken.balance_loss, DIGITS),
            top_k=self.routing.top_k,
            usage={name: [round(value, DIGITS) for value in one.usage] for name, one in taken.layers.items()},
        )
        for message in self._watch.warnings(taken.layers):
            self.session.say("warning", step=state.global_step, message=message)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
