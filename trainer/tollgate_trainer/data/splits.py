"""From a manifest to documents, and from documents and a tokenizer to training and held-out samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.digest import Read, identified
from tollgate_trainer.data.document import Document
from tollgate_trainer.data.sources import Reading, Source, documents_of, held_out_source, sources_of
from tollgate_trainer.data.split import split
from tollgate_trainer.data.streaming import streamed
from tollgate_trainer.data.tokens import Statistics, TokenSet, tokenise
from tollgate_trainer.refusal import DatasetRefused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tollgate_trainer.data.cache import TokenCache


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of both splits, and the digest of the files that they came from.

    train: in memory or, with `dataset.streaming`, read anew whenever they are gone through. reading: what was met on
    the way (redactions, answers, documents by source), as the `data` event says it. cache: where token ids are kept;
    None is nowhere. files: what was read.
    """

    train: Sequence[Document]
    validation: Sequence[Document]
    digest: str
    reading: Mapping[str, Any] = field(default_factory=dict)
    cache: TokenCache | None = None
    files: tuple[Read, ...] = ()

    def record(self, manifest: TrainingManifest) -> dict[str, Any]:
        """For the finished model: the dataset's name and version as the manifest has them, its files with digest and
        size, and what was met in them.
        """
        said = manifest.dataset.model_dump(include={"name", "version", "commit_hash", "created_at"}, exclude_none=True)
        return {**said, "files": [asdict(file) for file in self.files], **self.reading}


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
    """Read the dataset after checking its digests and size; personal data is redacted first when that is asked for.

    Raises: DatasetRefused, ManifestError.
    """
    dataset = manifest.dataset
    identity = identified(manifest, dataset_root)
    sources, apart = sources_of(manifest, dataset_root), held_out_source(manifest, dataset_root)
    private, reading = dataset.privacy_preservation_enabled, Reading()
    held_out = list(documents_of([apart], reading, private=private)) if apart is not None else None
    train: Sequence[Document]
    if dataset.streaming:
        train, validation = streamed(sources, reading, held_out, dataset.splits.validation, private)
    else:
        documents = list(documents_of(sources, reading, private=private))
        if held_out is None:
            train, validation = split(documents, dataset.splits.validation)
        else:
            train, validation = documents, held_out
    reading.tally.check()
    if apart is not None:
        refuse_overlap(train, validation, apart, dataset.path)
    said = reading.event(private=private)
    found = Documents(tuple_of(train), tuple(validation), identity.digest, said, files=identity.files)
    return limited(found, dataset.limit)


def tuple_of(documents: Sequence[Document]) -> Sequence[Document]:
    """A list becomes a tuple; documents that are not in memory stay outside of it."""
    return tuple(documents) if isinstance(documents, list) else documents


def refuse_overlap(train: Sequence[Document], held_out: Sequence[Document], apart: Source, shown: str) -> None:
    """Raises: DatasetRefused when a text or a group is on both sides of the split."""
    seen, groups = set(), set()
    for document in train:
        seen.add(document.hash)
        if document.group is not None:
            groups.add(document.group)
    if both := [document for document in held_out if document.hash in seen]:
        raise DatasetRefused(
            f"{len(both)} documents of {apart.shown} are in {shown} too (the first: {both[0].origin}); an "
            f"evaluation on them would judge memory: remove them from one of the two",
            apart.field,
        )
    if shared := sorted({document.group for document in held_out if document.group in groups and document.group}):
        raise DatasetRefused(
            f"{len(shared)} groups of {apart.shown} are in {shown} too (the first: {shared[0]!r}); documents of one "
            "group belong on one side: move them, or remove validation_path to let the groups be split",
            "dataset.group_field",
        )


def limited(documents: Documents, limit: int | None) -> Documents:
    """At most `limit` documents to train on and as large a share of the held-out ones, in their order.

    Which ones is decided by the hash of their text; a split that has documents keeps at least one.
    """
    if limit is None or len(documents.train) <= limit:
        return documents
    share = limit / len(documents.train)
    return replace(
        documents,
        train=_first_by_hash(documents.train, limit),
        validation=_first_by_hash(documents.validation, math.ceil(share * len(documents.validation))),
    )


def _first_by_hash(documents: Sequence[Document], count: int) -> tuple[Document, ...]:
    """Only hashes are held for all, so that a few can be taken out of more than fit into memory."""
    hashes = [document.hash for document in documents]
    chosen = set(sorted(range(len(hashes)), key=lambda i: (hashes[i], i))[:count])
    return tuple(document for number, document in enumerate(documents) if number in chosen)


def tokenise_documents(documents: Documents, tokenizer: PreTrainedTokenizerBase, manifest: TrainingManifest) -> Splits:
    """Both splits as samples of at most `hyperparameters.max_seq_length` tokens; those of an earlier start are taken
    from `documents.cache`.

    Raises: DatasetRefused when no sample is left to train on.
    """
    length = manifest.hyperparameters.max_seq_length
    cache, parts = documents.cache, {"train": documents.train, "validation": documents.validation}
    if cache is not None:
        made = {name: cache.tokenised(name, part, tokenizer, length) for name, part in parts.items()}
    else:
        made = {name: tokenise(part, tokenizer, length) for name, part in parts.items()}
    splits = Splits(made["train"], made["validation"], documents.digest)
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
