"""Whether this training computes its loss in chunks, so that it never holds all logits."""

from __future__ import annotations

from typing import Any

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.facts import asks_for_chunks
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.models.chunked_loss import ChunkedLoss, fit
from tollgate_trainer.refusal import ModelRefused

FIELD = "hyperparameters.cross_entropy"


def chunked_loss(manifest: TrainingManifest, session: Session, model: Any, on_gpu: bool) -> ChunkedLoss | None:
    """Put it into the model if the manifest asks for it and the model allows it; all processes answer the same.

    Raises: ModelRefused when `cross_entropy: chunked` would change this model's loss.
    """
    if not asks_for_chunks(manifest, on_gpu):
        return None
    found = fit(model)
    session.say("cross_entropy", chunked=found.fits, because=found.because)
    if found.fits:
        return ChunkedLoss(model)
    if manifest.hyperparameters.cross_entropy == "chunked":
        raise ModelRefused(f"{found.because}; write `cross_entropy: auto` or `plain`", FIELD)
    return None
