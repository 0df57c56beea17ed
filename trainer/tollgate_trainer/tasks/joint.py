"""Joint: one model gives a document's class and the span that answers its question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.splits import Documents
from tollgate_trainer.lifecycle.state import Mode
from tollgate_trainer.models.heads import Head
from tollgate_trainer.tasks.classification import CLASS_METRICS, class_metrics
from tollgate_trainer.tasks.inputs import Inputs, forward, padded
from tollgate_trainer.tasks.protocol import Batch, Measurement
from tollgate_trainer.tasks.samples import SampleSet, TaskSplits
from tollgate_trainer.tasks.span import (
    SPAN_METRICS,
    found,
    per_document,
    positions,
    span_document,
    span_loss,
    span_metrics,
)
from tollgate_trainer.tasks.windows import Window, Windowing, windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LEAST = 1e-30  # a probability that vanished in fp32 still has a logarithm


@dataclass(frozen=True, slots=True)
class Joint:
    """The task. A document's class is the mean of its windows' log probabilities; each document counts once."""

    head: Head
    inputs: Inputs
    windowing: Windowing
    longest: int
    unanswered: bool

    @property
    def measured(self) -> dict[str, Mode]:
        """The weighted loss (nats) and the metrics of both tasks."""
        return {"eval_loss": "min", **CLASS_METRICS, **SPAN_METRICS}

    @property
    def by_sample(self) -> bool:
        """Both tasks need all samples."""
        return True

    def encode(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, manifest: TrainingManifest
    ) -> TaskSplits:
        """Each document as overlapping windows, each with the document's class."""
        labels = self.head.labels
        return TaskSplits(
            windows(documents.train, tokenizer, self.windowing, labels, learning=True),
            windows(documents.validation, tokenizer, self.windowing, labels),
            documents.digest,
        )

    def collate(self, samples: Sequence[Window]) -> Batch:
        """Padded inputs, labels, label_weights, start_positions and end_positions of shape [windows]."""
        return (
            padded(samples, self.inputs)
            | positions(samples)
            | {
                "labels": torch.tensor([sample.label for sample in samples]),
                "label_weights": torch.tensor([1.0 / sample.windows for sample in samples]),
            }
        )

    def measure(self, model: Any, batch: Batch, samples: Sequence[Window]) -> Measurement:
        """The sum of the windows' weighted losses; rows: (log probability of each class, the span's row)."""
        output = forward(model, batch)
        logits, starts, ends = output.logits.float(), output.start_logits.float(), output.end_logits.float()
        each = functional.cross_entropy(logits, batch["labels"], reduction="sum")
        loss = self.head.classification_weight * each + self.head.span_weight * span_loss(starts, ends, batch)
        chances = logits.log_softmax(dim=-1).cpu().tolist()
        spans = found(starts, ends, samples, self.longest)
        rows = tuple((tuple(one), span) for one, span in zip(chances, spans, strict=True))
        return Measurement(float(loss), float(len(samples)), rows)

    def metrics(
        self, loss_sum: float, count: float, rows: Sequence[tuple[int, Any]], held_out: SampleSet
    ) -> dict[str, float]:
        """eval_loss and the metrics of both tasks; eval_documents, and eval_span_documents whose spans were judged."""
        known = {"eval_loss": loss_sum / count} if count else {}
        spans = per_document([(index, row[1]) for index, row in rows], held_out)
        judged = span_metrics(spans, self.unanswered)
        if "eval_documents" in judged:  # fewer than all, where some chose the threshold
            judged["eval_span_documents"] = judged["eval_documents"]
        classes = class_metrics(document_classes(rows, held_out))
        return known | judged | classes | {"eval_documents": float(len(spans))}

    def document(self, metrics: Mapping[str, float]) -> dict[str, Any] | None:
        """Classes, weights and the span's part."""
        return {
            "task": "joint",
            "labels": list(self.head.labels),
            "encoders": self.head.encoders,
            "classification_weight": self.head.classification_weight,
            "span_weight": self.head.span_weight,
            "max_length": self.inputs.max_length,
            "segments": self.inputs.segments,
            **span_document(self.windowing, self.longest, self.unanswered, metrics),
        }


def document_classes(rows: Sequence[tuple[int, Any]], held_out: SampleSet) -> list[tuple[int, tuple[float, ...]]]:
    """(true class, probabilities) of each document, from the mean of its windows' log probabilities."""
    classified = []
    for _, group in groupby(rows, key=lambda row: held_out[row[0]].document):
        mine = list(group)
        mean = np.mean([[max(p, math.log(_LEAST)) for p in row[0]] for _, row in mine], axis=0)
        shares = np.exp(mean - mean.max())
        classified.append((held_out[mine[0][0]].label, tuple(float(p) for p in shares / shares.sum())))
    return classified
