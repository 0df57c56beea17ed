"""What the training loop needs to know about a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.splits import Documents
from tollgate_trainer.lifecycle.state import Mode
from tollgate_trainer.models.heads import Head
from tollgate_trainer.tasks.samples import SampleSet, SampleSplits

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Batch = dict[str, "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one held-out batch gave.

    loss_sum, count: the sum of the losses and the number of things it was taken over; rows: one result per sample, in
    the order of the batch, for metrics that are no sums over batches. They travel between processes, so they are plain
    numbers and tuples. A task that measures by sums alone leaves them out.
    """

    loss_sum: float
    count: float
    rows: tuple[Any, ...] = ()


class Task(Protocol):
    """How documents become samples and samples batches, and what is measured on held-out ones."""

    @property
    def measured(self) -> dict[str, Mode]:
        """The metrics that `metrics` can give, each with `min` or `max` for what is better."""
        ...

    @property
    def head(self) -> Head | None:
        """What the model gives; None for a language model."""
        ...

    @property
    def by_sample(self) -> bool:
        """Whether `metrics` needs the rows of all samples, gathered over the processes."""
        ...

    def encode(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, manifest: TrainingManifest
    ) -> SampleSplits:
        """Both splits as samples. Raises: DatasetRefused."""
        ...

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Samples of different lengths as tensors of one shape."""
        ...

    def measure(self, model: Any, batch: Batch, samples: Sequence[Any]) -> Measurement:
        """A held-out batch, in evaluation mode; `samples` are what the batch was collated from."""
        ...

    def metrics(
        self, loss_sum: float, count: float, rows: Sequence[tuple[int, Any]], held_out: SampleSet
    ) -> dict[str, float]:
        """Named metrics from the sums and the rows over all batches and processes; one that cannot be had is absent.

        Args: rows: (index into held_out, row) in the order of the index; empty unless `by_sample`.
        """
        ...

    def document(self, metrics: Mapping[str, float]) -> dict[str, Any] | None:
        """What the finished model has to carry to be used (labels, threshold), None when the weights say it all.

        Args: metrics: of the evaluation of the weights that became the model; empty without one.
        """
        ...
