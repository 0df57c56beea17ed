"""How an epoch's documents become steps: asked of whoever has the documents' lengths and the very code that trains.

Here are only the words for it. The arithmetic is the trainer's own (its order of training and its packer), so that a
plan counts the steps that will be made and not steps that are like them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.memory import Strategy

NOT_TRIED: tuple[Strategy, ...] = ("zero3",)
"""Strategies under which only the training puts the shards together, so that packing can't be tried before and is not
done. The trainer asks this table, too.
"""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How documents are spread. packed: several share a row of max_seq_length tokens, and the batch counts rows."""

    max_seq_length: int
    micro_batch: int = 1
    accumulation: int = 1
    world: int = 1
    packed: bool = False
    by_length: bool = False


@dataclass(frozen=True, slots=True)
class Epoch:
    """samples: documents (or windows) that are trained on, as often as their sources weigh; rows: what batches count;
    steps: of the optimizer; tokens: of the samples, cut to the length; computed: with the padding of their batches;
    held_out: tokens of the held-out documents, cut to the length.
    """

    samples: int
    rows: int
    steps: int
    tokens: int
    computed: int
    held_out: int = 0

    @property
    def width(self) -> float:
        """Tokens of a row with its padding, on average."""
        return self.computed / self.rows

    @property
    def padding(self) -> float:
        """Share of the computed tokens that are nobody's."""
        return 1 - self.tokens / self.computed


Arrange = Callable[[Arrangement], Epoch]


def packs(manifest: TrainingManifest, strategy: Strategy) -> bool:
    """Whether documents will share rows, as long as the model passes the trial that is made before the first step."""
    return manifest.hyperparameters.packing is not False and strategy not in NOT_TRIED
