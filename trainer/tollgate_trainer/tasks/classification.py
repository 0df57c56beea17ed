"""Classification: one label for a document, or for a question and a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.documents import Document
from tollgate_trainer.data.splits import Documents
from tollgate_trainer.data.tokens import Statistics
from tollgate_trainer.lifecycle.state import Mode
from tollgate_trainer.models.heads import Head
from tollgate_trainer.tasks import scores
from tollgate_trainer.tasks.inputs import Inputs, forward, padded
from tollgate_trainer.tasks.protocol import Batch, Measurement
from tollgate_trainer.tasks.samples import Samples, SampleSet, TaskSplits, forget_truncation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLASS_METRICS: dict[str, Mode] = {
    "eval_accuracy": "max",
    "eval_macro_f1": "max",
    "eval_macro_precision": "max",
    "eval_macro_recall": "max",
    "eval_auroc": "max",
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """One text and the number of its class. input_ids, segments: shape [tokens], int64."""

    input_ids: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    label: int


@dataclass(frozen=True, slots=True)
class Classification:
    """The task for the classes of the training documents."""

    labels: tuple[str, ...]
    inputs: Inputs

    @property
    def head(self) -> Head:
        """One output for each class."""
        return Head("classification", self.labels)

    @property
    def measured(self) -> dict[str, Mode]:
        """Mean loss per document (nats), and how the predicted classes fit the true ones."""
        return {"eval_loss": "min", **CLASS_METRICS}

    @property
    def by_sample(self) -> bool:
        """Macro-F1 and AUROC are no sums over batches."""
        return True

    def encode(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, manifest: TrainingManifest
    ) -> TaskSplits:
        """Each document as one sequence of at most max_seq_length tokens."""
        return TaskSplits(
            self.samples(documents.train, tokenizer), self.samples(documents.validation, tokenizer), documents.digest
        )

    def samples(self, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase) -> Samples:
        """As the tokenizer encodes a text (after its question, where it has one) for any classifier, cut at the end."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        samples, cut, lost = [], 0, 0
        for document in documents:
            pair = (document.question, document.text) if document.question else (document.text,)
            whole = tokenizer(*pair, verbose=False, return_token_type_ids=True)
            tokens = len(whole["input_ids"])
            if tokens > self.inputs.max_length:
                cut, lost = cut + 1, lost + tokens - self.inputs.max_length
                whole = tokenizer(
                    *pair,
                    truncation="longest_first",
                    max_length=self.inputs.max_length,
                    verbose=False,
                    return_token_type_ids=True,
                )
            samples.append(
                Labelled(
                    np.asarray(whole["input_ids"], dtype=np.int64),
                    np.asarray(whole["token_type_ids"], dtype=np.int64),
                    numbers[document.label or ""],
                )
            )
        forget_truncation(tokenizer)
        lengths = [len(sample.input_ids) for sample in samples]
        statistics = Statistics(
            documents=len(documents),
            samples=len(samples),
            duplicates=len(documents) - len({document.hash for document in documents}),
            tokens=sum(lengths),
            loss_tokens=len(samples),
            truncated_samples=cut,
            truncated_tokens=lost,
            dropped_samples=0,
            longest=max(lengths, default=0),
        )
        return Samples(documents, samples, lengths, statistics)

    def collate(self, samples: Sequence[Labelled]) -> Batch:
        """Padded inputs and labels of shape [samples]."""
        return padded(samples, self.inputs) | {"labels": torch.tensor([sample.label for sample in samples])}

    def measure(self, model: Any, batch: Batch, samples: Sequence[Labelled]) -> Measurement:
        """The sum of the losses in nats; rows: (true class, probability of each class)."""
        logits = forward(model, batch).logits.float()
        loss = functional.cross_entropy(logits, batch["labels"], reduction="sum")
        probabilities = logits.softmax(dim=-1).cpu().tolist()
        rows = tuple((sample.label, tuple(row)) for sample, row in zip(samples, probabilities, strict=True))
        return Measurement(float(loss), float(len(samples)), rows)

    def metrics(
        self, loss_sum: float, count: float, rows: Sequence[tuple[int, Any]], held_out: SampleSet
    ) -> dict[str, float]:
        """eval_loss, the class metrics and eval_documents; one that is undefined is absent."""
        found = {"eval_loss": loss_sum / count} if count else {}
        return found | class_metrics([row for _, row in rows]) | {"eval_documents": count}

    def document(self, metrics: Mapping[str, float]) -> dict[str, Any] | None:
        """The classes in the order of the outputs."""
        return {
            "task": "classification",
            "labels": list(self.labels),
            "max_length": self.inputs.max_length,
            "segments": self.inputs.segments,
        }


def class_metrics(rows: Sequence[tuple[int, Sequence[float]]]) -> dict[str, float]:
    """The class metrics of (true class, probabilities); those that are undefined are absent, all where one is NaN."""
    if not rows:
        return {}
    true = np.asarray([row[0] for row in rows], dtype=np.int64)
    probabilities = np.asarray([row[1] for row in rows], dtype=np.float64)
    if not np.isfinite(probabilities).all():
        return {}
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    values = {
        "eval_accuracy": scores.accuracy(true, predicted),
        "eval_macro_f1": scores.macro_f1(true, predicted, classes),
        "eval_macro_precision": scores.macro_precision(true, predicted, classes),
        "eval_macro_recall": scores.macro_recall(true, predicted, classes),
        "eval_auroc": scores.auroc(true, probabilities),
    }
    return {name: value for name, value in values.items() if np.isfinite(value)}
