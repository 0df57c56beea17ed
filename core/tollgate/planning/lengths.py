"""Lengths of documents in tokens, as 101 percentiles: what a length is chosen by, and what people are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens per training document before truncation. percentiles: 0, 1, ... 100, ascending; documents: how many.

    tokens: their exact sum; validation: held-out documents and their tokens.
    """

    documents: int
    tokens: int
    percentiles: tuple[int, ...]
    validation_documents: int = 0
    validation_tokens: int = 0

    def at(self, percent: int) -> int:
        """Tokens that `percent` of the documents do not exceed."""
        return self.percentiles[percent]

    @property
    def longest(self) -> int:
        """Of the longest document."""
        return self.percentiles[-1]


def lengths_of(tokens: Sequence[int], validation: Sequence[int] = ()) -> Lengths:
    """The percentiles (nearest rank) of a list of lengths.

    Raises: ValueError without a document: of nothing no length is known.
    """
    if not tokens:
        raise ValueError("no document has a token")
    ordered = sorted(tokens)
    ranks = (max(0, math.ceil(percent / 100 * len(ordered)) - 1) for percent in range(101))
    return Lengths(len(ordered), sum(ordered), tuple(ordered[rank] for rank in ranks), len(validation), sum(validation))
