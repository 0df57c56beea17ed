"""How an epoch is arranged: samples as chance has them, packed into rows, or grouped by length; and what that saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.epoch import NOT_TRIED
from tollgate_trainer.data.order import Order, padded, permutation
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.lifecycle.sharding import Sharding
from tollgate_trainer.models.build import Built
from tollgate_trainer.models.packing_probe import Probe, probe
from tollgate_trainer.refusal import ModelRefused, OutputRefused

FIELD = "hyperparameters.packing"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """pack: tokens of a row that several samples share, None without packing; because: what the probe said."""

    pack: int | None = None
    by_length: bool = False
    because: str | None = None
    probe: Probe | None = None

    def facts(self) -> dict[str, Any]:
        """What a resumed run needs the same; nothing for the order of chance."""
        return {name: value for name, value in (("packing", self.pack), ("by_length", self.by_length)) if value}


def arrangement(
    manifest: TrainingManifest,
    session: Session,
    built: Built,
    device: torch.device,
    sharding: Sharding,
    before: Mapping[str, Any] | None,
) -> Arrangement:
    """As the manifest asks, and as the model allows; all processes answer the same.

    Args: built: its model is in shards already where FSDP2 cuts it; before: the topology of the checkpoint that is gone
    on from, None at a fresh start.
    Raises: ModelRefused when `packing: true` and the model lets documents see each other; OutputRefused when the
    checkpoint was trained packed and the model can't be packed here.
    """
    asked = manifest.hyperparameters
    by_length = asked.group_by_length
    if asked.packing is False:
        return Arrangement(by_length=by_length)
    if before is not None and asked.packing == "auto" and not before.get("packing"):
        return Arrangement(because="the run began without it")
    found = _probed(built, device, sharding, asked.max_seq_length)
    told: list[Probe] = session.agreement.gathered(found)
    found = next((one for one in told if not one.passed), told[0])
    if found.passed:
        return Arrangement(asked.max_seq_length, False, found.because, found)
    if before is not None and before.get("packing"):
        raise OutputRefused(
            f"the checkpoint was trained with packed documents, and here {found.because}; go on where the run began, "
            "or start fresh",
            FIELD,
        )
    if asked.packing is True:
        raise ModelRefused(
            f"{found.because}; write `packing: false`, or `group_by_length: true` for most of its gain", FIELD
        )
    return Arrangement(because=found.because, probe=found)


def _probed(built: Built, device: torch.device, sharding: Sharding, length: int) -> Probe:
    if sharding.strategy in NOT_TRIED:
        return Probe(None, 0.0, f"under {sharding.strategy} the model is in shards and can't be tried before it trains")
    model: Any = built.model
    if sharding.strategy != "fsdp2" and next(model.parameters()).device != device:
        model.to(device)  # where the training library would put it a moment later; shards are where they belong
    found = probe(model, device, built.precision, length)
    sharding.settle(model)
    return found


def say(session: Session, made: Arrangement, order: Order) -> None:
    """The `packing` event: whether, why, and the padding with it and without."""
    if made.because is None:
        return
    values: dict[str, Any] = {"on": made.pack is not None, "because": made.because}
    if made.probe is not None:
        values |= {"difference": made.probe.difference, "bound": made.probe.bound}
    if made.pack is not None:
        tokens = int(order.lengths.sum())
        apart = padded(order.lengths[permutation(order.samples, order.seed, 0)], order.micro_batch)
        together = order.computed(0)
        values |= {
            "documents": order.samples,
            "rows": order.rows,
            "row_tokens": made.pack,
            "fill": round(tokens / (order.rows * made.pack), 4),
            "padding": round(1 - tokens / together, 4),
            "padding_without": round(1 - tokens / apart, 4),
            "padding_saved_tokens": apart - together,
        }
    else:
        session.say("warning", message=f"packing is off: {made.because}")
    session.say("packing", **values)
