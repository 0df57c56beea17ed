"""What a training process holds in memory: a table that names each part, so that a user sees what to make smaller.

All formulas are estimates of bytes per process for transformers' own layers, fp32 master weights under autocast, and
PyTorch's fused attention; the trainer's preflight step measures the truth before the first step.
Source of the method: Korthikanti et al. 2022, Reducing Activation Recomputation in Large Transformer Models, section 4,
redone for gated feed-forward layers and RMS norms; Rajbhandari et al. 2020, ZeRO, section 3, for what is sharded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tollgate.planning.shapes import Shape, Weights

Precision = Literal["bf16", "fp16", "fp32"]
Strategy = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"]
Quantization = Literal["none", "int8", "nf4"]

GIB = 2**30
FP32, FP16 = 4, 2
SHARDED: tuple[Strategy, ...] = ("zero1", "zero2", "zero3", "fsdp2")
_BUCKET = 200_000_000
"""Elements of a bucket of gradients on their way (parallelism.py); while one is sent another fills."""
_QUANTISED = {"int8": 1.05, "nf4": 0.56}  # bytes per weight with their scales (nf4: 0.5 and one fp32 scale per 64)


@dataclass(frozen=True, slots=True)
class Held:
    """What memory depends on. width: tokens of the longest row; fused_loss: the loss never holds all logits at once;
    offload: a sharded strategy keeps the optimizer (with zero3 and fsdp2 also the weights) in the host's memory.
    """

    shape: Shape
    weights: Weights
    micro_batch: int
    width: int
    precision: Precision
    strategy: Strategy
    world: int
    gpu: bool
    checkpointing: bool = False
    quantization: Quantization = "none"
    labels: int | None = None
    fused_loss: bool = False
    offload: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in one process at the peak of a step, by what holds them; all but `host` are of its device.

    host: what was moved to the host's memory, where this process has to find room for it; 0 without offload.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    host: int = 0

    @property
    def total(self) -> int:
        """All of the device's."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.workspace

    def rows(self) -> tuple[tuple[str, int], ...]:
        """(what, bytes), in the order of the table."""
        return (
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("logits", self.logits),
            ("workspace", self.workspace),
        )


def memory(held: Held) -> Memory:
    """The table for one process."""
    weights, gradients, optimizer = _states(held)
    host = 0.0
    if held.offload and held.gpu and held.strategy in SHARDED:
        (weights, gradients, optimizer), host = _offloaded(held)
    activations, logits = _activations(held), _logits(held)
    # CUDA context and libraries take about a GiB, Python with torch a third of one; a twentieth goes to fragments.
    fixed = 1.0 * GIB if held.gpu else 0.4 * GIB
    workspace = fixed + 0.05 * (weights + gradients + optimizer + activations + logits)
    return Memory(
        int(weights), int(gradients), int(optimizer), int(activations), int(logits), int(workspace), int(host)
    )


def _states(held: Held) -> tuple[float, float, float]:
    """Bytes of weights, gradients and AdamW's two moments."""
    trained, frozen = held.weights.trainable, held.weights.total - held.weights.trainable
    shards = held.world if held.world > 1 else 1
    half = held.precision != "fp32"
    if held.quantization != "none":
        frozen_bytes = frozen * _QUANTISED[held.quantization]
    else:
        # Frozen weights are loaded in 16 bit on a GPU; on a CPU in fp32.
        frozen_bytes = frozen * (FP16 if half and held.gpu else FP32)
    if held.strategy in ("zero1", "zero2", "zero3"):
        # DeepSpeed keeps 16-bit weights and gradients, and a sharded fp32 copy beside the moments.
        each = FP16 if half else FP32
        master = FP32 * trained / shards if half else 0.0
        weights = frozen_bytes + each * trained
        gradients = each * trained / (1 if held.strategy == "zero1" else shards)
        if held.strategy == "zero3":
            # What one layer and the head gather is whole for a moment.
            largest = max(held.shape.vocabulary * held.shape.hidden, held.weights.total / held.shape.layers)
            weights = weights / shards + each * largest
        return weights, gradients, master + 2 * FP32 * trained / shards
    if held.strategy == "fsdp2":
        gathered = 2 * (FP16 if half else FP32) * held.weights.total / held.shape.layers
        share = frozen_bytes + FP32 * trained
        return share / shards + gathered, FP32 * trained / shards, 2 * FP32 * trained / shards
    weights = frozen_bytes + FP32 * trained
    if half and trained > frozen:
        weights += FP16 * trained  # autocast keeps a 16-bit copy of each weight for as long as the forward lasts
    buckets = FP32 * trained if held.strategy == "ddp" else 0.0  # what is sent lies in buckets of its own
    return weights, FP32 * trained + buckets, 2.0 * FP32 * trained


