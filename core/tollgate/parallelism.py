"""From a manifest and its nodes to processes: how many, where, and by which strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tollgate.manifest.training_manifest import TrainingManifest

Strategy = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"]
_ZERO_STAGE: dict[str, int] = {"zero1": 1, "zero2": 2, "zero3": 3}


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

    `auto` is `ddp`; `ddp` with a single process is `single`, because there is nobody to average gradients with.
    Raises: LayoutError for counts that cannot be, and for zero* and fsdp2 without GPUs: DeepSpeed's optimizer and
    accelerate's FSDP2 would quietly be plain DDP on a CPU.
    """
    if nodes < 1:
        raise LayoutError(f"compute.nodes is {nodes}; a run has at least 1 node")
    if gpus_per_node < 0:
        raise LayoutError(f"compute.gpusPerNode is {gpus_per_node}; it cannot be negative, 0 means no GPU")
    asked = manifest.parallelism
    if asked not in ("auto", "ddp") and gpus_per_node == 0:
        raise LayoutError(
            f"parallelism is {asked}, which shards over GPUs, but the run has none; set parallelism: ddp (or leave "
            "it out), or choose a profile with GPUs"
        )
    processes = max(1, gpus_per_node)
    world = nodes * processes
    strategy: Strategy = "ddp" if asked == "auto" else asked
    if strategy == "ddp" and world == 1:
        strategy = "single"
    return Layout(nodes, processes, world, strategy)


def deepspeed_config(
    manifest: TrainingManifest, plan: Layout, precision: Literal["bf16", "fp16", "fp32"]
) -> dict[str, Any]:
    """DeepSpeed's configuration for zero1, zero2 or zero3, as JSON values.

    Batch sizes are written out: train_batch_size = micro batch x accumulation x world size, which DeepSpeed checks.
    Optimizer and scheduler are the trainer's own, so the configuration has none.
    Raises: LayoutError for another strategy. Source: DeepSpeed's configuration reference, "ZeRO Optimizations".
    """
    stage = _ZERO_STAGE.get(plan.strategy)
    if stage is None:
        raise LayoutError(
            f"parallelism is {plan.strategy}, which has no DeepSpeed configuration; set zero1, zero2 or zero3"
        )
    hyper = manifest.hyperparameters
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if stage == 3:
        # A save must hold whole 16-bit weights, or nothing but DeepSpeed could read the final model.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_micro_batch_size_per_gpu": hyper.per_device_train_batch_size,
        "gradient_accumulation_steps": hyper.gradient_accumulation_steps,
        "train_batch_size": hyper.per_device_train_batch_size * hyper.gradient_accumulation_steps * plan.world_size,
        "gradient_clipping": hyper.max_grad_norm,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        "zero_optimization": zero,
    }
