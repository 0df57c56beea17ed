"""What one training does: its samples in their order, its steps, and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass

from tollgate_trainer.data.order import Order
from tollgate_trainer.lifecycle.state import Mode
from tollgate_trainer.tasks.samples import SampleSet


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained on and how long."""

    order: Order
    train: SampleSet
    validation: SampleSet
    total_steps: int
    eval_every: int
    save_every: int | None
    save_minutes: float | None
    keep_last: int
    keep_best: int
    best_metric: str
    best_mode: Mode
    min_delta: float
    patience: int | None
    eval_batch: int
    deterministic: bool

    @property
    def tracks_best(self) -> bool:
        """Whether the best checkpoint is kept and becomes the model."""
        return self.keep_best > 0 or self.patience is not None
