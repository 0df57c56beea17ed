"""Checks before the first step: the device computes, the network is there, the volume is written, a step fits.

Nothing that training depends on is touched: weights, buffers, optimizer and random generators are the same afterwards,
bit by bit. Each check is one `preflight` event.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from tollgate.planning.devices import Interval
from tollgate_trainer.lifecycle.feeding import REAL
from tollgate_trainer.lifecycle.loop import TrainingLoop
from tollgate_trainer.lifecycle.outcome import MemoryShort
from tollgate_trainer.plan.hardware import finish_work, host_available
from tollgate_trainer.plan.rehearsal import evaluation_seconds
from tollgate_trainer.refusal import OutputRefused

MIB = 2**20
DISK_BYTES = 64 * MIB
SLOW_DISK = 10.0
"""MiB/s below which the volume is called slow."""
QUICK = 0.5
"""A step that takes fewer seconds is measured again: the first one also pays for kernels that are loaded."""
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
_TF32_TOLERANCE = 5e-3


class DeviceFault(Exception):  # noqa: N818 - a state of the hardware
    """A device that computes wrongly. The attempt fails, so that the next one may be placed elsewhere."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. value: None when it could not be measured; ok: False is said aloud."""

    check: str
    value: float | None
    unit: str
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class LongestStep:
    """Forward and backward at the longest length. tokens: with padding; peak: bytes on a GPU, None on a CPU."""

    seconds: float
    rows: int
    width: int
    peak: int | None

    def per_token(self) -> Interval:
        """Seconds per padded token in all steps, from this one: one measurement, so the interval is wide."""
        each = self.seconds / (self.rows * self.width)
        return Interval(0.6 * each, 1.6 * each)


@dataclass(frozen=True, slots=True)
class Findings:
    """What the plan learns from it. step: None where the model is sharded; disk: bytes/s of the output folder."""

    step: LongestStep | None
    disk: float


def preflight(loop: TrainingLoop, recompute: bool) -> Findings:
    """All checks, in all processes together.

    Args: recompute: activations are recomputed in backward (hyperparameters.gradient_checkpointing).
    Raises: DeviceFault, OutputRefused (nothing can be written), MemoryShort and torch's own memory errors.
    """
    session, device = loop.session, loop.args.device
    _tell_all(loop, device_health(device, _compute_type(loop)))
    _tell_all(loop, memory_free(device))
    for check in gpu_counters(device):
        _tell_all(loop, check)
    if session.attempt.world > 1:
        check = all_reduce(device)
        _say(loop, check)
    written: Check | None = None
    if session.attempt.leads:
        written = disk(session.attempt.output_root)
        _say(loop, written)
    written = cast("Check", session.agreement.from_first(written))
    if written.value is None:
        raise OutputRefused(written.message)
    session.progress.touch()
    step = longest_step(loop, recompute)
    if session.attempt.leads:
        _say(loop, _step_check(step))
    if step is not None and len(loop.plan.validation):
        with _untouched(loop.model, device):
            session.expected_evaluation = evaluation_seconds(loop)
    session.progress.touch()
    return Findings(step, written.value * MIB)


def _say(loop: TrainingLoop, check: Check, **more: Any) -> None:
    loop.session.say("preflight", **asdict(check), **more)


def _tell_all(loop: TrainingLoop, mine: Check) -> None:
    """One event for all processes: the worst of them; a device that computes wrongly ends all of them.

    Raises: DeviceFault.
    """
    told: list[tuple[int, str, Check]] = loop.session.agreement.gathered(
        (loop.session.attempt.rank, os.environ.get("TOLLGATE_NODE", ""), mine)
    )
    bad = [(rank, node, check) for rank, node, check in told if not check.ok]
    rank, node, shown = bad[0] if bad else told[0]
    more: dict[str, Any] = {"processes": len(told)} if len(told) > 1 else {}
    if bad:
        more["rank"] = rank
    _say(loop, shown, **more)
    if bad and shown.check == "device":
        where = f"rank {rank}" + (f" on node {node}" if node else "")
        raise DeviceFault(f"{where}: {shown.message}")


# --- device -----------------------------------------------------------------------------------------------------------


