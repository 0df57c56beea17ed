"""From a manifest and its nodes to processes: how many, where, and by which strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tollgate.manifest.training_manifest import TrainingManifest

Strategy = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"]


class LayoutError(ValueError):
    """A layout that cannot be; the message names the field, its value and the fix."""


@dataclass(frozen=True, slots=True)
class Layout:
    """`nodes` pods with `processes_per_node` processes each; `world_size` is their product."""

    nodes: int
    processes_per_node: int
    world_size: int
    strategy: Strategy


def layout(manifest: TrainingManifest, nodes: int, gpus_per_node: int) -> Layout:
    """The processes of a run: one per GPU, or one per node without GPUs.

    Raises: LayoutError for counts that cannot be and for zero* and fsdp2 without GPUs.
    """
    raise NotImplementedError


def deepspeed_config(
    manifest: TrainingManifest, plan: Layout, precision: Literal["bf16", "fp16", "fp32"]
) -> dict[str, Any]:
    """DeepSpeed's configuration for zero1, zero2 or zero3, as JSON values. Raises: LayoutError for another strategy."""
    raise NotImplementedError
