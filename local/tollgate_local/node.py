"""One real node: started in namespaces of its own, entered, cut off, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tollgate_local import host, processes
from tollgate_local.errors import NotRunningError, StartError
from tollgate_local.node_config import render
from tollgate_local.node_init import NodePlan, NodeServer
from tollgate_local.packages import cni_folder, tool
from tollgate_local.settings import NodeShape
from tollgate_local.state import StateFolder

__all__ = ["NODE_SERVERS", "enter", "hold", "init_pid", "release", "start", "stop"]

NODE_SERVERS = ("containerd", "kubelet", "kube-proxy")


def start(
    settings: NodeShape, folder: StateFolder, number: int, programs: dict[str, Path], pause_image: str
) -> processes.Process:
    """Start node `number` and lay its cable; it registers itself. Returns the process that holds the node."""
    name = f"node{number}"
    home = folder.node(name)
    cni = cni_folder()
    for part in ("containerd", "kubelet", "cni", "log/pods", "hold", "running"):
        (home / part).mkdir(parents=True, exist_ok=True)
    for part in ("hold", "running"):
        for stale in (home / part).iterdir():
            stale.unlink()
    render(settings, folder, number, runc=tool("runc"), cni=cni, pause_image=pause_image).write(home)
    plan = _plan(settings, folder, number, programs, cni)
    plan.write(home / "plan.json")
    namespaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    command = [tool("unshare"), *namespaces, "--propagation", "private"]
    outer = processes.start_server(
        name,
        [*command, sys.executable, "-m", "tollgate_local.node_init", str(home / "plan.json")],
        state=folder.root,
        environment={**plan.environment, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        nice=settings.nice,
    )
    host.attach(settings, number, _wait_init(outer, folder))
    _wait_containerd(outer, folder)
    return outer


def init_pid(outer: processes.Process) -> int:
    """The node's first process, seen from the host. Raises: NotRunningError."""
    if processes.alive(outer):
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        if children:
            return int(children[0])
    raise NotRunningError(f"{outer.name} does not run; `tollgate local up` starts it again")


def enter(outer: processes.Process, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` inside the node: its processes, mounts, network and name."""
    return [tool("nsenter"), "-t", str(init_pid(outer)), "-n", "-m", "-p", "-u", "-i", *command]


def hold(outer: processes.Process, folder: StateFolder, server: str) -> None:
    """Kill one server of the node and keep it dead until `release`."""
    (folder.node(outer.name) / "hold" / server).touch()
    _nudge_until(outer, folder, server, running=False)


def release(outer: processes.Process, folder: StateFolder, server: str) -> None:
    """Let a held server start again."""
    (folder.node(outer.name) / "hold" / server).unlink(missing_ok=True)
    _nudge_until(outer, folder, server, running=True)


def stop(outer: processes.Process) -> None:
    """End the node: the kernel ends all that lives in its namespaces."""
    if processes.alive(outer):
        with contextlib.suppress(NotRunningError, ProcessLookupError):  # it may have ended since the look
            os.kill(init_pid(outer), signal.SIGKILL)
        if not processes.wait_gone(outer, 10.0):
            processes.end(outer)


def _plan(settings: NodeShape, folder: StateFolder, number: int, programs: dict[str, Path], cni: str) -> NodePlan:
    name = f"node{number}"
    home = folder.node(name)
    path = [str(programs["containerd-shim-runc-v2"].parent), cni, "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    kubelet = (
        str(programs["kubelet"]),
        f"--config={home}/etc/kubelet.yaml",
        f"--kubeconfig={folder.pki}/{name}-client.kubeconfig",
        f"--hostname-override={name}",
        f"--node-ip={settings.node_ip(number)}",
    )
    return NodePlan(
        name=name,
        folder=str(home),
        logs=str(folder.logs),
        address=f"{settings.node_ip(number)}/24",
        gateway=settings.host_ip,
        peers={
            f"{settings.pods}.{other}.0/24": settings.node_ip(other)
            for other in range(1, settings.nodes + 1)
            if other != number
        },
        # /var/log/containers is compiled into the kubelet, the other two into libcni and the device plugin API
        binds={
            "/var/log": f"{home}/log",
            "/var/lib/cni": f"{home}/cni",
            "/var/lib/kubelet": f"{home}/kubelet",
            "/etc/hosts": f"{home}/etc/hosts",
        },
        environment={"PATH": ":".join(path), "HOME": "/root", processes.MARK: str(folder.root)},
        servers=(
            NodeServer("containerd", (str(programs["containerd"]), "--config", f"{home}/etc/containerd.toml")),
            NodeServer("kubelet", kubelet),
            NodeServer("kube-proxy", (str(programs["kube-proxy"]), f"--config={home}/etc/kube-proxy.yaml")),
        ),
    )


def _wait_init(outer: processes.Process, folder: StateFolder) -> int:
    deadline = time.monotonic() + 10
    while True:
        try:
            return init_pid(outer)
        except NotRunningError as error:
            if time.monotonic() > deadline or not processes.alive(outer):
                words = processes.last_words(folder.logs / f"{outer.name}.log")
                raise StartError(f"{outer.name} did not start: {words}") from error
            time.sleep(0.01)


def _wait_containerd(outer: processes.Process, folder: StateFolder) -> None:
    socket = Path(f"/proc/{init_pid(outer)}/root/run/containerd/containerd.sock")
    deadline = time.monotonic() + 30
    while not socket.exists():
        if time.monotonic() > deadline or not processes.alive(outer):
            logs = [folder.logs / f"{outer.name}.log", folder.logs / f"{outer.name}-containerd.log"]
            words = "; ".join(processes.last_words(log) for log in logs)
            raise StartError(f"containerd of {outer.name} did not start: {words}")
        time.sleep(0.05)


def _nudge_until(outer: processes.Process, folder: StateFolder, server: str, *, running: bool) -> None:
    mark = folder.node(outer.name) / "running" / server
    deadline = time.monotonic() + 15
    os.kill(init_pid(outer), signal.SIGHUP)
    while mark.exists() != running:
        if time.monotonic() > deadline:
            raise StartError(f"{server} of {outer.name} did not {'start' if running else 'stop'} within 15 s")
        time.sleep(0.02)
