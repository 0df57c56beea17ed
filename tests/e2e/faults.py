"""What happens to pods of real clusters, done to pods of the test's node: kills, deletions, evictions, freezing.

Pods of the node are processes of this machine, so a test finds them by the name of their pod in their environment.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import runs

from tollgate.contract import Env
from tollgate_local.testing import eventually

Pod = Mapping[str, Any]
Fault = Callable[[runs.Tollgate, Pod], None]


def name_of(pod: Pod) -> str:
    """metadata.name."""
    return str(pod["metadata"]["name"])


def launchers(pod: Pod) -> list[int]:
    """Pid 1 of the pod, as this machine counts."""
    return [pid for pid, (command, _) in _processes(pod).items() if "tollgate-launch" in command]


def workers(pod: Pod) -> list[int]:
    """The ranks: processes that torchrun started."""
    return [pid for pid, (_, environment) in _processes(pod).items() if "\0RANK=" in environment]


def kill_worker(tollgate: runs.Tollgate, pod: Pod) -> None:
    """SIGKILL to every rank of the pod, as a person or a driver would."""
    _signal(workers(pod), signal.SIGKILL, pod)


def kill_launcher(tollgate: runs.Tollgate, pod: Pod) -> None:
    """SIGKILL to pid 1: the container is gone at once, without a word."""
    _signal(launchers(pod), signal.SIGKILL, pod)


def freeze_worker(tollgate: runs.Tollgate, pod: Pod) -> None:
    """SIGSTOP: the process is there and does nothing, as with a hung device."""
    _signal(workers(pod), signal.SIGSTOP, pod)


def delete_pod(tollgate: runs.Tollgate, pod: Pod) -> None:
    """`kubectl delete pod`."""
    tollgate.installed.kubectl.run("delete", "pod", name_of(pod), "--wait=false")


def evict_pod(tollgate: runs.Tollgate, pod: Pod) -> None:
    """The eviction API, as `kubectl drain` and autoscalers use it."""
    path = f"/api/v1/namespaces/{runs.NAMESPACE}/pods/{name_of(pod)}/eviction"
    metadata = {"name": name_of(pod), "namespace": runs.NAMESPACE}
    tollgate.cluster.api.create(path, {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata})


def end(tollgate: runs.Tollgate, name: str) -> None:
    """Deletes a run whose gang nobody needs any more, without waiting for its grace."""
    tollgate.installed.kubectl.run("delete", "trainingrun", name, "--wait=false")
    for pod in tollgate.pods(name):
        for pid in launchers(pod):
            with suppress(ProcessLookupError):  # it may have heard of the deletion by now
                os.kill(pid, signal.SIGKILL)
    tollgate.delete(name)


def wait_until_frozen_processes_are_gone(pod: Pod) -> None:
    """A frozen process dies of SIGKILL only; the test ends when nothing of it is left."""
    eventually(lambda: not _processes(pod), 120, f"no process of {name_of(pod)} is left")


def _signal(pids: list[int], number: signal.Signals, pod: Pod) -> None:
    assert pids, f"{name_of(pod)} has no such process"
    for pid in pids:
        os.kill(pid, number)


def _processes(pod: Pod) -> dict[int, tuple[str, str]]:
    """(command line, environment) of each process of a pod."""
    mark, found = f"\0{Env.POD_NAME.value}={name_of(pod)}\0", {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = "\0" + (folder / "environ").read_text(errors="replace") + "\0"
            if mark in environment:
                found[int(folder.name)] = ((folder / "cmdline").read_text(errors="replace"), environment)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended while we looked
    return found
