"""From a manifest to documents, and from documents and a tokenizer to training and held-out samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tollgate.manifest import paths
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.digest import checked_digest
from tollgate_trainer.data.documents import Document, Form, read
from tollgate_trainer.data.formats import TABLES
from tollgate_trainer.data.split import split
from tollgate_trainer.data.tokens import Statistics, TokenSet, tokenise
from tollgate_trainer.refusal import DatasetRefused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of both splits, and the digest of the files that they came from."""

    train: tuple[Document, ...]
    validation: tuple[Document, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Splits:
    """What a run trains on and what it is judged on. `digest` is the dataset's."""

    train: TokenSet
    validation: TokenSet
    digest: str

    @property
    def stats(self) -> dict[str, Statistics]:
        """Counts of both splits, by their names."""
        return {"train": self.train.statistics, "validation": self.validation.statistics}


def load_documents(manifest: TrainingManifest, dataset_root: Path) -> Documents:
    """Read the dataset after checking its digest and size.

    Raises: DatasetRefused, ManifestError.
    """
    dataset = manifest.dataset
    digest = checked_digest(manifest, dataset_root)
    path = paths.resolve(dataset_root, dataset.path, "dataset.path")
    form = form_of(manifest)
    documents = read(path, form, dataset.path)
    if dataset.splits.validation_path is None:
        train, validation = split(documents, dataset.splits.validation)
        return limited(Documents(tuple(train), tuple(validation), digest), dataset.limit)
    name = dataset.splits.validation_path
    held_out = read(paths.resolve(dataset_root, name, "dataset.splits.validation_path"), form, name)
    seen = {document.hash for document in documents}
    if both := [document for document in held_out if document.hash in seen]:
        raise DatasetRefused(
            f"{len(both)} documents of {name} are in {dataset.path} too (the first: {both[0].origin}); an "
            f"evaluation on them would judge memory: remove them from one of the two",
            "dataset.splits.validation_path",
        )
    return limited(Documents(tuple(documents), tuple(held_out), digest), dataset.limit)


def form_of(manifest: TrainingManifest) -> Form:
    """How the dataset's records are read; a task with targets reads them unless the manifest says otherwise."""
    dataset = manifest.dataset
    return Form(
        format=manifest.task if dataset.format == "auto" and manifest.task in TABLES else dataset.format,
        text=dataset.text_field,
        label=dataset.label_field,
        question=dataset.question_field,
        answer=dataset.answer_field,
        answer_start=dataset.answer_start_field,
        group=dataset.group_field,
    )


def limited(documents: Documents, limit: int | None) -> Documents:
    """At most `limit` documents to train on and as large a share of the held-out ones, in their order.

    Which ones is decided by the hash of their text; a split that has documents keeps at least one.
    """
    if limit is None or len(documents.train) <= limit:
        return documents
    share = limit / len(documents.train)
    return Documents(
        _first_by_hash(documents.train, limit),
        _first_by_hash(documents.validation, math.ceil(share * len(documents.validation))),
        documents.digest,
    )


def _first_by_hash(documents: tuple[Document, ...], count: int) -> tuple[Document, ...]:
    chosen = sorted(range(len(documents)), key=lambda i: (documents[i].hash, i))[:count]
    return tuple(documents[i] for i in sorted(chosen))


def tokenise_documents(documents: Documents, tokenizer: PreTrainedTokenizerBase, manifest: TrainingManifest) -> Splits:
    """Both splits as samples of at most `hyperparameters.max_seq_length` tokens.

    Raises: DatasetRefused when no sample is left to train on.
    """
    length = manifest.hyperparameters.max_seq_length
    splits = Splits(
        tokenise(documents.train, tokenizer, length),
        tokenise(documents.validation, tokenizer, length),
        documents.digest,
    )
    if not len(splits.train):
        raise DatasetRefused(
            f"no training sample has a token to learn within max_seq_length={length}; raise it",
            "hyperparameters.max_seq_length",
        )
    return splits


def load_splits(manifest: TrainingManifest, dataset_root: Path, tokenizer: PreTrainedTokenizerBase) -> Splits:
    """Documents and samples of a manifest in one call; the same in training and in evaluation.

    Raises: DatasetRefused, ModelRefused, ManifestError.
    """
    return tokenise_documents(load_documents(manifest, dataset_root), tokenizer, manifest)
