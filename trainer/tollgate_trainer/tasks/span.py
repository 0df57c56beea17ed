"""Span: where in a text a question is answered, or a criterion met; or that it is not."""

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
from tollgate_trainer.data.document import Document
from tollgate_trainer.data.splits import Documents
from tollgate_trainer.lifecycle.state import Mode
from tollgate_trainer.models.heads import Head
from tollgate_trainer.tasks import answers
from tollgate_trainer.tasks.answers import Found, best_span, over_windows
from tollgate_trainer.tasks.inputs import Inputs, forward, padded
from tollgate_trainer.tasks.protocol import Batch, Measurement
from tollgate_trainer.tasks.samples import SampleSet, TaskSplits
from tollgate_trainer.tasks.windows import Window, Windowing, windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_THRESHOLD = 0.0
"""Of doubt, where none could be chosen: "no answer" when it scores higher than the best span."""
SPAN_METRICS: dict[str, Mode] = {
    "eval_exact_match": "max",
    "eval_token_f1": "max",
    "eval_no_answer_accuracy": "max",
}
_FEWEST = 8  # held-out documents on each side, with and without an answer, for choosing a threshold


@dataclass(frozen=True, slots=True)
class Span:
    """The task. unanswered: whether training documents without an answer exist; else a span is always given.
    longest: tokens of an answer.
    """

    inputs: Inputs
    windowing: Windowing
    longest: int
    unanswered: bool

    @property
    def head(self) -> Head:
        """Two outputs for each token: begins here, ends here."""
        return Head("span")

    @property
    def measured(self) -> dict[str, Mode]:
        """Mean loss per window (nats), and what the answers are worth per document."""
        return {"eval_loss": "min", **SPAN_METRICS}

    @property
    def by_sample(self) -> bool:
        """An answer is chosen over all windows of its document."""
        return True

    def encode(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, manifest: TrainingManifest
    ) -> TaskSplits:
        """Each document as overlapping windows."""
        return TaskSplits(
            windows(documents.train, tokenizer, self.windowing, learning=True),
            windows(documents.validation, tokenizer, self.windowing),
            documents.digest,
        )

    def collate(self, samples: Sequence[Window]) -> Batch:
        """Padded inputs, start_positions and end_positions of shape [windows]."""
        return padded(samples, self.inputs) | positions(samples)

    def measure(self, model: Any, batch: Batch, samples: Sequence[Window]) -> Measurement:
        """The sum of the windows' losses in nats; rows: (no answer's score, best span's, its characters)."""
        output = forward(model, batch)
        starts, ends = output.start_logits.float(), output.end_logits.float()
        loss = span_loss(starts, ends, batch)
        return Measurement(float(loss), float(len(samples)), tuple(found(starts, ends, samples, self.longest)))

    def metrics(
        self, loss_sum: float, count: float, rows: Sequence[tuple[int, Any]], held_out: SampleSet
    ) -> dict[str, float]:
        """eval_loss, the span metrics, eval_null_threshold where one was chosen, and how many documents were judged."""
        known = {"eval_loss": loss_sum / count} if count else {}
        return known | span_metrics(per_document(rows, held_out), self.unanswered)

    def document(self, metrics: Mapping[str, float]) -> dict[str, Any] | None:
        """Windows, longest answer, and the threshold of doubt above which there is no answer (None: always one)."""
        return {
            "task": "span",
            "max_length": self.inputs.max_length,
            "segments": self.inputs.segments,
            **span_document(self.windowing, self.longest, self.unanswered, metrics),
        }


def span_document(windowing: Windowing, longest: int, unanswered: bool, metrics: Mapping[str, float]) -> dict[str, Any]:
    """The span's part of task.json."""
    chosen = metrics.get("eval_null_threshold")
    return {
        "doc_stride": windowing.stride,
        "max_answer_tokens": longest,
        "null_threshold": None if not unanswered else DEFAULT_THRESHOLD if chosen is None else chosen,
        "calibrated": unanswered and chosen is not None,
    }


