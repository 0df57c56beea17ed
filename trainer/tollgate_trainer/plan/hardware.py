"""The device that this process computes on, in the planner's words. Nothing here imports torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tollgate.planning import devices
from tollgate.planning.devices import Device

if TYPE_CHECKING:
    import torch

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")


def device_of(device: torch.device, processes_per_node: int) -> Device:
    """What a process may plan with: its GPU, or its share of the machine's memory."""
    if device.type == "cuda":
        import torch

        properties = torch.cuda.get_device_properties(device)
        return devices.known(properties.name, properties.total_memory, torch.cuda.is_bf16_supported())
    memory = host_memory()
    return devices.cpu(None if memory is None else memory // max(1, processes_per_node))


def finish_work(device: torch.device) -> None:
    """Wait until a GPU has done what it was given, so that a clock tells how long that took."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def host_memory() -> int | None:
    """Bytes that this machine, or this container, may use; None where neither tells."""
    found = [value for value in (_meminfo("MemTotal"), _limit()) if value is not None]
    return min(found, default=None)


def host_available() -> int | None:
    """Bytes that are free without swapping; None where nobody tells. A container's limit is not in it."""
    return _meminfo("MemAvailable")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _meminfo(name: str) -> int | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _limit() -> int | None:
    try:
        text = _CGROUP.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