def _compute_type(loop: TrainingLoop) -> torch.dtype:
    return torch.bfloat16 if loop.args.bf16 else torch.float16 if loop.args.fp16 else torch.float32


def device_health(device: torch.device, dtype: torch.dtype, product: Callable[[Any, Any], Any] = torch.matmul) -> Check:
    """A matrix product in the run's precision against float64 on the CPU; the relative error is the value.

    Args: product: the operation under test.
    """
    size = 1024 if device.type == "cuda" else 128
    own = torch.Generator().manual_seed(20240229)
    left, right = (torch.randn(size, size, generator=own) for _ in range(2))
    left, right = left.to(dtype), right.to(dtype)
    exact = left.double() @ right.double()
    found = [product(left.to(device), right.to(device)).cpu().double() for _ in range(2)]
    scale = float(exact.abs().max())
    error = float((found[0] - exact).abs().max()) / scale
    limit = _TOLERANCE[dtype]
    if dtype is torch.float32 and device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        limit = _TF32_TOLERANCE
    same = torch.equal(found[0], found[1])
    ok = error <= limit and same  # a NaN compares false
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    if ok:
        return Check("device", error, "relative error", True, f"{name}: a matrix product is right")
    what = f"is off by {error:.2g} of its size (at most {limit:g})" if same else "is not the same twice"
    return Check(
        "device",
        error,
        "relative error",
        False,
        f"{name}: a matrix product {what}: the device is faulty; cordon its node and start the run again",
    )


