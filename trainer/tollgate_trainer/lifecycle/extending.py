"""Losses and steps of somebody else's, put into the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.tokens import IGNORED
from tollgate_trainer.extensions import Loss, TrainerStep, extension

if TYPE_CHECKING:
    from tollgate_trainer.lifecycle.loop import TrainingLoop


def extend(loop: TrainingLoop, manifest: TrainingManifest) -> None:
    """Put in what the manifest names, and say it. Raises: ManifestRefused."""
    loss, step = extension(manifest, "loss"), extension(manifest, "trainer_step")
    if loss is not None:
        loop.compute_loss_func = averaged(cast(Loss, loss.code))
    if step is not None:
        loop.around_step = cast(TrainerStep, step.code)
    for found in (loss, step, extension(manifest, "dataset_source")):
        if found is not None:
            loop.session.say("extension", kind=found.kind, name=found.name, version=found.version)


def averaged(loss: Loss) -> Callable[..., torch.Tensor]:
    """A sum over tokens as the training library wants a loss: divided by the tokens of the whole optimiser step.

    The library counts them over micro-steps and processes, and scales for the mean over processes; where it can't, they
    are this batch's.
    """

    def mean(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        targets = labels[:, 1:]
        total: torch.Tensor = loss(outputs.logits[:, :-1].float(), targets)
        items = (targets != IGNORED).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return total / items

    return mean
