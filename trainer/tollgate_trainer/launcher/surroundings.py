"""What the launcher finds and prepares around the command: environment, names that must resolve, kernel kills."""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tollgate.contract import Env

_CGROUP = Path("/sys/fs/cgroup")


def child_environment(
    environ: Mapping[str, str], command: Sequence[str], *, node_index: int, started_at: float, deadline: float | None
) -> dict[str, str]:
    """The command's environment: ours, the launcher's facts, and defaults for what must be set before Python starts.

    Args: started_at, deadline: epoch seconds.
    Raises: OSError when no folder for temporary files can be written.
    """
    result = dict(environ)
    result[Env.STARTED_AT] = f"{started_at:.3f}"
    result[Env.NODE_INDEX] = str(node_index)
    result.pop(Env.DEADLINE, None)
    if deadline is not None:
        result[Env.DEADLINE] = f"{deadline:.3f}"
    # Hash order and cuBLAS workspaces are read once, at the start of a process: nobody can set them later.
    result.setdefault("PYTHONHASHSEED", "0")
    result.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    result.setdefault("OMP_NUM_THREADS", str(max(1, processors() // max(1, processes_per_node(command)))))
    # Threads that spin while they wait burn a pod's CPU quota; on two busy cores they made small models 3-6x slower.
    result.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    result.setdefault("PYTHONUNBUFFERED", "1")
    result.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive the data loader's forks
    home = result.get("HOME", "")
    if not home or home == "/" or not os.access(home, os.W_OK):
        home = str(Path(tempfile.gettempdir(), "tollgate-home"))
        os.makedirs(home, exist_ok=True)
        result["HOME"] = home
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:  # a pod's uid is in no passwd file, and libraries ask for the user's name
        result["USER"] = result.get("USER") or "tollgate"
        result["LOGNAME"] = result.get("LOGNAME") or result["USER"]
    return result


def option(command: Sequence[str], name: str) -> str | None:
    """The value of `--name value` or `--name=value` in a command, in torchrun's two spellings (`-` and `_`)."""
    spellings = {f"--{name}", f"--{name.replace('-', '_')}"}
    for position, word in enumerate(command):
        key, equals, value = word.partition("=")
        if key in spellings:
            if equals:
                return value
            return command[position + 1] if position + 1 < len(command) else None
    return None


def starts_workers(command: Sequence[str]) -> bool:
    """Whether the command is torchrun, whose children train, or a program that trains by itself."""
    return option(command, "nproc-per-node") is not None


def processes_per_node(command: Sequence[str]) -> int:
    """Value of torchrun's --nproc-per-node, 1 when it is not said in digits."""
    value = option(command, "nproc-per-node") or "1"
    return int(value) if value.isdigit() else 1


def processors(cgroup: Path = _CGROUP) -> int:
    """How many processors this process may use: the cgroup's quota (rounded up) if there is one, else its affinity."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return affinity if quota is None else max(1, min(affinity, quota))


def _quota(cgroup: Path) -> int | None:
    if (limit := _read(cgroup / "cpu.max")) is not None:
        amount, _, period = limit.partition(" ")
    else:
        amount = _read(cgroup / "cpu/cpu.cfs_quota_us") or "max"
        period = _read(cgroup / "cpu/cpu.cfs_period_us") or "100000"
    if amount in ("max", "-1"):
        return None
    return -(-int(amount) // int(period))


def kernel_kills(cgroup: Path = _CGROUP) -> int | None:
    """How many processes the kernel has killed in our cgroup for want of memory, or None where it does not say."""
    for name in ("memory.events", "memory/memory.oom_control"):
        if (text := _read(cgroup / name)) is not None:
            match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
            return int(match[1]) if match else None
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None  # not every kernel, container or person has these files


def name_to_resolve(command: Sequence[str]) -> str | None:
    """The rendezvous host when it is a name: its pod may not have an address yet. None for an address or no host."""
    host = option(command, "master-addr")
    if host is None or host == "localhost":
        return None
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return None


def resolve(
    name: str,
    patience: float,
    *,
    lookup: Callable[[str], object] = lambda name: socket.getaddrinfo(name, None),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when `name` has an address. Raises: TimeoutError after `patience` seconds, with the resolver's words."""
    end = clock() + patience
    pause = 0.5
    while True:
        try:
            lookup(name)
            return
        except OSError as error:
            if clock() >= end:
                raise TimeoutError(
                    f"the name of node 0, {name}, had no address within {patience:.0f} s ({error}); node 0 has not "
                    "started, or the namespace's rendezvous Service is missing"
                ) from error
        sleep(pause)
        pause = min(pause * 1.5, 5.0)
