"""How many steps an epoch of these documents will have: the order of training itself is asked. Nothing here imports
torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.epoch import Arrange, Arrangement, Epoch
from tollgate_trainer.data.order import Indices, Order
from tollgate_trainer.data.sources import shared_out, weights_of_sources
from tollgate_trainer.data.tokens import TokenSet
from tollgate_trainer.refusal import DatasetRefused

if TYPE_CHECKING:
    from tollgate_trainer.tasks.samples import SampleSplits


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the order of training depends on, small enough to be kept in a file.

    lengths: tokens of each training document before it is cut; learned: where its first token with a loss stands (from
    1; a document that is cut before it is not trained on); sources: (weight, documents) of each, one after the other;
    held_out: tokens of each held-out document.
    """

    lengths: tuple[int, ...]
    learned: tuple[int, ...]
    sources: tuple[tuple[float, int], ...] = ()
    held_out: tuple[int, ...] = ()


def sizes_of(manifest: TrainingManifest, splits: SampleSplits) -> Sizes:
    """Of samples as a task made them, without cutting where the task allows that."""
    train, weights = splits.train, weights_of_sources(manifest)
    learned = train.first_learned if isinstance(train, TokenSet) else np.zeros(len(train), dtype=np.int64)
    parts = groupby(document.source for document in train.documents)
    return Sizes(
        lengths=tuple(train.lengths.tolist()),
        learned=tuple(learned.tolist()),
        sources=tuple((weights[name], sum(1 for _ in own)) for name, own in parts),
        held_out=tuple(splits.validation.lengths.tolist()),
    )


def arranger(sizes: Sizes, seed: int) -> Arrange:
    """Answers for any batch, length and packing. It raises DatasetRefused when nothing is left to train on."""

    @lru_cache(maxsize=64)
    def arrange(asked: Arrangement) -> Epoch:
        return epoch_of(order_of(sizes, seed, asked), np.minimum(sizes.held_out, asked.max_seq_length))

    return arrange


def order_of(sizes: Sizes, seed: int, asked: Arrangement) -> Order:
    """The order that a training of these documents will have. Raises: DatasetRefused when none of them is left."""
    limit = asked.max_seq_length
    whole = np.asarray(sizes.lengths, dtype=np.int64)
    kept = np.asarray(sizes.learned, dtype=np.int64) < limit
    if not kept.any():
        raise DatasetRefused(
            f"no training sample has a token to learn within max_seq_length={limit}; raise it",
            "hyperparameters.max_seq_length",
        )
    ends = np.cumsum(np.asarray([size for _, size in sizes.sources], dtype=np.int64))[:-1]
    counts = [int(part.sum()) for part in np.split(kept, ends)]
    return Order(
        np.minimum(whole[kept], limit),
        seed,
        asked.world,
        asked.micro_batch,
        asked.accumulation,
        shared_out([(weight, count) for (weight, _), count in zip(sizes.sources, counts, strict=False)]),
        limit if asked.packed else None,
        asked.by_length,
    )


def epoch_of(order: Order, held_out: Indices) -> Epoch:
    """The first epoch of this order; others have as many steps, and padding that differs by chance."""
    return Epoch(
        samples=order.samples,
        rows=order.rows,
        steps=order.steps_per_epoch,
        tokens=order.tokens_until(order.steps_per_epoch),
        computed=order.computed(0),
        held_out=int(held_out.sum()),
    )


def of_order(order: Order, held_out: Indices) -> Arrange:
    """Of a training that has its order already; only how its rows are spread may still be asked for otherwise."""

    def arrange(asked: Arrangement) -> Epoch:
        spread = Order(
            order.lengths,
            order.seed,
            asked.world,
            asked.micro_batch,
            asked.accumulation,
            order.shares,
            order.pack,
            order.by_length,
        )
        return epoch_of(spread, held_out)

    return arrange