def _offloaded(held: Held) -> tuple[tuple[float, float, float], float]:
    """((weights, gradients, optimizer) that stay on the device, bytes on the host).

    The optimizer's states lie on the host and are updated there. zero2 and zero3 move gradients there too, bucket by
    bucket, while backward goes on, and keep them in fp32; zero3 and fsdp2 fetch the weights layer by layer.
    Source: Ren et al. 2021, ZeRO-Offload, section 4; Rajbhandari et al. 2021, ZeRO-Infinity, section 5.
    """
    weights, gradients, optimizer = _states(held)
    trained, shards = held.weights.trainable, held.world
    each = FP32 if held.precision == "fp32" else FP16
    passing = min(gradients, 2.0 * each * _BUCKET)
    if held.strategy == "zero1":
        return (weights, gradients, 0.0), optimizer
    if held.strategy == "zero2":
        return (weights, passing, 0.0), optimizer + FP32 * trained / shards
    if held.strategy == "zero3":
        largest = each * max(held.shape.vocabulary * held.shape.hidden, held.weights.total / held.shape.layers)
        return (largest, passing, 0.0), weights - largest + optimizer + FP32 * trained / shards
    gathered = 2.0 * each * held.weights.total / held.shape.layers
    return (gathered, passing, 0.0), weights - gathered + gradients + optimizer


def _activations(held: Held) -> float:
    """Bytes that backward needs, without logits. Per token and layer: what the operations below save."""
    shape, tokens = held.shape, held.micro_batch * held.width
    each = FP32 if held.precision == "fp32" else FP16
    norms = 2 * 2 * FP32 * shape.hidden  # two norms, each its input and its normalised input in fp32
    feed = (4 if shape.gated else 2) * shape.feed_forward
    layer = norms + each * (2 * shape.hidden + 2 * shape.attention + 2 * shape.keys + feed)
    if shape.attention_dropout:
        # Fused attention has no dropout everywhere; the plain one keeps scores, probabilities and the dropped ones.
        layer += 3 * each * shape.heads * held.width
    boundary = FP32 * shape.hidden
    if held.checkpointing:
        return float(tokens * (boundary * shape.layers + layer))
    return float(tokens * (layer + boundary) * shape.layers)


def _logits(held: Held) -> float:
    """Bytes of the head's output: 16-bit logits, their fp32 copy, the log-softmax and the gradient.

    4 rows of 4,096 tokens over 128,000 words are 8.4 GB for each fp32 copy alone.
    """
    if held.labels is not None:
        return float(3 * FP32 * held.micro_batch * held.labels)
    tokens = held.micro_batch * held.width
    extra = 0 if held.precision == "fp32" else 2 * FP16
    each = held.shape.vocabulary * (3 * FP32 + extra)
    if not held.fused_loss:
        return float(tokens * each)
    # The gradient of what comes into the head is made in the forward already, and kept.
    kept = (FP32 if held.precision == "fp32" else FP16) * tokens * held.shape.hidden
    return float(_chunk(held, tokens) * each + kept)


def _chunk(held: Held, tokens: int) -> int:
    """Tokens whose logits are there at once: as many as make them half as large as the hidden states.

    Source: torch's LinearCrossEntropyOptions, chunking_method "aspect_ratio:2", its default on GPUs and in fp32.
    """
    target = -(-tokens // -(-held.shape.vocabulary // held.shape.hidden))
    power = 1 << (target - 1).bit_length()
    return max(1, min(power // 2, tokens))
