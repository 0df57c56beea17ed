"""What an evaluator is given and what it answers. Others add theirs by the entry points `tollgate.evaluators`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tollgate_trainer.data.documents import Document
from tollgate_trainer.evaluate.samples import Measured

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GROUP = "tollgate.evaluators"


@dataclass(frozen=True)
class Subject:
    """A model under evaluation and the documents that it has not seen.

    held_out: without duplicates, in the order of the dataset. max_length: tokens of a sequence, as in training. seed:
    of every draw, so that the same dataset asks the same prompts. limit: at most so many documents or questions.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    held_out: Sequence[Document]
    max_length: int
    seed: int
    limit: int


class Evaluator(Protocol):
    """Measures one metric. It raises when it can't: a metric that was not measured is never a number."""

    name: str
    version: str

    def measure(self, subject: Subject) -> Measured:
        """The metric's samples on this subject; the same for the same subject."""
        ...


def drawn(documents: Sequence[Document], count: int, seed: int, purpose: str) -> list[Document]:
    """At most `count` of the documents, the same ones whatever their order, kept in their order."""

    def place(document: Document) -> bytes:
        return hashlib.sha256(f"{purpose}\0{seed}\0{document.hash}".encode()).digest()

    chosen = {document.hash for document in sorted(documents, key=place)[:count]}
    return [document for document in documents if document.hash in chosen]
