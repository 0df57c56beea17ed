"""Which document goes into which split: decided by groups and texts alone, never by order or machine. Pure."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tollgate_trainer.data.document import Document
from tollgate_trainer.refusal import DatasetRefused

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True, slots=True)
class Crossing:
    """A group, or a text, that stands in two files. first, second: where."""

    what: str
    first: str
    second: str


def partition(
    documents: Sequence[Document], validation: float, test: float, seed: int | None = None
) -> dict[str, list[int]]:
    """The places of each split, in the order of the file; a split that was not asked for is absent.

    Documents of one group, and documents of one normalised text, stay together, also through each other: a text that
    two groups share joins them. What stays together is placed by its documents' keys (`split_key`, with which the
    trainer splits too: without a test split, a seed, and groups that share texts, the result is the trainer's). A split
    that was asked for gets at least one.

    Args: validation, test: shares of what stays together, in [0, 1); seed: another choice for each.
    Raises: DatasetRefused when a split would be empty.
    """
    clusters = together(documents)
    keyed = sorted((_key(documents, places, seed), places) for places in clusters)
    wanted = [name for name, share in ((VALIDATION, validation), (TEST, test)) if share > 0]
    if len(keyed) <= len(wanted):
        raise DatasetRefused(
            f"{len(documents):,} documents make {len(keyed):,} that can be parted (documents of one group or one text "
            f"stay together), too few for {len(wanted) + 1} splits; add documents or ask for fewer splits"
        )
    sides: dict[str, list[list[int]]] = {TRAIN: [], VALIDATION: [], TEST: []}
    first, second = int(validation * 2**64), int((validation + test) * 2**64)
    for key, places in keyed:
        position = int(key[:16], 16)
        side = VALIDATION if position < first else TEST if position < second else TRAIN
        sides[side].append(places)
    for name in wanted:
        if not sides[name]:
            donor = max(sides.values(), key=len)
            sides[name].append(donor.pop(0))
    if not sides[TRAIN]:
        sides[TRAIN].append(max((sides[name] for name in wanted), key=len).pop())
    return {name: sorted(place for places in found for place in places) for name, found in sides.items() if found}


def together(documents: Sequence[Document]) -> list[list[int]]:
    """The places of documents that must not be parted, by union over groups and normalised texts."""
    parent = list(range(len(documents)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[tuple[str, str], int] = {}
    for place, document in enumerate(documents):
        keys = [("text", document.hash)]
        if document.group is not None:
            keys.append(("group", document.group))
        for key in keys:
            other = root(first.setdefault(key, place))
            parent[max(other, root(place))] = min(other, root(place))
    clusters: dict[int, list[int]] = defaultdict(list)
    for place in range(len(documents)):
        clusters[root(place)].append(place)
    return list(clusters.values())


def _key(documents: Sequence[Document], places: Sequence[int], seed: int | None) -> str:
    keys = sorted({documents[place].split_key for place in places})
    if len(keys) == 1 and seed is None:
        return keys[0]
    return hashlib.sha256("\0".join(["" if seed is None else str(seed), *keys]).encode()).hexdigest()


def crossings(files: Sequence[tuple[str, Sequence[Document]]]) -> list[Crossing]:
    """Every group and every normalised text that stands in two of the files, once per pair of files."""
    found: list[Crossing] = []
    first: dict[tuple[str, str], tuple[int, str]] = {}
    told: set[tuple[str, str, int, int]] = set()
    for number, (_, documents) in enumerate(files):
        for document in documents:
            keys = [("text", document.hash)]
            if document.group is not None:
                keys.insert(0, ("group", document.group))
            for kind, key in keys:
                where, origin = first.setdefault((kind, key), (number, document.origin))
                mark = (kind, key, where, number)
                if where == number or mark in told:
                    continue
                told.add(mark)
                name = f"group {key!r}" if kind == "group" else f"text {' '.join(document.text.split())[:60]!r}"
                found.append(Crossing(name, origin, document.origin))
    return found
