"""A smaller set that is like the whole: strata by label, source and length, each with its share. Pure."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

from tollgate_trainer.data.document import Document

QUARTILES = 4


def draw(documents: Sequence[Document], count: int, seed: int) -> list[int]:
    """Places of `count` documents in the order of the file; all of them when there are no more.

    Each pair of label and source gets its share, and within it each quarter of the whole's lengths (in characters), by
    largest remainders: the count of a pair is off by less than one. Within a quarter documents are taken by a hash of
    seed and text, so the choice does not depend on the file's order; repeated texts are told apart by their number.
    Raises: ValueError when count is not positive.
    """
    if count < 1:
        raise ValueError(f"count is {count}, must be at least 1")
    if count >= len(documents):
        return list(range(len(documents)))
    order = _order(documents, seed)
    pairs = strata(documents)
    chosen: list[int] = []
    for quarters, quota in zip(pairs, apportioned([sum(map(len, pair)) for pair in pairs], count), strict=True):
        for places, seats in zip(quarters, apportioned([len(places) for places in quarters], quota), strict=True):
            chosen += sorted(places, key=order.__getitem__)[:seats]
    return sorted(chosen)


def strata(documents: Sequence[Document]) -> list[list[list[int]]]:
    """The places of each quarter of each pair of label and source, in a fixed order."""
    edges = quartile_edges([len(document.text) for document in documents])
    pairs: dict[tuple[str, str], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, document in enumerate(documents):
        label = "" if document.label is None else f"={document.label}"
        pairs[label, document.source][bisect_left(edges, len(document.text))].append(place)
    return [[pairs[key][quarter] for quarter in sorted(pairs[key])] for key in sorted(pairs)]


def quartile_edges(lengths: Sequence[int]) -> list[int]:
    """The three lengths up to which the first, second and third quarter of the documents go."""
    ordered = sorted(lengths)
    return [ordered[max(-(-len(ordered) * part // QUARTILES) - 1, 0)] for part in range(1, QUARTILES)]


def apportioned(sizes: Sequence[int], count: int) -> list[int]:
    """`count` seats by the largest remainders (Hamilton); each within one of its exact share and within its size.

    Args: count: at most the sum of the sizes.
    """
    total = sum(sizes)
    seats = [size * count // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(sizes[i] * count % total), i))
    for index in by_remainder[: count - sum(seats)]:
        seats[index] += 1
    return seats


def _order(documents: Sequence[Document], seed: int) -> list[str]:
    seen: dict[str, int] = defaultdict(int)
    keys = []
    for document in documents:
        identity = f"{document.hash}\0{document.question or ''}"
        keys.append(hashlib.sha256(f"{seed}\0{identity}\0{seen[identity]}".encode()).hexdigest())
        seen[identity] += 1
    return keys
