"""What a set of documents is like, in numbers: lengths, duplicates, labels, roles, sources. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tollgate_trainer.data.document import Document

BINS = 12


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of `count` documents in one unit; p50 and p95 are nearest ranks, so each is a length that occurs."""

    count: int
    least: int
    mean: float
    p50: int
    p95: int
    most: int
    total: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Documents with start <= length < end; end is None for the open last one."""

    start: int
    end: int | None
    count: int


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Documents beyond the first of their kind: the same characters, and the same normalised text (which covers both).

    groups: how many texts occur more than once; worst: the origins of the most frequent one, () without any.
    """

    exact: int
    normalised: int
    groups: int
    worst: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conversations:
    """roles: messages by role; turns: messages per conversation; with_system, ends_elsewhere: conversations."""

    count: int
    roles: Mapping[str, int]
    turns: Lengths
    with_system: int
    ends_elsewhere: int


@dataclass(frozen=True, slots=True)
class Origin:
    """One source's share of the documents and of the length."""

    documents: int
    length: int


@dataclass(frozen=True, slots=True)
class Questions:
    """Span documents: how many have an answer in the text and how many have none; answers: of all documents."""

    documents: int
    answers: int
    unanswered: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Everything about one part of the data. labels, conversations, questions are None where no document has any."""

    lengths: Lengths
    histogram: tuple[Bin, ...]
    duplicates: Duplicates
    labels: Mapping[str, int] | None
    unlabelled: int
    conversations: Conversations | None
    questions: Questions | None
    sources: Mapping[str, Origin]
    groups: int | None
    longer_than_limit: int | None


def statistics(documents: Sequence[Document], lengths: Sequence[int], limit: int | None) -> Statistics:
    """Args: documents: at least one; lengths: of each in some unit, the same order; limit: in the same unit.

    Raises: ValueError when there is no document.
    """
    labels = Counter(document.label for document in documents if document.label is not None)
    groups = {document.group for document in documents if document.group is not None}
    return Statistics(
        lengths=summary(lengths),
        histogram=histogram(lengths),
        duplicates=duplicates(documents),
        labels=dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))) if labels else None,
        unlabelled=len(documents) - labels.total() if labels else 0,
        conversations=_conversations(documents),
        questions=_questions(documents),
        sources=_sources(documents, lengths),
        groups=len(groups) if groups else None,
        longer_than_limit=None if limit is None else sum(length > limit for length in lengths),
    )


def summary(lengths: Sequence[int]) -> Lengths:
    """Raises: ValueError when there is none: nothing has no mean."""
    if not lengths:
        raise ValueError("no lengths were given")
    ordered = sorted(lengths)
    total = sum(ordered)
    return Lengths(
        count=len(ordered),
        least=ordered[0],
        mean=total / len(ordered),
        p50=_rank(ordered, 0.5),
        p95=_rank(ordered, 0.95),
        most=ordered[-1],
        total=total,
    )


def _rank(ordered: Sequence[int], share: float) -> int:
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def histogram(lengths: Sequence[int], bins: int = BINS) -> tuple[Bin, ...]:
    """At most `bins` + 1 bins of one round width (1, 2 or 5 times a power of ten) that hold every length once.

    Where a few documents are far longer than the rest, the last bin is open, so that the rest can still be told apart.
    """
    if not lengths:
        return ()
    ordered = sorted(lengths)
    least, most = ordered[0], ordered[-1]
    end = most if most <= 3 * max(_rank(ordered, 0.95), 1) else _rank(ordered, 0.98)
    end = max(end, least)
    width = _round_width(math.ceil((end - least + 1) / bins))
    start = least // width * width
    counts = Counter(min((length - start) // width, (end - start) // width + 1) for length in ordered)
    last = (end - start) // width
    found = [Bin(start + i * width, start + (i + 1) * width, counts.get(i, 0)) for i in range(last + 1)]
    if counts.get(last + 1):
        found.append(Bin(start + (last + 1) * width, None, counts[last + 1]))
    return tuple(found)


def _round_width(least: int) -> int:
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= least:
                return factor * power
        power *= 10


def duplicates(documents: Sequence[Document]) -> Duplicates:
    """How many documents repeat another one."""
    exact = len(documents) - len({(d.text, d.question, d.label) for d in documents})
    kinds: dict[str, list[str]] = {}
    for document in documents:
        kinds.setdefault(kind(document), []).append(document.origin)
    repeated = [origins for origins in kinds.values() if len(origins) > 1]
    worst = max(repeated, key=len, default=[])
    return Duplicates(exact, len(documents) - len(kinds), len(repeated), tuple(worst))


def kind(document: Document) -> str:
    """What makes two documents the same one: normalised text, and what is asked of it; not the label."""
    return document.hash if document.question is None else f"{document.hash}\0{document.question.casefold().strip()}"


def _conversations(documents: Sequence[Document]) -> Conversations | None:
    talks = [document.messages for document in documents if document.messages]
    if not talks:
        return None
    roles = Counter(message.role for talk in talks for message in talk)
    return Conversations(
        count=len(talks),
        roles=dict(roles.most_common()),
        turns=summary([len(talk) for talk in talks]),
        with_system=sum(any(message.role == "system" for message in talk) for talk in talks),
        ends_elsewhere=sum(talk[-1].role != "assistant" for talk in talks),
    )


def _questions(documents: Sequence[Document]) -> Questions | None:
    asked = [document.answers for document in documents if document.answers is not None]
    if not asked:
        return None
    return Questions(len(asked), sum(len(answers) for answers in asked), sum(not answers for answers in asked))


def _sources(documents: Sequence[Document], lengths: Sequence[int]) -> dict[str, Origin]:
    found: dict[str, list[int]] = {}
    for document, length in zip(documents, lengths, strict=True):
        found.setdefault(document.source, []).append(length)
    return {name: Origin(len(each), sum(each)) for name, each in sorted(found.items())}
