"""What the training loop needs to know about a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tollgate_trainer.lifecycle.state import Mode

if TYPE_CHECKING:
    import torch

    from tollgate_trainer.data.tokens import Sample

Batch = dict[str, "torch.Tensor"]


class Task(Protocol):
    """How samples become batches, and what is measured on held-out ones."""

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Samples of different lengths as tensors of one shape."""
        ...

    def measure(self, model: Any, batch: Batch) -> tuple[float, float]:
        """(sum of the losses, number of things they were taken over) of a held-out batch, in evaluation mode."""
        ...

    def metrics(self, loss_sum: float, count: float) -> dict[str, float]:
        """Named metrics from the sums over all batches and processes; a metric that cannot be had is absent."""
        ...

    @property
    def measured(self) -> dict[str, Mode]:
        """The metrics that `metrics` can give, each with `min` or `max` for what is better."""
        ...
