"""From a manifest and what is known of data, model and device to the numbers of the run. Pure and total.

The same function answers on a laptop (`tollgate plan`) and in the pod (the trainer), so that both use the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tollgate.manifest.combinations import impossible
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.devices import Device, smaller_to_larger
from tollgate.planning.epoch import Arrange, Arrangement, Epoch, packs
from tollgate.planning.lengths import Lengths
from tollgate.planning.memory import GIB, Held, Memory, Precision, Strategy, memory
from tollgate.planning.profiles import CPU_MICRO_BATCH, MIN_STEPS_PER_EPOCH, PROFILES, Profile
from tollgate.planning.shapes import Shape, Weights, lora_weights

PLAIN_MEMORY_SHARE = 0.95
"""Of a device that a manifest without a profile may fill before the plan says that it does not fit."""
MOST_ROWS = 256


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
    """The numbers of a run. epochs: None when max_steps counts; save_minutes: None when only save_steps counts."""

    micro_batch: int
    accumulation: int
    max_seq_length: int
    epochs: float | None
    max_steps: int | None
    precision: Precision
    strategy: Strategy
    checkpointing: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """fits: None when it is not known; changes: what was set, and why; nearest: what would fit, when nothing does."""

    settings: Settings
    memory: Memory | None
    fits: bool | None
    changes: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()
    limit: int | None = field(default=None)


def weights_of(manifest: TrainingManifest, shape: Shape) -> Weights:
    """All weights, and those that are trained."""
    adapter = manifest.adapter
    if adapter.type == "none":
        return Weights(shape.parameters, shape.parameters)
    each = lora_weights(shape, adapter.rank)
    by_formula = each * adapter.mixture.experts if adapter.type == "moe-lora" else each
    added = by_formula if shape.adapter is None else shape.adapter
    return Weights(shape.parameters + added, added)


def choose(manifest: TrainingManifest, facts: Facts) -> Choice:
    """The settings of the run.

    Without a profile they are the manifest's own; with one the profile's (profiles.py), except where the user wrote a
    number. If they do not fit into the device: activations are recomputed, the model is sharded over the processes
    (only with several GPUs and `parallelism: auto`), and the length falls to the 95th percentile, in this order.
    """
    profile = PROFILES.get(manifest.optimization_priority) if manifest.optimization_priority != "none" else None
    if profile is None:
        return _as_written(manifest, facts)
    return _by_profile(manifest, facts, profile)


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


def resettled(manifest: TrainingManifest, facts: Facts, choice: Choice, settings: Settings) -> Choice:
    """The choice with other settings, judged anew; `changes` stay."""
    profile = PROFILES.get(manifest.optimization_priority) if manifest.optimization_priority != "none" else None
    share = profile.memory_share if profile is not None else PLAIN_MEMORY_SHARE
    return _judged(manifest, facts, settings, share, choice.changes)


def precision_of(manifest: TrainingManifest, device: Device) -> Precision:
    """`auto` is bf16 where a GPU has it, else fp32."""
    asked = manifest.precision or "auto"
    if asked != "auto":
        return asked
    return "bf16" if device.gpu and device.bf16 else "fp32"


# --- without a profile ------------------------------------------------------------------------------------------------


def _as_written(manifest: TrainingManifest, facts: Facts) -> Choice:
    asked = manifest.hyperparameters
    settings = Settings(
        micro_batch=asked.per_device_train_batch_size,
        accumulation=asked.gradient_accumulation_steps,
        max_seq_length=asked.max_seq_length,
        epochs=None if asked.max_steps else asked.num_train_epochs,
        max_steps=asked.max_steps,
        precision=precision_of(manifest, facts.device),
        strategy=_strategies(manifest, facts)[0],
        checkpointing=asked.gradient_checkpointing,
    )
    return _judged(manifest, facts, settings, PLAIN_MEMORY_SHARE, ())


# --- with a profile ---------------------------------------------------------------------------------------------------


def _by_profile(manifest: TrainingManifest, facts: Facts, profile: Profile) -> Choice:
    length = _length(manifest, facts, profile.percent)
    wanted = _first_settings(manifest, facts, profile, length)
    if facts.shape is None:
        unknown = "the model's sizes are unknown, so memory was not planned for"
        return Choice(wanted, None, None, (*_said(manifest, wanted), unknown))
    why: list[str] = []
    for candidate, changed in _candidates(manifest, facts, profile, wanted):
        fitting = _largest_batch(manifest, facts, profile, candidate)
        if fitting is not None:
            if changed:
                why.append(f"to fit into memory: {changed}")
            return _judged(manifest, facts, fitting, profile.memory_share, (*_said(manifest, fitting), *why))
    smallest = _with_batch(manifest, facts, profile, candidate, 1)
    return _judged(manifest, facts, smallest, profile.memory_share, _said(manifest, smallest))


def _wrote(manifest: TrainingManifest, name: str) -> bool:
    return name in manifest.hyperparameters.model_fields_set


def _length(manifest: TrainingManifest, facts: Facts, percent: int) -> int:
    asked = manifest.hyperparameters.max_seq_length
    if _wrote(manifest, "max_seq_length") or manifest.task in ("span", "joint"):
        return asked  # a text becomes windows of this length: another one would make other windows
    covered = facts.lengths.at(percent)
    rounded = max(8, math.ceil(covered / 64) * 64 if covered > 64 else math.ceil(covered / 8) * 8)
    limit = facts.shape.positions if facts.shape is not None else None
    return min(rounded, limit) if limit is not None else rounded


def _first_settings(manifest: TrainingManifest, facts: Facts, profile: Profile, length: int) -> Settings:
    asked = manifest.hyperparameters
    epochs = asked.num_train_epochs if _wrote(manifest, "num_train_epochs") else profile.epochs
    checkpointing = asked.gradient_checkpointing
    if not _wrote(manifest, "gradient_checkpointing"):
        checkpointing = bool(profile.checkpointing)
    base = Settings(
        micro_batch=1,
        accumulation=1,
        max_seq_length=length,
        epochs=None if asked.max_steps else epochs,
        max_steps=asked.max_steps,
        precision=precision_of(manifest, facts.device),
        strategy=_strategies(manifest, facts)[0],
        checkpointing=checkpointing,
    )
    # Sizes unknown: one row a pass on a GPU, where a wrong guess ends the run; a few on a CPU.
    return _with_batch(manifest, facts, profile, base, 1 if facts.device.gpu else CPU_MICRO_BATCH)


def _rows_per_step(manifest: TrainingManifest, facts: Facts, profile: Profile, settings: Settings) -> int:
    """The profile's samples; where rows are packed, as many rows as hold so many samples."""
    packed = is_packed(manifest, facts, settings.strategy)
    epoch = facts.arrange(Arrangement(settings.max_seq_length, packed=packed))
    samples = max(1, min(profile.samples_per_step, epoch.samples // MIN_STEPS_PER_EPOCH))
    return max(1, round(samples * epoch.rows / epoch.samples))


def _with_batch(manifest: TrainingManifest, facts: Facts, profile: Profile, settings: Settings, rows: int) -> Settings:
    """`rows` a pass, and the accumulation that makes the profile's samples per step; the user's numbers stay."""
    asked, target = manifest.hyperparameters, _rows_per_step(manifest, facts, profile, settings)
    if _wrote(manifest, "per_device_train_batch_size"):
        rows = asked.per_device_train_batch_size
    elif _wrote(manifest, "gradient_accumulation_steps"):
        rows = min(rows, max(1, target // (facts.world * asked.gradient_accumulation_steps)))
    else:
        rows = min(rows, max(1, target // facts.world))
    if _wrote(manifest, "gradient_accumulation_steps"):
        accumulation = asked.gradient_accumulation_steps
    else:
        accumulation = max(1, round(target / (rows * facts.world)))
    return replace(settings, micro_batch=rows, accumulation=accumulation)


def _candidates(
    manifest: TrainingManifest, facts: Facts, profile: Profile, wanted: Settings
) -> Iterator[tuple[Settings, str]]:
    """Settings from the most wanted to the last resort, with what each gives up."""
    lengths = [(wanted.max_seq_length, "")]
    shorter = _length(manifest, facts, 95)
    if shorter < wanted.max_seq_length:
        lengths.append((shorter, f"max_seq_length {wanted.max_seq_length} -> {shorter}, the 95th percentile"))
    recomputing = [(wanted.checkpointing, "")]
    if not wanted.checkpointing and not _wrote(manifest, "gradient_checkpointing"):
        recomputing.append((True, "gradient_checkpointing: true"))
    for length, cut in lengths:
        for strategy in _strategies(manifest, facts):
            sharded = "" if strategy == wanted.strategy else f"parallelism: {strategy}"
            for checkpointing, again in recomputing:
                said = ", ".join(part for part in (cut, sharded, again) if part)
                yield (
                    replace(wanted, max_seq_length=length, strategy=strategy, checkpointing=checkpointing),
                    said,
                )


def _strategies(manifest: TrainingManifest, facts: Facts) -> tuple[Strategy, ...]:
    """How the processes may share the work, the fastest first."""
    asked = manifest.parallelism
    if asked != "auto" and asked != "ddp":
        return (asked,)
    if facts.world == 1:
        return ("single",)
    if asked == "ddp" or not facts.device.gpu:
        return ("ddp",)
    sharded: tuple[Strategy, ...] = ("zero2", "zero3")
    return ("ddp", *(one for one in sharded if _allows(manifest, one)))


def _allows(manifest: TrainingManifest, strategy: Strategy) -> bool:
    """Whether a manifest could ask for it by name: what it may not say (combinations.py) is not planned either."""
    return not impossible(manifest.model_copy(update={"parallelism": strategy}))


def _largest_batch(manifest: TrainingManifest, facts: Facts, profile: Profile, candidate: Settings) -> Settings | None:
    """The candidate with the most rows a pass (a power of two) that fit; None when not even one does."""
    limit = _limit(facts.device, profile.memory_share)
    most = MOST_ROWS if facts.device.gpu else CPU_MICRO_BATCH
    rows = [2**power for power in range(most.bit_length() - 1, -1, -1)]
    for count in rows:
        settings = _with_batch(manifest, facts, profile, candidate, count)
        table = memory_of(manifest, facts, settings)
        if table is None or limit is None or table.total <= limit:
            return settings
    return None


def _said(manifest: TrainingManifest, settings: Settings) -> tuple[str, ...]:
    """What the profile decided, in the manifest's words; what the user wrote is not said again."""
    decided: list[tuple[str, object]] = [
        ("per_device_train_batch_size", settings.micro_batch),
        ("gradient_accumulation_steps", settings.accumulation),
        ("max_seq_length", settings.max_seq_length),
        ("gradient_checkpointing", str(settings.checkpointing).lower()),
    ]
    if settings.max_steps is None:
        decided.append(("num_train_epochs", f"{settings.epochs:g}"))
    told = [f"{name}: {value}" for name, value in decided if not _wrote(manifest, name)]
    return (f"{manifest.optimization_priority}: {', '.join(told)}",) if told else ()


# --- judging ----------------------------------------------------------------------------------------------------------


def _limit(device: Device, share: float) -> int | None:
    return int(share * device.memory) if device.memory is not None else None


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
            fused_loss=_in_chunks(manifest, facts),
            offload=manifest.parallelism_options.offload == "cpu",
        )
    )


def _in_chunks(manifest: TrainingManifest, facts: Facts) -> bool:
    """Whether the loss will be computed in chunks of tokens; a model that nobody tried is planned to hold all."""
    asked = manifest.hyperparameters.cross_entropy
    if manifest.task != "causal-lm" or manifest.extensions.loss is not None or asked == "plain":
        return False
    return asked == "chunked" or (facts.device.gpu and facts.shape is not None and facts.shape.chunks is True)


def _judged(
    manifest: TrainingManifest, facts: Facts, settings: Settings, share: float, changes: tuple[str, ...]
) -> Choice:
    table, limit = memory_of(manifest, facts, settings), _limit(facts.device, share)
    if table is None or limit is None:
        return Choice(settings, table, None, changes, (), limit)
    fits = table.total <= limit
    return Choice(settings, table, fits, changes, () if fits else _nearest(manifest, facts, settings, limit), limit)


def _nearest(manifest: TrainingManifest, facts: Facts, settings: Settings, limit: int) -> tuple[str, ...]:
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
        for world in (2, 4, 8, 16, 32, 64) if _allows(manifest, "zero3") else ():
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
