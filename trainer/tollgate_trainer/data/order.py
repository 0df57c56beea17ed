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


@dataclass(frozen=True)
class Order:
    """The order for one topology.

    lengths: tokens per sample, shape [samples]; world, micro_batch, accumulation: processes, samples, micro-steps.
    """

    lengths: Indices
    seed: int
    world: int
    micro_batch: int
    accumulation: int
    _sums: dict[int, Indices] = field(default_factory=dict, repr=False, compare=False)

    @property
    def samples(self) -> int:
        """Samples per epoch."""
        return len(self.lengths)

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
        order = permutation(self.samples, self.seed, epoch)
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
        total = epochs * int(self.lengths.sum())
        if within:
            if epochs not in self._sums:
                self._sums.clear()
                self._sums[epochs] = np.cumsum(self.lengths[permutation(self.samples, self.seed, epochs)])
            total += int(self._sums[epochs][min(within * self.samples_per_step, self.samples) - 1])
        return total

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