def memory_free(device: torch.device) -> Check:
    """Free memory of the device; half of a GPU in use by somebody else is said aloud."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device)
        others = total - free - own
        ok = others < 0.5 * total
        message = f"{free / MIB / 1024:.1f} of {total / MIB / 1024:.1f} GiB are free"
        if not ok:
            message += "; another process holds the rest: end it, or take a GPU of your own"
        return Check("memory", free / MIB / 1024, "GiB free", ok, message)
    available = host_available()
    if available is None:
        return Check("memory", None, "GiB free", True, "this system does not say how much memory is free")
    gib = available / MIB / 1024
    return Check("memory", gib, "GiB free", True, f"{gib:.1f} GiB are free on this machine")


def gpu_counters(device: torch.device) -> list[Check]:
    """Clock and uncorrected memory errors of a GPU, where its management library is installed."""
    if device.type != "cuda":
        return []
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        clock = float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))
        limit = float(pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM))
        checks = [Check("clock", clock, "MHz", True, f"the GPU runs at {clock:.0f} of {limit:.0f} MHz")]
        errors = pynvml.nvmlDeviceGetTotalEccErrors(
            handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
        )
        said = "no uncorrected memory error since the driver started"
        if errors:
            said = f"{errors} uncorrected memory errors since the driver started: cordon this node"
        checks.append(Check("ecc", float(errors), "errors", not errors, said))
    except pynvml.NVMLError as error:
        return [Check("ecc", None, "errors", True, f"not known: {error}")]
    return checks


# --- network and disk -------------------------------------------------------------------------------------------------


def all_reduce(device: torch.device) -> Check:
    """Median over three sizes of the bus bandwidth of an all-reduce: 2 (n - 1) / n x bytes / seconds, in GB/s.

    Source: the definition of "busbw" in NVIDIA's nccl-tests.
    """
    import torch.distributed as dist

    world = dist.get_world_size()
    sizes = (MIB, 16 * MIB, 64 * MIB) if device.type == "cuda" else (MIB // 4, MIB, 4 * MIB)
    found = []
    for size in sizes:
        tensor = torch.ones(size // 4, device=device)
        times = []
        for _ in range(3):
            finish_work(device)
            begun = time.monotonic()
            dist.all_reduce(tensor)
            finish_work(device)
            times.append(time.monotonic() - begun)
        found.append(2 * (world - 1) / world * size / statistics.median(times) / 1e9)
    value = statistics.median(found)
    return Check("all_reduce", value, "GB/s", True, f"{world} processes sum their gradients at {value:.2g} GB/s")


def disk(folder: Path) -> Check:
    """Write 64 MiB below the output folder, flush them to the disk, remove them."""
    path = folder / f".preflight-{os.getpid()}"
    block = os.urandom(MIB)  # zeros would be compressed away by some volumes
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        with path.open("wb") as file:
            for _ in range(DISK_BYTES // MIB):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        seconds = time.monotonic() - begun
    except OSError as error:
        return Check(
            "disk",
            None,
            "MiB/s",
            False,
            f"{DISK_BYTES // MIB} MiB could not be written to the output folder {folder} ({error.strerror or error}); "
            "free space there, or use another volume",
        )
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    speed = DISK_BYTES / MIB / max(seconds, 1e-9)
    slow = speed < SLOW_DISK
    message = f"the output folder takes {speed:.0f} MiB/s"
    return Check("disk", speed, "MiB/s", not slow, message + ("; checkpoints will be slow" if slow else ""))


# --- the longest step -------------------------------------------------------------------------------------------------


def longest_step(loop: TrainingLoop, recompute: bool) -> LongestStep | None:
    """Forward and backward of one micro-batch of the longest samples; nothing is changed by it.

    Raises: MemoryShort when the optimizer's state would not fit beside it, and torch's own memory errors.
    """
    model: Any = loop.model
    if loop.sharding.strategy not in ("single", "ddp"):
        return None
    batch = loop.collate([loop.rows[row] for row in loop.plan.order.longest(loop.args.per_device_train_batch_size)])
    device = loop.args.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    seconds = 0.0
    with _untouched(model, device):
        for _ in range(2):
            inputs = loop._prepare_inputs(dict(batch))
            finish_work(device)
            begun = time.monotonic()
            # A mixture of experts routes the same tokens once more in backward, so the step stays open until then.
            mask = inputs.get("attention_mask", inputs.get(REAL))
            routed = loop.routing.step(mask, device) if loop.routing else nullcontext()
            # As the steps will call it: code that is compiled for other arguments is compiled once more for theirs.
            counted = None if loop.routing else loop._get_num_items_in_batch([batch], device)
            with routed, loop.accelerator.autocast():
                loss = loop.compute_loss(model, inputs, num_items_in_batch=counted)
                loss.backward()
            finish_work(device)
            seconds = time.monotonic() - begun
            for parameter in model.parameters():
                parameter.grad = None
            # All go on or none: the step waits for every process, and each has a clock of its own.
            if loop.session.agreement.now(int(seconds > QUICK))[0]:
                break
    if loop.routing is not None:
        loop.routing.take()  # its figures are those of training
    rows, width = batch["input_ids"].shape
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    if peak is not None:
        _leave_room(model, device, peak)
        torch.cuda.empty_cache()
    return LongestStep(seconds, int(rows), int(width), peak)


def _leave_room(model: Any, device: torch.device, peak: int) -> None:
    """The optimizer's two moments are only made at the first step; they have to fit beside the weights by then."""
    held = torch.cuda.memory_allocated(device)
    state = sum(8 * p.numel() for p in model.parameters() if p.requires_grad)
    total = torch.cuda.get_device_properties(device).total_memory
    if peak + state > total:
        raise MemoryShort(
            f"out of memory at the longest length: {peak / MIB / 1024:.1f} GiB for the step ({held / MIB / 1024:.1f} "
            f"of them weights) and {state / MIB / 1024:.1f} GiB for the optimizer, of {total / MIB / 1024:.1f} GiB"
        )


@contextmanager
def _untouched(model: Any, device: torch.device) -> Iterator[None]:
    """Random generators, buffers, gradients and mode of the model are afterwards what they were before."""
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    was_training = model.training
    model.train()
    try:
        yield
    finally:
        model.train(was_training)
        for parameter in model.parameters():
            parameter.grad = None
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)


def _step_check(step: LongestStep | None) -> Check:
    if step is None:
        return Check(
            "longest_step", None, "s", True, "not measured: the model is sharded, only its engine can run a step"
        )
    message = f"forward and backward of {step.rows} x {step.width} tokens"
    if step.peak is not None:
        message += f", at most {step.peak / MIB / 1024:.1f} GiB"
    return Check("longest_step", step.seconds, "s", True, message)
