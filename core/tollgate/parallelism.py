"""From a manifest and its nodes to processes: how many, where, and by which strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tollgate.manifest.training_manifest import TrainingManifest

Strategy = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"]
ZERO_STAGE: dict[str, int] = {"zero1": 1, "zero2": 2, "zero3": 3}
ALLOW_CPU = "TOLLGATE_ALLOW_CPU_SHARDING"
"""`1` in a laptop's environment lets zero* and fsdp2 shard over CPU processes, to try them; no pod has it."""


class LayoutError(ValueError):
    """A layout that cannot be; the message names the field, its value and the fix."""


@dataclass(frozen=True, slots=True)
class Layout:
    """`nodes` pods with `processes_per_node` processes each; `world_size` is their product."""

    nodes: int
    processes_per_node: int
    world_size: int
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples per process and pass, passes per optimizer step, processes."""

    micro: int
    accumulation: int
    world: int


def layout(manifest: TrainingManifest, nodes: int, gpus_per_node: int) -> Layout:
    """The processes of a run: one per GPU, or one per node without GPUs.

    Raises: LayoutError for counts that cannot be, and for zero* and fsdp2 without GPUs, where they save no memory that
    anybody pays for.
    """
    if nodes < 1:
        raise LayoutError(f"compute.nodes is {nodes}; a run has at least 1 node")
    if gpus_per_node < 0:
        raise LayoutError(f"compute.gpusPerNode is {gpus_per_node}; it cannot be negative, 0 means no GPU")
    processes = max(1, gpus_per_node)
    world = nodes * processes
    strategy = strategy_for(manifest, world, gpus=gpus_per_node > 0, cpu_allowed=False)
    return Layout(nodes, processes, world, strategy)


def strategy_for(manifest: TrainingManifest, world: int, *, gpus: bool, cpu_allowed: bool) -> Strategy:
    """The strategy of a run with `world` processes.

    `auto` is `ddp`; `ddp` with a single process is `single`, because there is nobody to average gradients with.
    Args: gpus: whether each process has one; cpu_allowed: sharding over CPU processes was asked for by name.
    Raises: LayoutError for a sharded strategy without GPUs that nobody asked to try on CPUs.
    """
    asked = manifest.parallelism
    if asked == "auto" or asked == "ddp":
        return "ddp" if world > 1 else "single"
    if not gpus and not cpu_allowed:
        raise LayoutError(
            f"parallelism is {asked}, which shards over GPUs, but the run has none; set parallelism: ddp (or leave "
            f"it out), choose a profile with GPUs, or on a laptop set {ALLOW_CPU}=1 to try it on CPU processes"
        )
    return asked


def deepspeed_config(
    manifest: TrainingManifest,
    strategy: Strategy,
    precision: Literal["bf16", "fp16", "fp32"],
    batch: Batch,
    *,
    gpus: bool = True,
    native_adam: bool = True,
) -> dict[str, Any]:
    """DeepSpeed's configuration for zero1, zero2 or zero3, as JSON values.

    Batch sizes are written out: train_batch_size = micro batch x accumulation x world size, which DeepSpeed checks.
    Optimizer and scheduler are the trainer's own, so the configuration has none. An overflow check stands in every
    precision, so that a step with a non-finite gradient is never applied.
    Args: batch: after an out-of-memory it may differ from the manifest's; native_adam: offloaded states are updated
    by DeepSpeed's own compiled Adam (else by torch's, which needs no compiler).
    Raises: LayoutError for another strategy. Source: DeepSpeed's configuration reference, "ZeRO Optimizations".
    """
    stage = ZERO_STAGE.get(strategy)
    if stage is None:
        raise LayoutError(f"parallelism is {strategy}, which has no DeepSpeed configuration; set zero1, zero2 or zero3")
    return {
        "train_micro_batch_size_per_gpu": batch.micro,
        "gradient_accumulation_steps": batch.accumulation,
        "train_batch_size": batch.micro * batch.accumulation * batch.world,
        "gradient_clipping": manifest.hyperparameters.max_grad_norm,
        "bf16": {"enabled": precision == "bf16", "check_grad_overflow": True},
        "fp16": {"enabled": precision == "fp16"},
        "zero_optimization": _zero(stage, manifest.parallelism_options.offload == "cpu", gpus),
        "zero_force_ds_cpu_optimizer": native_adam,
    }


def _zero(stage: int, offload: bool, gpus: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": gpus,  # a CPU has no second stream to overlap with
        "contiguous_gradients": True,
        # Elements. Its buffer is allocated whole; DeepSpeed's default of 5e8 is 2 GB per process in fp32.
        "reduce_bucket_size": 200_000_000 if gpus else 1_000_000,
        "allgather_bucket_size": 200_000_000 if gpus else 1_000_000,
    }
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": gpus}
    if stage == 3:
        # A save must hold whole 16-bit weights, or nothing but DeepSpeed could read the final model.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
        if offload:
            zero["offload_param"] = {"device": "cpu", "pin_memory": gpus}
        if not gpus:
            # Small tensors are otherwise kept whole everywhere, and on a CPU only small models are tried.
            zero["stage3_param_persistence_threshold"] = 0
    return zero
