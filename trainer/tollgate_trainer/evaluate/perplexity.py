"""Perplexity of held-out documents: e to the mean negative log-likelihood per token that training took its loss on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tollgate_trainer.data.documents import Document
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
        return Measured(
            self.name,
            Mean(-sums, counts, exponential=True),
            digest_of(tokens.documents, subject.max_length),
            self.name,
            self.version,
            units=tuple(document.hash for document in tokens.documents),
        )


def digest_of(documents: Sequence[Document], max_length: int) -> str:
    """`sha256:<hex>` of what was asked: the documents in their order, and where they were cut."""
    asked = "".join(f"{document.hash}\n" for document in documents)
    return "sha256:" + hashlib.sha256(f"{max_length}\n{asked}".encode()).hexdigest()
