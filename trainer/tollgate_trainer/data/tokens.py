"""Token ids of a set of documents, kept flat: three arrays for any number of samples."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from tollgate_trainer.data import chat
from tollgate_trainer.data.document import Document
from tollgate_trainer.refusal import ModelRefused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 1000
IGNORED = -100
"""The label of a token that carries no loss."""

Ids = npt.NDArray[np.int32]
Flags = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


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


@dataclass(frozen=True, slots=True)
class Arrays:
    """Samples laid end to end. ids, learned: shape [tokens], the token and 1 where it is a label; lengths, kept:
    shape [samples], the tokens of a sample and the number of its document.
    """

    ids: Ids
    learned: Flags
    lengths: Indices
    kept: Indices


class Store(Protocol):
    """Where samples go while they are made: memory, or a file that is mapped afterwards."""

    def add(self, ids: Ids, learned: Flags, document: int) -> None:
        """One more sample."""
        ...

    def arrays(self) -> Arrays:
        """All of them; nothing is added after this."""
        ...


class Memory:
    """Samples in memory."""

    def __init__(self) -> None:
        self._ids: list[Ids] = []
        self._learned: list[Flags] = []
        self._kept: list[int] = []

    def add(self, ids: Ids, learned: Flags, document: int) -> None:
        """One more sample."""
        self._ids.append(ids)
        self._learned.append(learned)
        self._kept.append(document)

    def arrays(self) -> Arrays:
        """All of them."""
        return Arrays(
            np.concatenate([np.zeros(0, dtype=np.int32), *self._ids]),
            np.concatenate([np.zeros(0, dtype=np.uint8), *self._learned]),
            np.asarray([len(ids) for ids in self._ids], dtype=np.int64),
            np.asarray(self._kept, dtype=np.int64),
        )


class Kept(Sequence[Document]):
    """The documents that became samples, by the sample's number; the others are passed over."""

    def __init__(self, documents: Sequence[Document], kept: Indices) -> None:
        self._documents = documents
        self._kept = kept

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Document:  # type: ignore[override]
        return self._documents[int(self._kept[index])]

    def __iter__(self) -> Iterator[Document]:
        """In one pass, as documents that are not in memory are read anew."""
        wanted = iter(self._kept.tolist())
        following = next(wanted, None)
        for number, document in enumerate(self._documents):
            if number == following:
                yield document
                following = next(wanted, None)


class TokenSet(Sequence[Sample]):
    """The samples of a split and the documents that they were made of (same index)."""

    def __init__(self, documents: Sequence[Document], arrays: Arrays, statistics: Statistics) -> None:
        self.documents: Sequence[Document] = Kept(documents, arrays.kept)
        self.statistics = statistics
        self.lengths: Indices = arrays.lengths
        self._ends = np.cumsum(arrays.lengths)
        self._arrays = arrays

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def first_learned(self) -> Indices:
        """Where the first token with a loss stands in each sample, from 1 (the first is predicted from nothing)."""
        if not len(self.lengths):
            return np.zeros(0, dtype=np.int64)
        starts = self._ends - self.lengths
        learned = np.flatnonzero(self._arrays.learned)
        learned = learned[~np.isin(learned, starts)]
        found: Indices = learned[np.searchsorted(learned, starts)] - starts  # every sample has one, or it was dropped
        return found

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        end = int(self._ends[index])
        part = slice(end - int(self.lengths[index]), end)
        ids = self._arrays.ids[part].astype(np.int64)
        return Sample(ids, np.where(self._arrays.learned[part] > 0, ids, IGNORED))


def encode(document: Document, tokenizer: PreTrainedTokenizerBase) -> Sample:
    """A whole document, not truncated. Text carries loss on all tokens, a conversation on the assistant's only, a
    prompt and its completion on the completion only.
    """
    ids, learned = _one(document, tokenizer)
    wide = ids.astype(np.int64)
    return Sample(wide, np.where(learned > 0, wide, IGNORED))


def _one(document: Document, tokenizer: PreTrainedTokenizerBase) -> tuple[Ids, Flags]:
    if document.completion is not None and not tokenizer.chat_template:
        return _completion(document.text, document.completion, tokenizer)
    if document.messages is not None:
        tokens, mask = chat.encode(document, tokenizer)
        return np.asarray(tokens, dtype=np.int32), np.asarray(mask, dtype=np.uint8)
    return _text(tokenizer(document.text, verbose=False)["input_ids"], tokenizer)


def _text(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[Ids, Flags]:
    ids = np.asarray(_ended(list(tokens), tokenizer), dtype=np.int32)
    return ids, np.ones(len(ids), dtype=np.uint8)


def _completion(text: str, begin: int, tokenizer: PreTrainedTokenizerBase) -> tuple[Ids, Flags]:
    """A token that holds the end of the prompt and the beginning of the completion is learned."""
    if not tokenizer.is_fast:
        raise ModelRefused(
            "the tokens of a completion can only be found with a fast tokenizer (tokenizer.json)", "model.tokenizer"
        )
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids = _ended(list(encoded["input_ids"]), tokenizer)
    learned = [end > begin for _, end in encoded["offset_mapping"]]
    learned += [True] * (len(ids) - len(learned))
    if ids and len(ids) == len(encoded["input_ids"]) and ids[-1] == tokenizer.eos_token_id:
        learned[-1] = True  # the tokenizer itself ends texts, with a token that has no place in the text
    return np.asarray(ids, dtype=np.int32), np.asarray(learned, dtype=np.uint8)


def _ended(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Where a text ends is part of what is learned."""
    end = tokenizer.eos_token_id
    return [*ids, end] if end is not None and (not ids or ids[-1] != end) else ids


def _encoded(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[Document, Ids, Flags]]:
    """Each document's tokens; texts go through the tokenizer many at a time, which is several times faster."""
    following = iter(documents)
    while chunk := list(islice(following, CHUNK)):
        texts = [document.text for document in chunk if document.messages is None]
        ids = iter(tokenizer(texts, verbose=False)["input_ids"] if texts else [])
        for document in chunk:
            made = _one(document, tokenizer) if document.messages is not None else _text(next(ids), tokenizer)
            yield document, *made


def tokenise(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    store: Store | None = None,
) -> TokenSet:
    """Encode, truncate at the end to `max_length` tokens, and drop what has no loss left (counted, never silent).

    The first token of a sequence is never predicted, so a sample needs a label after it. Documents are gone through
    once and are not kept; store: where the samples go, by default into memory.
    """
    store = store or Memory()
    seen = array("Q")
    samples = tokens = longest = truncated = lost = loss_tokens = 0
    for number, (document, ids, learned) in enumerate(_encoded(documents, tokenizer)):
        seen.append(int(document.hash[:16], 16))
        truncated += len(ids) > max_length
        lost += max(0, len(ids) - max_length)
        ids, learned = ids[:max_length], learned[:max_length]
        predicted = int(learned[1:].sum())
        if predicted:
            store.add(ids, learned, number)
            samples, tokens, loss_tokens = samples + 1, tokens + len(ids), loss_tokens + predicted
            longest = max(longest, len(ids))
    statistics = Statistics(
        documents=len(seen),
        samples=samples,
        duplicates=len(seen) - len(np.unique(np.asarray(seen, dtype=np.uint64))),
        tokens=tokens,
        loss_tokens=loss_tokens,
        truncated_samples=truncated,
        truncated_tokens=lost,
        dropped_samples=len(seen) - samples,
        longest=longest,
    )
    return TokenSet(documents, store.arrays(), statistics)
