"""What an evaluator is given and what it answers. All of them are found by the entry points `tollgate.evaluators`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tollgate.manifest import paths
from tollgate.manifest.sections import Evaluation
from tollgate_trainer.data.documents import Document
from tollgate_trainer.evaluate.samples import Measured

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GROUP = "tollgate.evaluators"


@dataclass(frozen=True)
class Subject:
    """A model under evaluation, the documents that it has not seen, and how it is to be evaluated.

    held_out: without duplicates, in the order of the dataset; empty for a model without a dataset. max_length: tokens
    of a sequence, as in training. seed: of every draw, so that the same dataset asks the same prompts. limit: at most
    so many documents, questions or prompts. settings: the manifest's `evaluation`; its paths are relative to `root`.
    trained_on: digest of the dataset that the model was trained on, None when nobody knows. anywhere: whether settings
    may name absolute paths, which a person at a keyboard may and a manifest may not. quotes: whether what is written
    may hold text of documents, prompts or replies.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    held_out: Sequence[Document]
    max_length: int
    seed: int
    limit: int
    settings: Evaluation = field(default_factory=Evaluation)
    root: Path = Path()
    trained_on: str | None = None
    anywhere: bool = False
    quotes: bool = True

    def find(self, path: str, field: str) -> Path:
        """The file or folder that a setting names. Raises: ManifestError when it leaves the root."""
        if self.anywhere and Path(path).is_absolute():
            return Path(path)
        return paths.resolve(self.root, path, field)


class Evaluator(Protocol):
    """Measures one metric or several that belong together. It raises when it can't: what was not measured is never a
    number.
    """

    name: str
    version: str

    def measure(self, subject: Subject) -> Measured | Sequence[Measured]:
        """The samples of each metric on this subject; the same for the same subject."""
        ...


def drawn(documents: Sequence[Document], count: int, seed: int, purpose: str) -> list[Document]:
    """At most `count` of the documents, the same ones whatever their order, kept in their order."""
    keys = [document.hash for document in documents]
    chosen = set(drawn_keys(keys, count, seed, purpose))
    return [document for document in documents if document.hash in chosen]


def drawn_keys(keys: Sequence[str], count: int, seed: int, purpose: str) -> list[str]:
    """At most `count` of the different keys, the same ones whatever their order."""

    def place(key: str) -> bytes:
        return hashlib.sha256(f"{purpose}\0{seed}\0{key}".encode()).digest()

    return sorted(set(keys), key=place)[:count]
