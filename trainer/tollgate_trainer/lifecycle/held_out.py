"""Metrics over all held-out samples while a model trains, each process a share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from tollgate_trainer.data.document import Document
from tollgate_trainer.lifecycle.source_sums import SourceSums
from tollgate_trainer.tasks.protocol import Measurement

if TYPE_CHECKING:
    from tollgate_trainer.lifecycle.loop import TrainingLoop


def held_out(loop: TrainingLoop) -> dict[str, float]:
    """The task's metrics, and each source's loss; all processes call it and get the same.

    How samples are spread over batches and processes does not matter to them.
    """
    samples, attempt, agreement = loop.plan.validation, loop.session.attempt, loop.session.agreement
    mine = sorted(range(attempt.rank, len(samples), attempt.world), key=lambda i: (-int(samples.lengths[i]), i))
    model = loop.accelerator.unwrap_model(loop.model)
    was_training = model.training
    model.eval()
    batches = _batches(mine, loop.plan.eval_batch, samples.documents)
    most = max(agreement.gathered(len(batches))) if loop.sharding.collective_forward else 0
    sums = SourceSums(samples.documents)
    rows: list[tuple[int, Any]] = []
    with torch.no_grad(), loop.compute_loss_context_manager():
        for batch in batches:
            chosen = [samples[i] for i in batch]
            part = measured(loop, model, chosen)
            sums.add(samples.documents[batch[0]].source, part.loss_sum, part.count)
            rows.extend(zip(batch, part.rows, strict=True) if loop.task.by_sample else ())
            loop.session.progress.touch()
        _accompany(loop, model, most - len(batches))
    model.train(was_training)
    sums.take(agreement.summed(*sums.flat()))
    if loop.task.by_sample:
        told = agreement.gathered(rows)
        rows = sorted((row for share in told for row in share), key=lambda row: row[0])
    return {**loop.task.metrics(*sums.total(), rows, samples), **sums.losses()}


def measured(loop: TrainingLoop, model: Any, chosen: Sequence[Any]) -> Measurement:
    """One batch of these samples."""
    batch = loop._prepare_inputs(loop.task.collate(chosen))
    with loop.in_chunks(batch):
        return loop.task.measure(model, batch, chosen)


def _accompany(loop: TrainingLoop, model: Any, batches: int) -> None:
    """Forward passes that count for nothing, while others evaluate: they need this process's shards."""
    samples = loop.plan.validation
    for _ in range(batches):
        measured(loop, model, [samples[0]])


def _batches(numbers: Sequence[int], size: int, documents: Sequence[Document]) -> list[list[int]]:
    """Batches of samples of one source each, so that each source's loss can be told."""
    by_source: dict[str, list[int]] = {}
    for number in numbers:
        by_source.setdefault(documents[number].source, []).append(number)
    return [own[start : start + size] for own in by_source.values() for start in range(0, len(own), size)]
