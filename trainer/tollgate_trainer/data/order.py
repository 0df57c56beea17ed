"""In which order samples are trained on: a pure function of (seed, epoch), so a resumed run goes on exactly.

An optimiser step takes `samples_per_step` consecutive samples of the epoch's permutation, whatever the topology: with
half the processes and twice the accumulation a step sees the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@lru_cache(maxsize=2)
def permutation(samples: int, seed: int, epoch: int) -> Indices:
    """The order of one epoch, shape [samples]."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch]))).permutation(samples)


@dataclass(frozen=True, slots=True)
class Share:
    """A source's part of an epoch: `count` of its samples, which are the numbers first..first + size - 1."""

    first: int
    size: int
    count: int


def drawn(share: Share, seed: int, epoch: int, source: int) -> Indices:
    """The sample numbers that a source gives to an epoch, shape [share.count].

    The source's samples are dealt like a pack of cards: each once in an order of chance, then all again in another, and
    so on, and an epoch takes the next `count`. So no sample is used n + 1 times before all were used n times, also
    where half of them make an epoch.
    """
    begin = epoch * share.count
    packs = range(begin // share.size, (begin + share.count - 1) // share.size + 1)
    sequences = (np.random.SeedSequence([seed, pack, source + 1]) for pack in packs)
    dealt = np.concatenate([np.random.Generator(np.random.PCG64(one)).permutation(share.size) for one in sequences])
    start = begin - packs.start * share.size
    return np.asarray(dealt[start : start + share.count] + share.first, dtype=np.int64)


@dataclass(frozen=True)
class Order:
    """The order for one topology.

    lengths: tokens per sample, shape [samples]; world, micro_batch, accumulation: processes, samples, micro-steps.
    shares: how much of each source makes an epoch, by default all samples once.
    """

    lengths: Indices
    seed: int
    world: int
    micro_batch: int
    accumulation: int
    shares: tuple[Share, ...] = ()
    _sums: dict[int, Indices] = field(default_factory=dict, repr=False, compare=False)
    _orders: dict[int, Indices] = field(default_factory=dict, repr=False, compare=False)
    _totals: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def samples(self) -> int:
        """Samples per epoch."""
        return sum(share.count for share in self.shares) if self.shares else len(self.lengths)

    def of_epoch(self, epoch: int) -> Indices:
        """The sample numbers of an epoch in their order, shape [samples]."""
        if not self.shares:
            return permutation(self.samples, self.seed, epoch)
        if epoch not in self._orders:
            if len(self._orders) > 1:
                self._orders.pop(next(iter(self._orders)))
            dealt = [drawn(share, self.seed, epoch, index) for index, share in enumerate(self.shares)]
            self._orders[epoch] = np.concatenate(dealt)[permutation(self.samples, self.seed, epoch)]
        return self._orders[epoch]

    @property
    def samples_per_step(self) -> int:
        """Samples per optimiser step, over all processes."""
        return self.world * self.micro_batch * self.accumulation

    @property
    def micro_steps_per_epoch(self) -> int:
        """Batches that each process sees in an epoch; the last may be smaller."""
        return -(-self.samples // (self.world * self.micro_batch))

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch; the last may have fewer samples."""
        return -(-self.samples // self.samples_per_step)

    def batch(self, epoch: int, micro_step: int, rank: int) -> list[int]:
        """The sample numbers of one process at one micro-step.

        The last group is spread evenly; where it has fewer samples than processes the epoch's first ones fill it up,
        because a process without a batch would hang the others.
        """
        width = self.world * self.micro_batch
        order = self.of_epoch(epoch)
        group = order[micro_step * width : (micro_step + 1) * width]
        if len(group) == width:
            return [int(i) for i in group[rank * self.micro_batch : (rank + 1) * self.micro_batch]]
        if len(group) < self.world:
            group = np.concatenate([group, np.resize(order, self.world - len(group))])
        return [int(i) for i in np.array_split(group, self.world)[rank]]

    def at_step(self, step: int, rank: int) -> list[int]:
        """The sample numbers of one process at one optimiser step; steps count from 1 over all epochs."""
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        first = within * self.accumulation
        last = min(first + self.accumulation, self.micro_steps_per_epoch)
        return [index for micro_step in range(first, last) for index in self.batch(epoch, micro_step, rank)]

    def tokens_until(self, step: int) -> int:
        """Tokens seen by all processes in steps 1..step (fill-ups of a last group are not counted twice)."""
        epochs, within = divmod(step, self.steps_per_epoch)
        total = sum(self._tokens_of(epoch) for epoch in range(epochs)) if self.shares else epochs * self._tokens_of(0)
        if within:
            if epochs not in self._sums:
                self._sums.clear()
                self._sums[epochs] = np.cumsum(self.lengths[self.of_epoch(epochs)])
            total += int(self._sums[epochs][min(within * self.samples_per_step, self.samples) - 1])
        return total

    def _tokens_of(self, epoch: int) -> int:
        """Tokens of a whole epoch. With shares another sample's turn comes in each."""
        if not self.shares:
            return int(self.lengths.sum())
        if epoch not in self._totals:
            self._totals[epoch] = int(self.lengths[self.of_epoch(epoch)].sum())
        return self._totals[epoch]

    def samples_until(self, step: int) -> int:
        """Samples seen by all processes in steps 1..step."""
        epochs, within = divmod(step, self.steps_per_epoch)
        return epochs * self.samples + min(within * self.samples_per_step, self.samples)


class RankBatches:
    """The batch sampler of one process; `epoch` is set before each pass."""

    def __init__(self, order: Order, rank: int) -> None:
        self.order = order
        self.rank = rank
        self.epoch = 0

    def __len__(self) -> int:
        return self.order.micro_steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        for micro_step in range(len(self)):
            yield self.order.batch(self.epoch, micro_step, self.rank)
