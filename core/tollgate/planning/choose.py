"""From a manifest and what is known of data, model and device to the numbers of the run. Pure and total.

The same function answers on a laptop (`tollgate plan`) and in the pod (the trainer), so that both use the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.devices import Device
from tollgate.planning.epoch import Arrangement
from tollgate.planning.facts import Facts, Settings, allows, is_packed, memory_of
from tollgate.planning.memory import Memory, Precision, Strategy
from tollgate.planning.nearest import nearest
from tollgate.planning.profiles import CPU_MICRO_BATCH, MIN_STEPS_PER_EPOCH, PROFILES, Profile

PLAIN_MEMORY_SHARE = 0.95
"""Of a device that a manifest without a profile may fill before the plan says that it does not fit."""
MOST_ROWS = 256


@dataclass(frozen=True, slots=True)
class Choice:
    """fits: None when it is not known; changes: what was set, and why; nearest: what would fit, when nothing does."""

    settings: Settings
    memory: Memory | None
    fits: bool | None
    changes: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()
    limit: int | None = field(default=None)


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
    return ("ddp", *(one for one in sharded if allows(manifest, one)))


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


def _judged(
    manifest: TrainingManifest, facts: Facts, settings: Settings, share: float, changes: tuple[str, ...]
) -> Choice:
    table, limit = memory_of(manifest, facts, settings), _limit(facts.device, share)
    if table is None or limit is None:
        return Choice(settings, table, None, changes, (), limit)
    fits = table.total <= limit
    return Choice(settings, table, fits, changes, () if fits else nearest(manifest, facts, settings, limit), limit)
