"""The processes of an attempt: device, process group, determinism. The first import of torch is here."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.parallelism import Strategy
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.refusal import ManifestRefused

SMALL_PARAMETERS = 5_000_000
COLLECTIVE_TIMEOUT = timedelta(minutes=30)


def device_for(manifest: TrainingManifest, attempt: Attempt, in_pod: bool) -> tuple[torch.device, str | None]:
    """Where this process computes, and what to say aloud about it.

    A GPU target without a GPU runs on the CPU on a laptop, where the same manifest is tried out, and is refused in a
    pod, where somebody pays for the GPU.
    Raises: ManifestRefused.
    """
    if manifest.compute_target == "cpu":
        return torch.device("cpu"), None
    if torch.cuda.is_available():
        device = torch.device("cuda", attempt.local_rank)
        torch.cuda.set_device(device)
        return device, None
    if in_pod:
        raise ManifestRefused(
            f"compute_target is {manifest.compute_target}, but this pod has no usable GPU; use a profile with GPUs "
            f"and an image whose torch is built for them",
            "compute_target",
        )
    return torch.device(
        "cpu"
    ), f"compute_target is {manifest.compute_target}, but there is no GPU here: training on the CPU"


def join(attempt: Attempt, device: torch.device, strategy: Strategy) -> None:
    """Build the process group.

    A single process needs none and forgets torchrun's variables, so that no library builds one; a sharded strategy
    needs one even then.
    """
    if strategy == "single":
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
        return
    backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
    if attempt.world == 1:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        store: Any = torch.distributed.HashStore  # type: ignore[attr-defined] # its stubs forget it
        torch.distributed.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT, store=store(), rank=0, world_size=1)
        return
    torch.distributed.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)


def leave() -> None:
    """Take the process group down, if there is one; all processes do it together."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def fit_threads(parameters: int) -> None:
    """On a CPU, let a small model be computed by one thread: its operations are too short to be shared.

    With two threads on two busy cores a model of 170,000 parameters was measured ten times slower, because each of its
    thousands of short operations waits for the slower thread. The rule is by size, not by a measurement, so that a
    resumed run computes with as many threads as before.
    """
    if parameters < SMALL_PARAMETERS:
        torch.set_num_threads(1)


def set_determinism(manifest: TrainingManifest) -> None:
    """`reproducibility` and `tf32` as torch knows them; the launcher sets what must stand before Python starts."""
    asked = manifest.reproducibility
    torch.use_deterministic_algorithms(asked.deterministic)
    torch.backends.cudnn.deterministic = asked.deterministic
    torch.backends.cudnn.benchmark = asked.cudnn_benchmark and not asked.deterministic
    torch.backends.cuda.matmul.allow_tf32 = manifest.tf32
    torch.backends.cudnn.allow_tf32 = manifest.tf32
