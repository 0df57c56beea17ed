"""The classes of a classification: found in the training documents, in sorted order. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tollgate_trainer.data.documents import Document
from tollgate_trainer.refusal import DatasetRefused

SHOWN = 3
_FEW = 8  # documents; below that every label may well occur once


def classes(train: Sequence[Document], held_out: Sequence[Document]) -> tuple[str, ...]:
    """The labels of the training documents, sorted; a class's place in it is its number.

    Raises: DatasetRefused for a document without a label, for fewer than two classes, for labels that all differ (the
    wrong column), and for held-out documents with a label that no training document has.
    """
    if unlabelled := [document for document in (*train, *held_out) if not document.label]:
        raise DatasetRefused(
            f"{len(unlabelled)} documents have no label (the first: {_origins(unlabelled)}); label or remove them, or "
            "set dataset.format to classification so that the label's field is read",
            "dataset.format",
        )
    counts = Counter(document.label for document in train if document.label)
    if len(counts) < 2:
        raise DatasetRefused(
            f"all training documents have the label {next(iter(counts))!r}, so there is nothing to tell apart; add "
            "documents of another class",
            "dataset.path",
        )
    if len(counts) == len(train) >= _FEW:
        raise DatasetRefused(
            f"each of the {len(train)} training documents has a label of its own (for example "
            f"{', '.join(map(repr, sorted(counts)[:SHOWN]))}): that is no class; name the field that holds the label",
            "dataset.format",
        )
    unknown = [document for document in held_out if document.label not in counts]
    if unknown:
        told = ", ".join(f"{label!r} ({n})" for label, n in Counter(d.label for d in unknown).most_common(SHOWN))
        raise DatasetRefused(
            f"{len(unknown)} of {len(held_out)} held-out documents have a label that no training document has: {told}; "
            f"the first is {unknown[0].origin}. Add training documents of these classes, merge them into others, "
            "remove them, or give a validation file in which they do not occur",
            "dataset.splits.validation",
        )
    return tuple(sorted(counts))


def _origins(documents: Sequence[Document]) -> str:
    return ", ".join(document.origin for document in documents[:SHOWN])
