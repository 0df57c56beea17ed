"""An evaluator: how varied replies are, as the share of words in them that are not repeated."""

from __future__ import annotations

import hashlib

import numpy as np

from tollgate_trainer.evaluate.generate import completions
from tollgate_trainer.evaluate.protocol import Subject, drawn
from tollgate_trainer.evaluate.samples import Mean, Measured

PROMPT_WORDS = 5


class DistinctWords:
    """The unit of sampling is the prompt: the first words of a held-out document."""

    name = "distinct_words"
    version = "1"

    def measure(self, subject: Subject) -> Measured:
        """Distinct words over words, summed over prompts; a reply without a word counts as one repeated word."""
        documents = drawn(subject.held_out, subject.limit, subject.seed, self.name)
        prompts = [" ".join(document.text.split()[:PROMPT_WORDS]) for document in documents]
        texts, decoding = completions(subject, prompts)
        words = [" ".join(answers).split() for answers in texts]
        totals = np.asarray([len(set(own)) for own in words], dtype=np.float64)
        weights = np.asarray([max(1, len(own)) for own in words], dtype=np.float64)
        asked = "sha256:" + hashlib.sha256("\n".join(prompts).encode()).hexdigest()
        units = tuple(document.hash for document in documents)
        return Measured(
            self.name, Mean(totals, weights), asked, self.name, self.version, units=units, decoding=decoding
        )
