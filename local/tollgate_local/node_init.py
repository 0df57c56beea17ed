"""The first process inside a node's namespaces: it prepares them, keeps the node's servers running and reaps orphans.

Run as `python -m tollgate_local.node_init PLAN.json` by `node.start` under unshare(1). Ending this one process ends
every process, pod, mount and interface of the node: the kernel does that, so nothing can be forgotten. It takes
requests through files, because a fault test must be able to hold a server down: while `hold/NAME` exists, NAME is kept
dead.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["NodePlan", "NodeServer", "main"]

_RESTART_AFTER = 1.0  # seconds before an ended server starts again


@dataclass(frozen=True, slots=True)
class NodeServer:
    """One server of the node: its name and command line."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodePlan:
    """All that the init process needs to know."""

    name: str
    folder: str
    logs: str
    address: str
    """With prefix length, e.g. `10.250.0.11/24`."""
    gateway: str
    peers: dict[str, str]
    """Other nodes' pods: network -> address of the node on the link."""
    binds: dict[str, str]
    """Place in the node -> folder or file of the host that is mounted there."""
    environment: dict[str, str]
    servers: tuple[NodeServer, ...] = field(default=())

    def write(self, path: Path) -> None:
        """Write the plan for the init process."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @staticmethod
    def read(path: Path) -> NodePlan:
        """Read what `write` wrote."""
        values = json.loads(path.read_text())
        servers = tuple(NodeServer(s["name"], tuple(s["command"])) for s in values.pop("servers"))
        return NodePlan(servers=servers, **values)


def main() -> None:
    """Prepare the namespaces, then supervise for ever."""
    plan = NodePlan.read(Path(sys.argv[1]))
    _mounts(plan)
    _network(plan)
    _Supervisor(plan).run()


def _mounts(plan: NodePlan) -> None:
    _run("mount", "--make-rshared", "/")  # volumes with mount propagation need a shared root
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    for place, source in plan.binds.items():
        _run("mount", "--bind", source, place)
    socket.sethostname(plan.name)


def _network(plan: NodePlan) -> None:
    _run("ip", "link", "set", "lo", "up")
    while not any(name == "eth0" for _, name in socket.if_nameindex()):  # the cable is laid from outside
        time.sleep(0.02)
    _run("ip", "addr", "add", plan.address, "dev", "eth0")
    _run("ip", "link", "set", "eth0", "up")
    _run("ip", "route", "add", "default", "via", plan.gateway)
    for network, via in plan.peers.items():
        _run("ip", "route", "add", network, "via", via)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if bridged.exists():  # absent without br_netfilter: then pods of one node reach a Service's pods directly
        bridged.write_text("1")
    _run("nft", "-f", f"{plan.folder}/etc/masquerade.nft")


class _Supervisor:
    """Starts each server, starts it again when it ends, kills it while it is held; collects every orphan."""

    def __init__(self, plan: NodePlan) -> None:
        self.plan = plan
        self.hold = Path(plan.folder, "hold")
        self.pids: dict[str, int] = {}
        self.not_before: dict[str, float] = {}

    def run(self) -> None:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGHUP):  # SIGHUP: look at the hold folder now
            signal.signal(number, lambda *_: None)
        while True:
            self.collect()
            waiting = [server for server in self.plan.servers if not self.settle(server)]
            if select.select([reader], [], [], 0.1 if waiting else 60.0)[0]:
                os.read(reader, 4096)

    def collect(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for name in [name for name, known in self.pids.items() if known == pid]:
                del self.pids[name]
                self.not_before[name] = time.monotonic() + _RESTART_AFTER
                self.say(name, f"ended with wait status {status}")

    def settle(self, server: NodeServer) -> bool:
        """Bring one server to what it should be; False when it has to be looked at again soon."""
        held, pid = (self.hold / server.name).exists(), self.pids.get(server.name)
        if held and pid is not None:
            os.kill(pid, signal.SIGKILL)
        elif not held and pid is None and self.may_start(server.name):
            self.pids[server.name] = self.spawn(server)
        self.report(server.name)
        return held or server.name in self.pids

    def may_start(self, name: str) -> bool:
        if time.monotonic() < self.not_before.get(name, 0.0):
            return False
        # a kubelet that finds no container runtime ends at once
        return name == "containerd" or Path("/run/containerd/containerd.sock").exists()

    def spawn(self, server: NodeServer) -> int:
        log = f"{self.plan.logs}/{self.plan.name}-{server.name}.log"
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        return os.posix_spawn(server.command[0], server.command, self.plan.environment, file_actions=actions)

    def report(self, name: str) -> None:
        """`running/NAME` exists while the server runs."""
        mark = Path(self.plan.folder, "running", name)
        if (name in self.pids) != mark.exists():
            mark.touch() if name in self.pids else mark.unlink()

    def say(self, name: str, text: str) -> None:
        with Path(self.plan.logs, f"{self.plan.name}-{name}.log").open("a") as log:
            log.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {name} {text}\n")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
