"""Which documents share a row when a manifest packs them: rows of the first batch, as one process trains on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.document import Document
from tollgate_trainer.data.order import Order
from tollgate_trainer.data.tokens import IGNORED, Sample
from tollgate_trainer.dataset.show import heading, line, plural


@dataclass(frozen=True, slots=True)
class Place:
    """A document in a row."""

    origin: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Packed:
    """documents, rows: of an epoch; fill: share of the rows' tokens that are documents'; first: rows to look at."""

    documents: int
    rows: int
    row_tokens: int
    fill: float
    first: tuple[tuple[Place, ...], ...]


def packed(
    manifest: TrainingManifest, documents: Sequence[Document], samples: Sequence[Sample], limit: int, count: int
) -> Packed | None:
    """The packing that the manifest asks for, None when it asks for none.

    Whether the model can be packed is only known when it is loaded. Args: limit: tokens of a row; count: rows to show.
    """
    asked = manifest.hyperparameters
    taught = [
        (document.origin, min(len(sample.labels), limit))
        for document, sample in zip(documents, samples, strict=True)
        if bool((sample.labels[1:limit] != IGNORED).any())
    ]
    if asked.packing is False or not taught:
        return None
    lengths = np.asarray([tokens for _, tokens in taught], dtype=np.int64)
    size = asked.per_device_train_batch_size
    order = Order(lengths, manifest.reproducibility.seed, 1, size, asked.gradient_accumulation_steps, pack=limit)
    first = tuple(tuple(Place(*taught[number]) for number in row) for row in order.batch_rows(0, 0, 0)[:count])
    return Packed(len(taught), order.rows, limit, int(lengths.sum()) / (order.rows * limit), first)


def show(console: Console, found: Packed) -> None:
    """The figures, and a line for each document of the first rows."""
    console.print()
    heading(console, f"packed: {plural(found.documents, 'document')} in {plural(found.rows, 'row')}")
    line(console, f"{found.row_tokens:,} tokens a row, {found.fill:.1%} filled; batch sizes count rows", "dim")
    for number, row in enumerate(found.first, 1):
        used = sum(place.tokens for place in row)
        line(console, f"row {number}: {used:,} of {found.row_tokens:,} tokens, {plural(len(row), 'document')}")
        for place in row:
            line(console, f"  {place.tokens:>6,}  {place.origin}", "dim")
