"""Causal language modelling: predict the next token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.order import PAD_MULTIPLE
from tollgate_trainer.data.splits import Documents, tokenise_documents
from tollgate_trainer.data.tokens import IGNORED, Sample
from tollgate_trainer.lifecycle.state import Mode
from tollgate_trainer.models.heads import Head
from tollgate_trainer.tasks.protocol import Batch, Measurement
from tollgate_trainer.tasks.samples import SampleSet, SampleSplits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class CausalLM:
    """The task for one tokenizer's padding token."""

    pad_token_id: int

    @property
    def measured(self) -> dict[str, Mode]:
        """Mean loss per predicted token (nats), its exponential, and how many tokens that is."""
        return {"eval_loss": "min", "eval_perplexity": "min"}

    @property
    def head(self) -> Head | None:
        """A language model's own."""
        return None

    @property
    def by_sample(self) -> bool:
        """Sums say it all."""
        return False

    def encode(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, manifest: TrainingManifest
    ) -> SampleSplits:
        """Token by token, each predicted from those before it."""
        return tokenise_documents(documents, tokenizer, manifest)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """input_ids, attention_mask, labels: [samples, longest], padded at the end to a multiple of 8."""
        longest = max(len(sample.input_ids) for sample in samples)
        width = -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE
        ids = torch.full((len(samples), width), self.pad_token_id, dtype=torch.long)
        labels = torch.full((len(samples), width), IGNORED, dtype=torch.long)
        mask = torch.zeros((len(samples), width), dtype=torch.long)
        for row, sample in enumerate(samples):
            length = len(sample.input_ids)
            ids[row, :length] = torch.from_numpy(sample.input_ids)
            labels[row, :length] = torch.from_numpy(sample.labels)
            mask[row, :length] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def measure(self, model: Any, batch: Batch, samples: Sequence[Sample]) -> Measurement:
        """The sum of the negative log-likelihoods in nats, over the predicted tokens."""
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        targets = batch["labels"][:, 1:]
        if logits.ndim == 0:  # the sum itself, see models/chunked_loss.py
            return Measurement(float(logits), float((targets != IGNORED).sum()))
        total = functional.cross_entropy(
            logits[:, :-1].float().reshape(-1, logits.shape[-1]),
            targets.reshape(-1),
            ignore_index=IGNORED,
            reduction="sum",
        )
        return Measurement(float(total), float((targets != IGNORED).sum()))

    def metrics(
        self, loss_sum: float, count: float, rows: Sequence[tuple[int, Any]], held_out: SampleSet
    ) -> dict[str, float]:
        """eval_loss, eval_perplexity and eval_tokens; without a predicted token only the latter."""
        if count == 0:
            return {"eval_tokens": 0.0}
        loss = loss_sum / count
        # Beyond the largest double a perplexity has no number; the loss still says it.
        perplexity = math.exp(loss) if loss < 700 else math.inf
        return {"eval_loss": loss, "eval_perplexity": perplexity, "eval_tokens": count}

    def document(self, metrics: Mapping[str, float]) -> dict[str, Any] | None:
        """Nothing: the weights and the tokenizer say it all."""
        return None
