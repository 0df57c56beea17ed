"""Token ids of a set of documents, kept flat: two arrays for any number of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tollgate_trainer.data import chat
from tollgate_trainer.data.documents import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 1000
IGNORED = -100
"""The label of a token that carries no loss."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sequence. input_ids, labels: shape [tokens], int64; labels are IGNORED where no loss is taken."""

    input_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What became of the documents. Counts; tokens are those of the kept, truncated samples."""

    documents: int
    samples: int
    duplicates: int
    tokens: int
    loss_tokens: int
    truncated_samples: int
    truncated_tokens: int
    dropped_samples: int
    longest: int


class TokenSet(Sequence[Sample]):
    """The samples of a split and the documents that they were made of (same index)."""

    def __init__(self, documents: Sequence[Document], samples: Sequence[Sample], statistics: Statistics) -> None:
        self.documents = tuple(documents)
        self.statistics = statistics
        lengths = [len(sample.input_ids) for sample in samples]
        self.lengths: npt.NDArray[np.int64] = np.asarray(lengths, dtype=np.int64)
        self._ends = np.cumsum(self.lengths)
        empty = np.zeros(0, dtype=np.int32)
        self._ids = np.concatenate([empty, *(sample.input_ids.astype(np.int32) for sample in samples)])
        self._labels = np.concatenate([empty, *(sample.labels.astype(np.int32) for sample in samples)])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        end = int(self._ends[index])
        part = slice(end - int(self.lengths[index]), end)
        return Sample(self._ids[part].astype(np.int64), self._labels[part].astype(np.int64))


def encode(document: Document, tokenizer: PreTrainedTokenizerBase) -> Sample:
    """A whole document, not truncated. Text carries loss on all tokens, a conversation on the assistant's only."""
    if document.messages is not None:
        ids, mask = chat.encode(document, tokenizer)
        labels = [token if assistant else IGNORED for token, assistant in zip(ids, mask, strict=True)]
        return Sample(np.asarray(ids, dtype=np.int64), np.asarray(labels, dtype=np.int64))
    return _text(tokenizer(document.text, verbose=False)["input_ids"], tokenizer)


def _text(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Sample:
    ids = list(tokens)
    end = tokenizer.eos_token_id
    if end is not None and (not ids or ids[-1] != end):
        ids.append(end)  # where a text ends is part of what is learned
    array = np.asarray(ids, dtype=np.int64)
    return Sample(array, array.copy())


def _encoded(documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase) -> Iterator[Sample]:
    """`encode` of each document; texts go through the tokenizer many at a time, which is several times faster."""
    for start in range(0, len(documents), CHUNK):
        chunk = documents[start : start + CHUNK]
        texts = [document.text for document in chunk if document.messages is None]
        ids = iter(tokenizer(texts, verbose=False)["input_ids"] if texts else [])
        for document in chunk:
            yield encode(document, tokenizer) if document.messages is not None else _text(next(ids), tokenizer)


def tokenise(documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenSet:
    """Encode, truncate at the end to `max_length` tokens, and drop what has no loss left (counted, never silent).

    The first token of a sequence is never predicted, so a sample needs a label after it.
    """
    kept, samples = [], []
    truncated = lost = loss_tokens = 0
    for document, whole in zip(documents, _encoded(documents, tokenizer), strict=True):
        sample = Sample(whole.input_ids[:max_length], whole.labels[:max_length])
        truncated += len(whole.input_ids) > max_length
        lost += len(whole.input_ids) - len(sample.input_ids)
        predicted = int((sample.labels[1:] != IGNORED).sum())
        if predicted:
            kept.append(document)
            samples.append(sample)
            loss_tokens += predicted
    lengths = [len(sample.input_ids) for sample in samples]
    return TokenSet(
        kept,
        samples,
        Statistics(
            documents=len(documents),
            samples=len(samples),
            duplicates=len(documents) - len({document.hash for document in documents}),
            tokens=sum(lengths),
            loss_tokens=loss_tokens,
            truncated_samples=truncated,
            truncated_tokens=lost,
            dropped_samples=len(documents) - len(samples),
            longest=max(lengths, default=0),
        ),
    )
