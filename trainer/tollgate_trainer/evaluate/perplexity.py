"""Perplexity of held-out documents: e to the mean negative log-likelihood per token that training took its loss on."""

from __future__ import annotations

import hashlib

from tollgate_trainer.data.tokens import tokenise
from tollgate_trainer.evaluate.likelihood import log_likelihoods
from tollgate_trainer.evaluate.protocol import Subject, drawn
from tollgate_trainer.evaluate.samples import Mean, Measured
from tollgate_trainer.refusal import DatasetRefused


class Perplexity:
    """All tokens of a text, the assistant's tokens of a conversation; documents are cut to the training's length."""

    name = "perplexity"
    version = "1"

    def measure(self, subject: Subject) -> Measured:
        """Nats and tokens per document. Raises: DatasetRefused when no held-out document has a token to predict."""
        chosen = drawn(subject.held_out, subject.limit, subject.seed, self.name)
        tokens = tokenise(chosen, subject.tokenizer, subject.max_length)
        if not len(tokens):
            raise DatasetRefused(
                "no held-out document has a token to predict, so perplexity cannot be measured; hold out more "
                "documents or raise hyperparameters.max_seq_length",
                "dataset.splits.validation",
            )
        sums, counts = log_likelihoods(subject.model, tokens, subject.device)
        asked = "".join(f"{document.hash}\n" for document in tokens.documents)
        digest = hashlib.sha256(f"{subject.max_length}\n{asked}".encode()).hexdigest()
        return Measured(self.name, Mean(-sums, counts, exponential=True), f"sha256:{digest}", self.name, self.version)
