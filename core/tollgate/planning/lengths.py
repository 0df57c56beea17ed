"""Lengths of documents in tokens, as 101 percentiles: enough to plan with, small enough to keep in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PAD_MULTIPLE = 8


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


def truncated_tokens(lengths: Lengths, limit: int) -> float:
    """Expected tokens that are left of all training documents when each is cut to `limit`.

    The exact sum, less what the percentiles above the limit lose; within a per cent of the exact answer.
    """
    lost = [max(0, at - limit) for at in lengths.percentiles]
    return max(0.0, lengths.tokens - _mean(lost) * lengths.documents)


def padded_width(lengths: Lengths, limit: int, batch: int) -> float:
    """Expected width of a batch of `batch` documents that are drawn at random and padded to the longest.

    E[max of b draws] is the integral of the quantile function over d(u^b); its step is the distance of percentiles.
    """
    total = 0.0
    for percent in range(1, 101):
        weight = (percent / 100) ** batch - ((percent - 1) / 100) ** batch
        middle = (min(limit, lengths.percentiles[percent - 1]) + min(limit, lengths.percentiles[percent])) / 2
        total += weight * _padded(middle)
    return total


def _padded(width: float) -> float:
    return math.ceil(width / PAD_MULTIPLE) * PAD_MULTIPLE


def _mean(values: Sequence[int]) -> float:
    """Of a piecewise linear function over 0..100 %: the ends count half."""
    return (sum(values) - (values[0] + values[-1]) / 2) / (len(values) - 1)
