"""How the samples of an optimiser step are spread over processes and micro-batches. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.refusal import OutputRefused


@dataclass(frozen=True, slots=True)
class Batching:
    """world x micro_batch x accumulation samples per optimiser step. adapted: differs from what the manifest says."""

    world: int
    micro_batch: int
    accumulation: int
    adapted: bool = False

    @property
    def samples_per_step(self) -> int:
        """Over all processes."""
        return self.world * self.micro_batch * self.accumulation


def batching(manifest: TrainingManifest, world: int, replan: int, resumed: int | None) -> Batching:
    """Micro-batch and accumulation for this topology; what a step sees stays what it was.

    Args: replan: how often memory ran out, each time halves the micro-batch; resumed: samples per step of the
    checkpoint that is gone on from, None at a fresh start.
    Raises: OutputRefused when the processes cannot share the checkpoint's samples per step.
    """
    asked = manifest.hyperparameters
    micro, accumulation = asked.per_device_train_batch_size, asked.gradient_accumulation_steps
    total = world * micro * accumulation if resumed is None else resumed
    if total % world:
        raise OutputRefused(
            f"the checkpoint was trained with {total} samples per step, which {world} processes cannot share "
            f"equally; go on with a number of processes that divides {total}, or start fresh"
        )
    share = total // world
    limit = max(1, micro >> replan)
    if resumed is None and not replan:
        return Batching(world, micro, accumulation)
    fitting = max(size for size in range(1, min(limit, share) + 1) if share % size == 0)
    adapted = (fitting, share // fitting) != (micro, accumulation)
    return Batching(world, fitting, share // fitting, adapted)


def total_steps(manifest: TrainingManifest, steps_per_epoch: int) -> int:
    """Optimiser steps of the whole run: max_steps if given, else the epochs' (rounded up)."""
    asked = manifest.hyperparameters
    return asked.max_steps or math.ceil(asked.num_train_epochs * steps_per_epoch)


def warmup_steps(manifest: TrainingManifest, total: int) -> int:
    """Steps over which the learning rate rises; warmup_steps beats warmup_ratio."""
    asked = manifest.hyperparameters
    if asked.warmup_steps is not None:
        return asked.warmup_steps
    return math.ceil(total * (asked.warmup_ratio or 0.0))