def positions(samples: Sequence[Window]) -> Batch:
    """start_positions, end_positions: [windows]."""
    return {
        "start_positions": torch.tensor([sample.start for sample in samples]),
        "end_positions": torch.tensor([sample.end for sample in samples]),
    }


def span_loss(starts: torch.Tensor, ends: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Sum over the windows of the mean of both losses, as the library's heads take it."""
    begin = functional.cross_entropy(starts, batch["start_positions"], reduction="sum")
    return (begin + functional.cross_entropy(ends, batch["end_positions"], reduction="sum")) / 2


def found(starts: torch.Tensor, ends: torch.Tensor, samples: Sequence[Window], longest: int) -> list[Any]:
    """(null, best, start, end) of each window, plain numbers."""
    begin, finish = starts.cpu().numpy(), ends.cpu().numpy()
    rows = []
    for row, sample in enumerate(samples):
        tokens = len(sample.input_ids)
        one = best_span(begin[row, :tokens], finish[row, :tokens], sample.offsets, longest)
        rows.append((one.null, one.best, one.start, one.end))
    return rows


def per_document(rows: Sequence[tuple[int, Any]], held_out: SampleSet) -> list[tuple[Document, Found]]:
    """The best span of each document over its windows."""
    grouped = groupby(rows, key=lambda row: held_out[row[0]].document)
    found = []
    for _, group in grouped:
        mine = list(group)
        found.append((held_out.documents[mine[0][0]], over_windows(Found(*row) for _, row in mine)))
    return found


@dataclass(frozen=True, slots=True)
class Judged:
    """A document, what was answered, and what that is worth."""

    document: Document
    found: Found
    answer: str
    exact: bool
    f1: float


def judge(document: Document, found: Found, threshold: float | None) -> Judged:
    """What the answer at this threshold is worth."""
    answer, right = found.answer(document.text, threshold), [one.text for one in document.answers or ()]
    return Judged(document, found, answer, answers.exact_match(answer, right), answers.token_f1(answer, right))


def threshold_for(found: Sequence[tuple[Document, Found]]) -> float | None:
    """The threshold of doubt with the best token F1 on the documents that it may be chosen on.

    None where too few are left, on either side, with or without an answer.
    """
    choosing = [(document, one) for document, one in found if answers.calibrates(document)]
    judged = [document for document, _ in found if not answers.calibrates(document)]
    for group in ([document for document, _ in choosing], judged):
        silent = sum(not document.answers for document in group)
        if min(silent, len(group) - silent) < _FEWEST:
            return None
    right = [[one.text for one in document.answers or ()] for document, _ in choosing]
    return answers.choose_threshold(
        [one.doubt for _, one in choosing],
        [answers.token_f1(one.answer(d.text, None), r) for (d, one), r in zip(choosing, right, strict=True)],
        [answers.token_f1(answers.NO_ANSWER, r) for r in right],
    )


def span_metrics(found: Sequence[tuple[Document, Found]], unanswered: bool) -> dict[str, float]:
    """The span metrics; a threshold is chosen on one half of the documents and judged on the other."""
    if not found or not all(math.isfinite(one.null) and math.isfinite(one.best) for _, one in found):
        return {}
    chosen = threshold_for(found) if unanswered else None
    judged = [
        judge(document, one, (DEFAULT_THRESHOLD if chosen is None else chosen) if unanswered else None)
        for document, one in found
        if chosen is None or not answers.calibrates(document)
    ]
    silent = [one.exact for one in judged if not one.document.answers]
    values = {
        "eval_exact_match": float(np.mean([one.exact for one in judged])),
        "eval_token_f1": float(np.mean([one.f1 for one in judged])),
        "eval_documents": float(len(judged)),
    }
    if silent:
        values["eval_no_answer_accuracy"] = float(np.mean(silent))
    if chosen is not None:
        values["eval_null_threshold"] = chosen
    return values
