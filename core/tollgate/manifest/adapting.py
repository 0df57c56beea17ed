"""Adapters and quantised bases: what can't be asked for together, refused when the manifest is read."""

from __future__ import annotations

from collections.abc import Iterator

from tollgate.manifest.errors import Problem
from tollgate.manifest.training_manifest import TrainingManifest


def problems(manifest: TrainingManifest) -> Iterator[Problem]:
    """Every contradiction between adapter, quantisation and model, each with its fix."""
    yield from _quantised(manifest)
    yield from _experts(manifest)


def _quantised(manifest: TrainingManifest) -> Iterator[Problem]:
    model, adapter = manifest.model, manifest.adapter
    if model.quantization == "none":
        return
    if adapter.type == "none":
        yield Problem(
            "model.quantization",
            model.quantization,
            "quantization needs an adapter: quantised weights take no gradient",
            "Write `adapter: {type: lora}`, or `quantization: none`.",
        )
    if model.base is None:
        yield Problem(
            "model.quantization",
            model.quantization,
            "there is nothing to quantise: a model made from a config has no trained weights",
            "Name a `model.base`, or write `quantization: none`.",
        )
    if model.quantization == "int8" and adapter.dora:
        yield Problem(
            "adapter.dora",
            True,
            "DoRA needs the base's weights at each step, which an 8-bit base does not give back",
            "Write `quantization: nf4`, or remove `dora`.",
        )
    if manifest.precision == "fp16":
        yield Problem(
            "precision",
            "fp16",
            "a quantised base is computed in bf16 or fp32",
            "Write `precision: auto`, or remove it.",
        )


def _experts(manifest: TrainingManifest) -> Iterator[Problem]:
    adapter = manifest.adapter
    if adapter.type == "lora":
        for name, value in (("experts", adapter.experts), ("top_k", adapter.top_k), ("balance", adapter.balance)):
            if value is not None:
                yield Problem(
                    f"adapter.{name}",
                    value,
                    "there are no experts with adapter.type lora",
                    "Write `type: moe-lora`, or remove it.",
                )
    if adapter.type != "moe-lora":
        return
    if adapter.dora:
        yield Problem(
            "adapter.dora",
            True,
            "DoRA scales the one merged weight, which a mixture of experts does not have",
            "Remove it, or write `type: lora`.",
        )
    if adapter.rslora:
        yield Problem(
            "adapter.rslora",
            True,
            "each expert of a mixture is scaled by alpha / rank",
            "Remove it and choose `alpha`, or write `type: lora`.",
        )
    mixture = adapter.mixture
    if mixture.top_k > mixture.experts:
        yield Problem(
            "adapter.top_k",
            mixture.top_k,
            f"no token can be served by more than the {mixture.experts} experts that there are",
            f"Write at most {mixture.experts}.",
        )
    elif mixture.top_k == mixture.experts and adapter.balance:
        yield Problem(
            "adapter.balance",
            adapter.balance,
            "every token is served by every expert, so there is nothing to balance",
            "Remove it, or lower `top_k`.",
        )
