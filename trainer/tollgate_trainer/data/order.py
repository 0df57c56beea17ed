"""In which order samples are trained on: a pure function of (seed, epoch), so a resumed run goes on exactly.

An optimiser step takes `samples_per_step` consecutive samples of the epoch's permutation, whatever the topology: with
half the processes and twice the accumulation a step sees the same samples. Where documents are packed, a step takes
consecutive rows of the epoch instead, each of several samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from tollgate_trainer.data.packing import first_fit_decreasing

Indices = npt.NDArray[np.int64]

_ROWS, _STEPS = 1 << 31, 1 << 30
"""Keep the chances of what else is drawn for an epoch apart from the permutation's."""
PAD_MULTIPLE = 8
"""Rows of a batch are filled up to a multiple of so many tokens."""
POOL = 50
"""Steps whose samples are sorted by length together: more makes batches more even and less random."""


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


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch's samples in their order, shape [samples], and where each row of a batch ends in it, shape [rows].

    Without packing each sample is a row.
    """

    samples: Indices
    ends: Indices

    def row(self, number: int) -> tuple[int, ...]:
        """The samples of a row."""
        first = int(self.ends[number - 1]) if number else 0
        return tuple(int(i) for i in self.samples[first : int(self.ends[number])])


@dataclass(frozen=True)
class Order:
    """The order for one topology.

    lengths: tokens per sample, shape [samples]; world, micro_batch, accumulation: processes, rows, micro-steps.
    shares: how much of each source makes an epoch, by default all samples once; pack: tokens of a row that several
    samples share, None: each has its own; by_length: samples of similar length come together.
    """

    lengths: Indices
    seed: int
    world: int
    micro_batch: int
    accumulation: int
    shares: tuple[Share, ...] = ()
    pack: int | None = None
    by_length: bool = False
    _sums: dict[int, Indices] = field(default_factory=dict, repr=False, compare=False)
    _epochs: dict[int, Epoch] = field(default_factory=dict, repr=False, compare=False)
    _totals: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        # With shares an epoch's lengths, and so its number of rows, would be another each time.
        assert self.pack is None or not (self.shares or self.by_length)

    @property
    def samples(self) -> int:
        """Samples per epoch."""
        return sum(share.count for share in self.shares) if self.shares else len(self.lengths)

    @cached_property
    def rows(self) -> int:
        """Rows per epoch: as many as samples, or fewer when they are packed."""
        return self.samples if self.pack is None else len(self._epoch(0).ends)

    def of_epoch(self, epoch: int) -> Indices:
        """The sample numbers of an epoch in their order, shape [samples]."""
        if not self.shares and self.pack is None and not self.by_length:
            return permutation(self.samples, self.seed, epoch)
        return self._epoch(epoch).samples

    def _epoch(self, epoch: int) -> Epoch:
        if epoch not in self._epochs:
            if len(self._epochs) > 1:
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[epoch] = self._arranged(epoch)
        return self._epochs[epoch]

    def _arranged(self, epoch: int) -> Epoch:
        order = permutation(self.samples, self.seed, epoch)
        if self.shares:
            dealt = [drawn(share, self.seed, epoch, index) for index, share in enumerate(self.shares)]
            order = np.concatenate(dealt)[order]
        if self.pack is not None:
            return self._packed(order, epoch, self.pack)
        if self.by_length:
            order = self._grouped(order, epoch)
        return Epoch(order, np.arange(1, len(order) + 1, dtype=np.int64))

    def _packed(self, order: Indices, epoch: int, capacity: int) -> Epoch:
        """Rows in an order of chance; which samples of one length share a row with which others is chance too."""
        placed, ends = first_fit_decreasing(self.lengths[order], capacity)
        rows = np.split(order[placed], ends[:-1])
        shuffled = self._chance(epoch, _ROWS).permutation(len(rows))
        sizes = np.asarray([len(rows[i]) for i in shuffled], dtype=np.int64)
        return Epoch(np.concatenate([rows[i] for i in shuffled]), np.cumsum(sizes))

    def _grouped(self, order: Indices, epoch: int) -> Indices:
        """Steps of samples of similar length, in an order of chance; what does not fill a step stays at the end."""
        pool = POOL * self.samples_per_step
        parts = [order[start : start + pool] for start in range(0, len(order), pool)]
        sorted_parts = [part[np.argsort(-self.lengths[part], kind="stable")] for part in parts]
        whole = np.concatenate([*sorted_parts, np.zeros(0, dtype=np.int64)])
        full = len(whole) // self.samples_per_step
        steps = whole[: full * self.samples_per_step].reshape(full, self.samples_per_step)
        shuffled = steps[self._chance(epoch, _STEPS).permutation(full)]
        return np.concatenate([shuffled.reshape(-1), whole[full * self.samples_per_step :]])

    def _chance(self, epoch: int, what: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch, what])))

    @property
    def samples_per_step(self) -> int:
        """Rows per optimiser step, over all processes; without packing that is samples."""
        return self.world * self.micro_batch * self.accumulation

    @property
    def micro_steps_per_epoch(self) -> int:
        """Batches that each process sees in an epoch; the last may be smaller."""
        return -(-self.rows // (self.world * self.micro_batch))

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch; the last may have fewer samples."""
        return -(-self.rows // self.samples_per_step)

    def batch_rows(self, epoch: int, micro_step: int, rank: int) -> list[tuple[int, ...]]:
        """The rows of one process at one micro-step, each as its sample numbers.

        The last group is spread evenly; where it has fewer rows than processes the epoch's first ones fill it up,
        because a process without a batch would hang the others.
        """
        width, rows = self.world * self.micro_batch, self.rows
        group = np.arange(micro_step * width, min((micro_step + 1) * width, rows), dtype=np.int64)
        if len(group) == width:
            mine = group[rank * self.micro_batch : (rank + 1) * self.micro_batch]
        else:
            if len(group) < self.world:
                group = np.concatenate([group, np.resize(np.arange(rows, dtype=np.int64), self.world - len(group))])
            mine = np.array_split(group, self.world)[rank]
        if self.pack is None:
            return [(int(i),) for i in self.of_epoch(epoch)[mine]]
        return [self._epoch(epoch).row(int(number)) for number in mine]

    def batch(self, epoch: int, micro_step: int, rank: int) -> list[int]:
        """The sample numbers of one process at one micro-step."""
        return [number for row in self.batch_rows(epoch, micro_step, rank) for number in row]

    def longest(self, count: int) -> list[tuple[int, ...]]:
        """The `count` rows of the first epoch with the most tokens."""
        if self.pack is None:
            return [(int(i),) for i in np.argsort(-self.lengths, kind="stable")[:count]]
        epoch = self._epoch(0)
        return [epoch.row(int(number)) for number in np.argsort(-self.row_tokens(0), kind="stable")[:count]]

    def row_tokens(self, epoch: int) -> Indices:
        """Tokens of each row of an epoch in its order, shape [rows]."""
        found = self._epoch(epoch)
        return np.diff(np.cumsum(self.lengths[found.samples])[found.ends - 1], prepend=0)

    def computed(self, epoch: int) -> int:
        """Tokens of an epoch with those that fill each row up to the longest of its micro-batch."""
        rows = self.lengths[self.of_epoch(epoch)] if self.pack is None else self.row_tokens(epoch)
        return padded(rows, self.micro_batch)

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
            total += int(self._sums[epochs][self._samples_within(epochs, within) - 1])
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
        return epochs * self.samples + (self._samples_within(epochs, within) if within else 0)

    def _samples_within(self, epoch: int, steps: int) -> int:
        """Samples of the first `steps` steps (at least one) of an epoch."""
        rows = min(steps * self.samples_per_step, self.rows)
        return rows if self.pack is None else int(self._epoch(epoch).ends[rows - 1])


def padded(lengths: Indices, micro_batch: int) -> int:
    """Tokens that are computed when each row is filled up to the longest of its micro-batch.

    Args: lengths: tokens of the rows in the order of training, shape [rows].
    """
    starts = np.arange(0, len(lengths), micro_batch)
    widths = np.maximum.reduceat(lengths, starts)
    rows = np.minimum(micro_batch, len(lengths) - starts)
    return int((-(-widths // PAD_MULTIPLE) * PAD_MULTIPLE * rows).sum())


class RankBatches:
    """The batch sampler of one process: rows of sample numbers; `epoch` is set before each pass."""

    def __init__(self, order: Order, rank: int) -> None:
        self.order = order
        self.rank = rank
        self.epoch = 0

    def __len__(self) -> int:
        return self.order.micro_steps_per_epoch

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        for micro_step in range(len(self)):
            yield self.order.batch_rows(self.epoch, micro_step, self.rank)
