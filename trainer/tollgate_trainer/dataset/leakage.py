"""Texts of one split that stand, almost word for word, in another: found by MinHash, verified by exact Jaccard. Pure.

A pair counts when its sets of five-word shingles have a Jaccard similarity of at least the threshold. MinHash (Broder
1997, by datasketch) only proposes candidates: 21 bands of 6 rows find a pair at 0.8 with probability 99.8 % and at 0.9
with more than 99.99 %; each candidate is then compared exactly, so nothing is reported that is not so.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tollgate_trainer.data.document import Document

SHINGLE = 5
THRESHOLD = 0.8
PERMUTATIONS = 126
BANDS, ROWS = 21, 6
WORST = 20

# Scripts that put no space between words: each character is a word. Han, kana, Thai, Lao, Myanmar, Khmer.
_WORD = re.compile(
    "[\u2e80-\u2fdf\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
    "|[^\\W_]+"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two documents of different splits and how much they share, in (0, 1]; 1.0 with another text: another order or
    another punctuation.
    """

    left: Document
    right: Document
    jaccard: float


@dataclass(frozen=True, slots=True)
class Leakage:
    """pairs: how many; documents: of the left side that are in one; worst: the most similar pairs, at most WORST."""

    pairs: int
    documents: int
    worst: tuple[Pair, ...]


def words(text: str) -> list[str]:
    """The words of a text without case, width and punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def shingles(text: str) -> frozenset[str]:
    """All runs of SHINGLE words; a shorter text is one shingle, a text without words none."""
    found = words(text)
    if not found:
        return frozenset()
    return frozenset(" ".join(found[i : i + SHINGLE]) for i in range(max(len(found) - SHINGLE + 1, 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection over size of the union, in [0, 1]; 0 for two empty sets."""
    both = len(one & other)
    return both / (len(one) + len(other) - both) if both else 0.0


def exact(left: Sequence[Document], right: Sequence[Document]) -> Leakage:
    """Documents of `left` whose normalised text is that of a document of `right`; one pair per such document."""
    there: dict[str, Document] = {}
    for document in right:
        there.setdefault(document.hash, document)
    pairs = [Pair(document, there[document.hash], 1.0) for document in left if document.hash in there]
    return Leakage(len(pairs), len(pairs), tuple(pairs[:WORST]))


def near(left: Sequence[Document], right: Sequence[Document], threshold: float = THRESHOLD) -> Leakage:
    """Pairs of different normalised text with a similarity of at least `threshold`.

    Each text counts once, however often it occurs in its split.
    Args: left: usually the smaller, the held-out documents; threshold: in (0, 1].
    """
    from datasketch import MinHash, MinHashLSH

    ours, theirs = _distinct(left), _distinct(right)
    index = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, ROWS))
    for place, sketch in enumerate(_sketches(MinHash, ours)):
        index.insert(place, sketch, check_duplication=False)
    worst: list[tuple[float, int, int]] = []
    pairs = 0
    touched: set[int] = set()
    for there, sketch in enumerate(_sketches(MinHash, theirs)):
        for here in index.query(sketch):
            if ours[here][0].hash == theirs[there][0].hash:
                continue  # an exact one
            similarity = jaccard(ours[here][1], theirs[there][1])
            if similarity < threshold:
                continue
            pairs += 1
            touched.add(here)
            keep = heapq.heappushpop if len(worst) >= WORST else heapq.heappush
            keep(worst, (similarity, -here, -there))
    ordered = sorted(worst, key=lambda found: (-found[0], -found[1], -found[2]))
    return Leakage(
        pairs, len(touched), tuple(Pair(ours[-here][0], theirs[-there][0], score) for score, here, there in ordered)
    )


def _distinct(documents: Sequence[Document]) -> list[tuple[Document, frozenset[str]]]:
    first: dict[str, Document] = {}
    for document in documents:
        first.setdefault(document.hash, document)
    with_shingles = ((document, shingles(document.text)) for document in first.values())
    return [(document, found) for document, found in with_shingles if found]


def _sketches(sketch: type, documents: Sequence[tuple[Document, frozenset[str]]]) -> Iterable[object]:
    sets = ([shingle.encode() for shingle in found] for _, found in documents)
    made: Iterable[object] = sketch.generator(sets, num_perm=PERMUTATIONS, seed=1, hashfunc=zlib.crc32)  # type: ignore[attr-defined]
    return made
