"""Options that are each fine and can't work together: refused when the manifest is read, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tollgate.manifest.errors import Problem
from tollgate.manifest.training_manifest import TrainingManifest

_ZERO = ("zero1", "zero2", "zero3")


@dataclass(frozen=True, slots=True)
class Conflict:
    """`meets` tells whether a manifest has it; `field` is the one to change, `value` what stands there."""

    field: str
    value: Callable[[TrainingManifest], Any]
    meets: Callable[[TrainingManifest], bool]
    message: str
    fix: str


CONFLICTS: tuple[Conflict, ...] = (
    Conflict(
        "model.quantization",
        lambda m: m.model.quantization,
        lambda m: (
            (m.model.quantization != "none" and m.parallelism in ("zero3", "fsdp2"))
            or (m.model.quantization == "int8" and m.parallelism in ("zero1", "zero2"))
        ),
        "quantised weights have not been cut into shards by anybody here, and 8-bit ones not been tried with ZeRO",
        "Write `parallelism: ddp` (a quantised base is small, each process holds it), or `quantization: none`.",
    ),
    Conflict(
        "parallelism_options.offload",
        lambda m: m.parallelism_options.offload,
        lambda m: m.parallelism_options.offload != "none" and m.parallelism in ("auto", "ddp"),
        "with ddp every process holds everything on its own device, there is nothing to offload",
        "Write `parallelism: zero2` (optimizer in host memory) or `zero3` (weights too), or remove it.",
    ),
    Conflict(
        "hyperparameters.packing",
        lambda m: m.hyperparameters.packing,
        lambda m: m.hyperparameters.packing is not False and m.task != "causal-lm",
        "a class or an answer belongs to one text, so several texts can't share a row",
        "Write `packing: false`; `group_by_length: true` saves most of the padding.",
    ),
    Conflict(
        "precision",
        lambda m: m.precision,
        lambda m: m.precision == "fp16" and m.compute_target == "cpu",
        "fp16 is for GPUs: on a CPU it is computed without a loss scaler, so small gradients vanish",
        "Write `precision: bf16` or `fp32`, or a compute_target with a GPU.",
    ),
    Conflict(
        "precision",
        lambda m: m.precision,
        lambda m: m.precision == "fp16" and m.parallelism in (*_ZERO, "fsdp2"),
        "with shards the steps that fp16's loss scaler skips would not be counted",
        "Write `precision: bf16`, or `parallelism: ddp`.",
    ),
    Conflict(
        "reproducibility.cudnn_benchmark",
        lambda m: m.reproducibility.cudnn_benchmark,
        lambda m: m.reproducibility.cudnn_benchmark and m.reproducibility.deterministic,
        "what cudnn_benchmark chooses by time may be another algorithm in each run, which deterministic rules out",
        "Keep one of the two.",
    ),
    Conflict(
        "hyperparameters.compile",
        lambda m: m.hyperparameters.compile,
        lambda m: m.hyperparameters.compile and (m.parallelism in _ZERO or m.adapter.type == "moe-lora"),
        "ZeRO's hooks and a mixture of experts do work of their own in the model, which compiled code would break up",
        "Write `compile: false`, or `parallelism: fsdp2` or `ddp` with another adapter.",
    ),
    Conflict(
        "extensions.loss",
        lambda m: m.extensions.loss,
        lambda m: m.extensions.loss is not None and m.task != "causal-lm",
        "the losses of the other tasks are made in the model, where no other can be put in",
        "Remove it, or use task: causal-lm.",
    ),
    Conflict(
        "hyperparameters.cross_entropy",
        lambda m: m.hyperparameters.cross_entropy,
        lambda m: m.hyperparameters.cross_entropy == "chunked" and m.task != "causal-lm",
        "only a language model has so many classes that its loss is worth computing in chunks",
        "Remove it.",
    ),
    Conflict(
        "hyperparameters.cross_entropy",
        lambda m: m.hyperparameters.cross_entropy,
        lambda m: m.hyperparameters.cross_entropy == "chunked" and m.extensions.loss is not None,
        "a loss of your own is given all logits",
        "Remove it, or extensions.loss.",
    ),
    Conflict(
        "hyperparameters.group_by_length",
        lambda m: m.hyperparameters.group_by_length,
        lambda m: m.hyperparameters.group_by_length and m.hyperparameters.packing is not False,
        "packed rows are all full, there is nothing to group",
        "Keep one of packing and group_by_length.",
    ),
    Conflict(
        "hyperparameters.packing",
        lambda m: m.hyperparameters.packing,
        lambda m: m.hyperparameters.packing is not False and _weighted(m),
        "sources that weigh differently give another number of rows in each epoch",
        "Write `packing: false`, or remove the weights of dataset and dataset.sources.",
    ),
    Conflict(
        "hyperparameters.packing",
        lambda m: m.hyperparameters.packing,
        lambda m: m.hyperparameters.packing is True and m.parallelism == "zero3",
        "with zero3 the model is in shards that only training puts together, so packing can't be tried on it before",
        "Write `packing: false`, or `parallelism: fsdp2` (zero2, when the weights fit on one device).",
    ),
)


def _weighted(manifest: TrainingManifest) -> bool:
    return manifest.dataset.weight != 1 or any(source.weight != 1 for source in manifest.dataset.sources)


def impossible(manifest: TrainingManifest) -> list[Problem]:
    """What the manifest asks for that can't be had together. `manifest` has its short forms resolved."""
    return [Problem(one.field, one.value(manifest), one.message, one.fix) for one in CONFLICTS if one.meets(manifest)]
