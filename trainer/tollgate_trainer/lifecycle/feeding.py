"""How samples become batches: each in a row of its own, or several packed into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from tollgate_trainer.data.order import PAD_MULTIPLE, Order
from tollgate_trainer.data.tokens import IGNORED, Sample
from tollgate_trainer.tasks.protocol import Batch, Task
from tollgate_trainer.tasks.samples import SampleSet

REAL = "real_tokens"
"""Of a packed batch: 1 where a token is a document's. For our own figures; the model is not given it."""

Collate = Callable[[Sequence[Sequence[Any]]], Batch]


class Rows(Dataset[list[Any]]):
    """The samples of a row, by their numbers."""

    def __init__(self, samples: SampleSet) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, numbers: tuple[int, ...]) -> list[Any]:
        return [self._samples[number] for number in numbers]


def collate_for(task: Task, order: Order, fixed: bool = False) -> Collate:
    """Rows of samples as a batch, as the order has them. fixed: packed batches are all of one shape."""
    if order.pack is None:
        return lambda rows: task.collate([sample for row in rows for sample in row])
    shape = (order.micro_batch, order.pack) if fixed else (0, 0)
    return lambda rows: pack(rows, shape)


def pack(rows: Sequence[Sequence[Sample]], at_least: tuple[int, int] = (0, 0)) -> Batch:
    """input_ids, position_ids, labels and REAL: [rows, longest], filled up at the end to a multiple of 8.

    Positions restart at each document and there is no attention mask, which is how the library learns where documents
    end (an all-ones mask would mix them). The first token of a document is not predicted from the one before. What
    fills a row up is a document of its own without labels; its token does not matter, 0 is in every vocabulary.

    Args: at_least: rows and tokens that the batch has in any case, the rows without documents at its end.
    """
    lengths = [sum(len(sample.input_ids) for sample in row) for row in rows]
    width = max(at_least[1], -(-max(lengths) // PAD_MULTIPLE) * PAD_MULTIPLE)
    count = max(at_least[0], len(rows))
    ids, real = (torch.zeros((count, width), dtype=torch.long) for _ in range(2))
    positions = torch.arange(width).repeat(count, 1)
    labels = torch.full((count, width), IGNORED, dtype=torch.long)
    for number, row in enumerate(rows):
        at = 0
        for sample in row:
            end = at + len(sample.input_ids)
            ids[number, at:end] = torch.from_numpy(sample.input_ids)
            labels[number, at:end] = torch.from_numpy(sample.labels)
            labels[number, at] = IGNORED
            positions[number, at:end] = torch.arange(end - at)
            at = end
        real[number, :at] = 1
        positions[number, at:] = torch.arange(width - at)
    return {"input_ids": ids, "position_ids": positions, "labels": labels, REAL: real}
