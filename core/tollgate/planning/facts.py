"""What a plan is made from, the settings that come out, and what both say about epochs, weights and memory. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tollgate.manifest.combinations import impossible
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.devices import Device
from tollgate.planning.epoch import Arrange, Arrangement, Epoch, packs
from tollgate.planning.lengths import Lengths
from tollgate.planning.memory import Held, Memory, Precision, Strategy, memory
from tollgate.planning.shapes import Shape, Weights, lora_weights


@dataclass(frozen=True, slots=True)
class Facts:
    """What a plan is made from. shape: None when the model's sizes are unknown; arrange: how many steps the documents
    make; labels: classes of a classifier; packed: whether documents share rows, None as long as nobody tried.
    """

    lengths: Lengths
    shape: Shape | None
    device: Device
    arrange: Arrange
    nodes: int = 1
    processes_per_node: int = 1
    labels: int | None = None
    packed: bool | None = None

    @property
    def world(self) -> int:
        """Processes."""
        return self.nodes * self.processes_per_node


@dataclass(frozen=True, slots=True)
class Settings:
    """The numbers of a run. epochs: None when max_steps counts."""

    micro_batch: int
    accumulation: int
    max_seq_length: int
    epochs: float | None
    max_steps: int | None
    precision: Precision
    strategy: Strategy
    checkpointing: bool


def weights_of(manifest: TrainingManifest, shape: Shape) -> Weights:
    """All weights, and those that are trained."""
    adapter = manifest.adapter
    if adapter.type == "none":
        return Weights(shape.parameters, shape.parameters)
    each = lora_weights(shape, adapter.rank)
    by_formula = each * adapter.mixture.experts if adapter.type == "moe-lora" else each
    added = by_formula if shape.adapter is None else shape.adapter
    return Weights(shape.parameters + added, added)


def is_packed(manifest: TrainingManifest, facts: Facts, strategy: Strategy) -> bool:
    """Whether documents share rows: as the trial found, else as far as the manifest says."""
    return packs(manifest, strategy) if facts.packed is None else facts.packed


def epoch_of(manifest: TrainingManifest, facts: Facts, settings: Settings) -> Epoch:
    """An epoch by these settings."""
    return facts.arrange(
        Arrangement(
            max_seq_length=settings.max_seq_length,
            micro_batch=settings.micro_batch,
            accumulation=settings.accumulation,
            world=facts.world,
            packed=is_packed(manifest, facts, settings.strategy),
            by_length=manifest.hyperparameters.group_by_length,
        )
    )


def allows(manifest: TrainingManifest, strategy: Strategy) -> bool:
    """Whether a manifest could ask for it by name: what it may not say (combinations.py) is not planned either."""
    return not impossible(manifest.model_copy(update={"parallelism": strategy}))


def asks_for_chunks(manifest: TrainingManifest, gpu: bool) -> bool:
    """Whether the loss is to be computed in chunks of tokens, where the model allows it. The trainer asks this, too."""
    asked = manifest.hyperparameters.cross_entropy
    if manifest.task != "causal-lm" or manifest.extensions.loss is not None:
        return False
    return asked == "chunked" or (asked == "auto" and gpu)


def memory_of(manifest: TrainingManifest, facts: Facts, settings: Settings) -> Memory | None:
    """The memory table of these settings; None when the model's sizes are unknown."""
    if facts.shape is None:
        return None
    longest = settings.max_seq_length  # packed rows are full
    if not is_packed(manifest, facts, settings.strategy):
        longest = min(longest, facts.lengths.longest)
    return memory(
        Held(
            shape=facts.shape,
            weights=weights_of(manifest, facts.shape),
            micro_batch=settings.micro_batch,
            width=math.ceil(longest / 8) * 8,
            precision=settings.precision,
            strategy=settings.strategy,
            world=facts.world,
            gpu=facts.device.gpu,
            checkpointing=settings.checkpointing,
            quantization=manifest.model.quantization,
            labels=facts.labels,
            fused_loss=asks_for_chunks(manifest, facts.device.gpu)
            and (manifest.hyperparameters.cross_entropy == "chunked" or facts.shape.chunks is True),
            offload=manifest.parallelism_options.offload == "cpu",
        )
    )
