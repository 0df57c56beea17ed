"""What a model is taught by a document: which of its tokens carry loss, which are only read, which are cut off. Pure.

The first token of a sequence is never predicted, so it is only read; what stands beyond max_seq_length is cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tollgate_trainer.data.document import Document
from tollgate_trainer.data.tokens import IGNORED, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMED = 5


class Part(StrEnum):
    """What becomes of a token."""

    TRAINED = "trained"
    READ = "read"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens of one kind, as text."""

    part: Part
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Sums:
    """Over a whole split. tokens, trained: after cutting, of the documents that are kept; untaught: documents that lose
    all that carries loss, so that nothing is learned from them; firsts: where the first few of them stand.
    """

    documents: int
    tokens: int
    trained: int
    could_be_trained: int
    cut_documents: int
    cut_tokens: int
    untaught: int
    firsts: tuple[str, ...]

    @property
    def share(self) -> float | None:
        """Trained tokens of all tokens, in [0, 1]; None when there is no token."""
        return self.trained / self.tokens if self.tokens else None

    @property
    def everything(self) -> bool:
        """Whether every token that can be predicted carries loss."""
        return self.trained == self.could_be_trained > 0


def sums(documents: Sequence[Document], samples: Iterable[Sample], limit: int | None) -> Sums:
    """Args: samples: of each document, whole, in the same order; limit: max_seq_length, None for no limit."""
    tokens = trained = possible = cut_documents = cut_tokens = untaught = 0
    firsts: list[str] = []
    for document, sample in zip(documents, samples, strict=True):
        kinds = parts(sample, limit)
        cut = int((kinds == _CUT).sum())
        cut_documents += cut > 0
        cut_tokens += cut
        learned = int((kinds == _TRAINED).sum())
        kept = len(kinds) - cut
        if learned == 0:
            untaught += 1
            if len(firsts) < NAMED:
                firsts.append(document.origin)
        trained += learned
        tokens += kept
        possible += max(kept - 1, 0)
    return Sums(len(documents), tokens, trained, possible, cut_documents, cut_tokens, untaught, tuple(firsts))


_READ, _TRAINED, _CUT = 0, 1, 2
_NAMES = {_READ: Part.READ, _TRAINED: Part.TRAINED, _CUT: Part.CUT}


def parts(sample: Sample, limit: int | None) -> npt.NDArray[np.int8]:
    """The kind of each token, shape [tokens]."""
    kinds: npt.NDArray[np.int8] = (sample.labels != IGNORED).astype(np.int8)
    kinds[:1] = _READ
    if limit is not None:
        kinds[limit:] = _CUT
    return kinds


def segments(sample: Sample, limit: int | None, tokenizer: PreTrainedTokenizerBase) -> list[Segment]:
    """The sample's text in order; joined, the segments are what the tokenizer makes of all its tokens."""
    kinds = parts(sample, limit)
    if not len(kinds):
        return []
    edges = [0, *(int(i) + 1 for i in np.flatnonzero(np.diff(kinds))), len(kinds)]
    found, before = [], ""
    for start, end in itertools.pairwise(edges):
        # From the beginning each time: many tokenizers drop the space before the first token that they are given.
        text = str(tokenizer.decode(sample.input_ids[:end].tolist(), skip_special_tokens=False))
        found.append(Segment(_NAMES[int(kinds[start])], text[len(before) :], end - start))
        before = text
    return found


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` places of 0 .. count - 1 (or all), evenly spread, the first among them."""
    if wanted >= count:
        return list(range(count))
    return [place * count // wanted for place in range(wanted)]


def mark_of(part: Part) -> tuple[str, str]:
    """What stands around a segment where colours cannot be shown."""
    return {Part.TRAINED: ("[[", "]]"), Part.READ: ("", ""), Part.CUT: ("{{", "}}")}[part]


def warnings(sums: Sums, chat: bool, limit: int | None) -> list[str]:
    """What is almost certainly a mistake, in words. chat: whether the documents are conversations."""
    found = []
    if not sums.trained:
        found.append(
            "No token carries loss: nothing would be learned. Look at the chat template's {% generation %} block, and "
            "at max_seq_length."
        )
    elif chat and sums.everything:
        found.append(
            "Every token carries loss, also what the user and the system say: the model would learn to ask. Mark the "
            "assistant's turns in the chat template with {% generation %} ... {% endgeneration %}."
        )
    if sums.trained and sums.untaught:
        found.append(
            f"{sums.untaught:,} of {sums.documents:,} documents have no token left to learn within max_seq_length"
            f"{f' {limit:,}' if limit else ''} and are left out: {', '.join(sums.firsts)}."
        )
    return found
