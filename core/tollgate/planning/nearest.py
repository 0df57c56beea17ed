"""What would fit, where a plan does not: each changes one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.devices import smaller_to_larger
from tollgate.planning.facts import Facts, Settings, allows, memory_of
from tollgate.planning.memory import GIB


def nearest(manifest: TrainingManifest, facts: Facts, settings: Settings, limit: int) -> tuple[str, ...]:
    """What would fit, each changing one thing and the nearest first."""

    def fits(settings: Settings, manifest: TrainingManifest = manifest, facts: Facts = facts) -> bool:
        table = memory_of(manifest, facts, settings)
        return table is not None and table.total <= limit

    found = [*_smaller_rows(settings, fits)]
    if not settings.checkpointing and fits(replace(settings, checkpointing=True)):
        found.append("gradient_checkpointing: true")
    smallest = replace(settings, micro_batch=1, checkpointing=True)
    last = "per_device_train_batch_size: 1 and gradient_checkpointing: true"
    whole = settings.max_seq_length
    lengths = [whole, *(length for power in range(1, 8) if (length := whole >> power) >= 64)]

    def longest(manifest: TrainingManifest) -> int | None:
        return next((length for length in lengths if fits(replace(smallest, max_seq_length=length), manifest)), None)

    alone = longest(manifest)
    if alone is not None and alone != whole:
        found.append(f"max_seq_length: {alone} with {last}")
    if manifest.adapter.type == "none":
        adapted = longest(_with_lora(manifest))
        if adapted is not None:
            shorter = f", max_seq_length: {adapted}" if adapted != whole else ""
            found.append(f"adapter.type: lora{shorter} with {last}")
    if facts.device.gpu:
        found.extend(_larger_device(manifest, facts, settings, limit))
        for world in (2, 4, 8, 16, 32, 64) if allows(manifest, "zero3") else ():
            wider = replace(facts, nodes=1, processes_per_node=world)
            if world > facts.world and fits(replace(smallest, strategy="zero3"), manifest, wider):
                found.append(f"{world} GPUs with parallelism: zero3, {last}")
                break
    return tuple(found)


def _with_lora(manifest: TrainingManifest) -> TrainingManifest:
    return manifest.model_copy(update={"adapter": manifest.adapter.model_copy(update={"type": "lora"})})


def _smaller_rows(settings: Settings, fits: Callable[[Settings], bool]) -> Iterator[str]:
    for power in range(1, settings.micro_batch.bit_length()):
        rows = settings.micro_batch >> power
        if fits(replace(settings, micro_batch=rows)):
            passes = settings.accumulation * settings.micro_batch // rows
            yield f"per_device_train_batch_size: {rows} with gradient_accumulation_steps: {passes}"
            return


def _larger_device(manifest: TrainingManifest, facts: Facts, settings: Settings, limit: int) -> Iterator[str]:
    own = facts.device.memory or limit
    for device in smaller_to_larger():
        if device.memory is None or device.memory <= own:
            continue
        table = memory_of(manifest, replace(facts, device=device), settings)
        if table is not None and table.total <= limit / own * device.memory:
            yield f"one {device.name} ({device.memory / GIB:.0f} GiB) with the same numbers"
            return
