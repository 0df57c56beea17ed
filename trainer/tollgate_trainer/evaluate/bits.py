"""bits_per_byte: how many bits a model needs for a byte of held-out text; it compares models with other tokenizers."""

from __future__ import annotations

import math

import numpy as np

from tollgate_trainer.data.tokens import IGNORED, tokenise
from tollgate_trainer.evaluate.likelihood import log_likelihoods
from tollgate_trainer.evaluate.perplexity import digest_of
from tollgate_trainer.evaluate.protocol import Subject, drawn
from tollgate_trainer.evaluate.samples import Mean, Measured
from tollgate_trainer.refusal import DatasetRefused


class BitsPerByte:
    """The same tokens as perplexity, over the bytes of UTF-8 that they stand for.

    Special tokens cost bits and have no bytes.

    A document that is cut to the training's length counts the bytes of its predicted tokens only, so two tokenizers
    look at other ends of it: compare models on documents that fit, or read the number of truncated ones in the report.
    """

    name = "bits_per_byte"
    version = "1"

    def measure(self, subject: Subject) -> Measured:
        """Bits and bytes per document. Raises: DatasetRefused when no held-out document has a byte to predict."""
        chosen = drawn(subject.held_out, subject.limit, subject.seed, "perplexity")
        tokens = tokenise(chosen, subject.tokenizer, subject.max_length)
        sums, _ = log_likelihoods(subject.model, tokens, subject.device)
        sizes = []
        for sample in tokens:
            predicted = [int(label) for label in sample.labels[1:] if label != IGNORED]
            sizes.append(len(str(subject.tokenizer.decode(predicted, skip_special_tokens=True)).encode()))
        weights = np.asarray(sizes, dtype=np.float64)
        kept = weights > 0
        if not kept.any():
            raise DatasetRefused(
                "no held-out document has a byte to predict, so bits_per_byte cannot be measured; hold out more "
                "documents or raise hyperparameters.max_seq_length",
                "dataset.splits.validation",
            )
        units = tuple(document.hash for document, keep in zip(tokens.documents, kept, strict=True) if keep)
        return Measured(
            self.name,
            Mean(-sums[kept] / math.log(2), weights[kept]),
            digest_of(tokens.documents, subject.max_length),
            self.name,
            self.version,
            units=units,
        )
