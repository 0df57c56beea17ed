"""plan.json: what a run was planned to do, and the manifest with the planned numbers in it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tollgate.estimate import Estimate, Fit
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.choose import Choice
from tollgate.planning.facts import Facts, Settings, weights_of

SCHEMA = 1


class PlanError(ValueError):
    """A plan.json that is none; the message names what is wrong."""


class Belongs(BaseModel):
    """What a plan belongs to; a plan of anything else is not used."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    uid: str | None = None
    manifest_digest: str
    dataset_digest: str
    world: int


class Kept(BaseModel):
    """The parts of plan.json that a later attempt reads back; the rest is for people."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: int
    belongs: Belongs
    settings: dict[str, Any]
    save_minutes: float | None = None
    hours: tuple[float, float] | None = None
    usd: tuple[float, float] | None = None

    @property
    def chosen(self) -> Settings:
        """The settings. Raises: PlanError."""
        try:
            return TypeAdapter(Settings).validate_python(self.settings)
        except ValidationError as error:
            raise PlanError(f"settings: {error.errors()[0]['msg']}") from error


def read(text: str) -> Kept:
    """The plan in a file's text. Raises: PlanError naming the first thing that is wrong."""
    try:
        kept = Kept.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise PlanError(f"{'.'.join(map(str, first['loc'])) or 'the document'}: {first['msg']}") from error
    if kept.schema_version != SCHEMA:
        raise PlanError(f"schema_version is {kept.schema_version}, this version reads {SCHEMA}")
    _ = kept.chosen
    return kept


def planned(manifest: TrainingManifest, settings: Settings, save_minutes: float | None) -> TrainingManifest:
    """The manifest with the planned numbers where a profile planned; without a profile it stays what it is."""
    if manifest.optimization_priority == "none":
        return manifest
    numbers: dict[str, Any] = {
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.accumulation,
        "max_seq_length": settings.max_seq_length,
        "gradient_checkpointing": settings.checkpointing,
    }
    if settings.epochs is not None:
        numbers["num_train_epochs"] = settings.epochs
    changes: dict[str, Any] = {"hyperparameters": manifest.hyperparameters.model_copy(update=numbers)}
    if manifest.parallelism == "auto" and settings.strategy not in ("single", "ddp"):
        changes["parallelism"] = settings.strategy
    if save_minutes is not None and manifest.checkpoint.every_minutes is None:
        changes["checkpoint"] = manifest.checkpoint.model_copy(update={"every_minutes": save_minutes})
    return manifest.model_copy(update=changes)


def document(
    manifest: TrainingManifest, facts: Facts, choice: Choice, found: Estimate, fit: Fit | None, belongs: Belongs
) -> dict[str, Any]:
    """plan.json as JSON values; docs/reference/files.md has its fields. What is unknown is null."""
    lengths, shape, device = facts.lengths, facts.shape, facts.device
    weights = weights_of(manifest, shape) if shape is not None else None
    whole = found.work
    return {
        "schema_version": SCHEMA,
        "name": manifest.name,
        "profile": manifest.optimization_priority,
        "belongs": belongs.model_dump(mode="json"),
        "device": {
            "name": device.name,
            "memory_bytes": device.memory,
            "peak_flops": device.flops,
            "nodes": facts.nodes,
            "processes_per_node": facts.processes_per_node,
        },
        "data": {
            "documents": lengths.documents,
            "tokens": lengths.tokens,
            "p50": lengths.at(50),
            "p95": lengths.at(95),
            "longest": lengths.longest,
            "held_out_documents": lengths.validation_documents,
        },
        "model": None
        if shape is None or weights is None
        else {"parameters": shape.parameters, "trainable": weights.trainable, "counted": shape.counted},
        "settings": asdict(choice.settings),
        "save_minutes": found.preemption.every_minutes,
        "memory": None
        if choice.memory is None
        else {
            **dict(choice.memory.rows()),
            "total": choice.memory.total,
            "limit": choice.limit,
            "host": choice.memory.host,
        },
        "fits_memory": choice.fits,
        "work": asdict(whole),
        "hours": None if found.hours is None else (found.hours.low, found.hours.high),
        "hours_because": found.because,
        "usd": None if found.usd_micro is None else [micro / 1e6 for micro in found.usd_micro],
        "preemption": {
            "loses_minutes": found.preemption.minutes,
            "loses_usd": None if found.preemption.usd_micro is None else found.preemption.usd_micro / 1e6,
            "expected_share": found.preemption.expected_share,
            "because": found.preemption.because,
        },
        "limits": None if fit is None else asdict(fit),
        "changes": list(choice.changes),
        "nearest": list(choice.nearest),
    }
