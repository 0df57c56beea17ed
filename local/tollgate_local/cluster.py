"""Up, down and status of a local cluster, and what can be done with one that runs. This is the module to import."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tollgate_local import controlplane, host, kwok, node, processes
from tollgate_local.api import Api
from tollgate_local.binaries import binary, ensure_binaries
from tollgate_local.bringup import bring_up, wait
from tollgate_local.cache import locked
from tollgate_local.errors import LocalError, NotRunningError, UnsupportedError
from tollgate_local.images.archive import Image
from tollgate_local.images.load import load
from tollgate_local.packages import NODE_TOOLS, ensure_tools
from tollgate_local.pins import LOOPBACK_BINARIES, NODE_BINARIES
from tollgate_local.progress import Say, quiet, to_stderr
from tollgate_local.settings import LoopbackShape, NodeShape, Shape, default_state, from_environment
from tollgate_local.state import Record, StateFolder
from tollgate_local.teardown import clear_orphan, leftovers, take_down

__all__ = [
    "Cluster",
    "LoopbackShape",
    "NodeShape",
    "Shape",
    "Status",
    "default_state",
    "down",
    "from_environment",
    "leftovers_of",
    "status",
    "up",
]


@dataclass(frozen=True, slots=True)
class Status:
    """What `status` found."""

    shape: str
    state: Path
    running: bool
    """Every server runs and the API server is ready."""
    server: str | None
    """The API server's URL, also while it is stopped; None when there is no cluster."""
    kubeconfig: Path | None
    servers: Mapping[str, bool]
    """Server -> whether it runs; a node's servers as `node1/kubelet`."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that is up. It holds no connection and no handle: two for the same state folder are the same."""

    record: Record

    @property
    def settings(self) -> Shape:
        """The settings it was started with."""
        return self.record.settings

    @property
    def state(self) -> Path:
        """Its state folder."""
        return self.settings.state

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self.record.server

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig, with all certificates inside."""
        return self._folder.kubeconfig

    @property
    def audit_log(self) -> Path:
        """JSON lines, one per request. Raises: LocalError when it was started without `audit=True`."""
        if not self.settings.audit:
            raise LocalError("this cluster writes no audit log: start it with audit=True")
        return self._folder.audit_log

    @property
    def logs(self) -> Path:
        """The servers' logs."""
        return self._folder.logs

    @property
    def api(self) -> Api:
        """A client with the admin's rights."""
        return Api(self.server, self._folder.pki)

    @property
    def server_names(self) -> tuple[str, ...]:
        """What `stop_server` takes: the host's servers, and `node1/kubelet` and the like in the node shape."""
        names = controlplane.server_names(self.settings)
        if isinstance(self.settings, NodeShape):
            names += tuple(f"{name}/{server}" for name in self.settings.node_names for server in node.NODE_SERVERS)
        return names

    def bin(self, name: str, say: Say = to_stderr) -> Path:
        """The path of a program (`kubectl`, `helm`, `ctr`, ...); what was not needed so far is built now."""
        return binary(name, say)

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as admin. Raises: LocalError with its words when `check` and it fails."""
        cache = self.state / "run/kubectl-cache"
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(cache)}
        command = [str(self.bin("kubectl")), *arguments]
        return _run(command, environment, stdin=stdin, check=check, timeout=timeout)

    def servers(self) -> dict[str, bool]:
        """Each server and whether it runs."""
        return _servers(self.record, self._folder)

    def stop_server(self, name: str) -> None:
        """Kill a server (SIGKILL; etcd is asked first) and keep it dead until `start_server`."""
        where, server = self._locate(name)
        if where is not None:
            node.hold(where, self._folder, server)
            return
        process = processes.read_records(self.state).get(name)
        if process is not None:
            controlplane.stop(process)

    def start_server(self, name: str) -> None:
        """Start a stopped server again, and wait for /readyz if it is the API server; a running one stays as it is."""
        where, server = self._locate(name)
        if where is not None:
            node.release(where, self._folder, server)
            return
        process = processes.read_records(self.state).get(name)
        if process is None or not processes.alive(process):
            if name == "kwok":
                kwok.release_nodes(self.api)
            controlplane.start(name, self.record, self._folder, _programs(self.settings, quiet))
        if name == "kube-apiserver":
            wait(self.api.ready, 60, self._folder, "the API server is ready")

    def node_exec(
        self, command: Sequence[str], *, node_name: str = "node1", check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside a node: its processes, mounts, network. Raises: LocalError when `check` and it fails."""
        return _run(node.enter(self._node(node_name), command), None, stdin=None, check=check, timeout=timeout)

    def cut(self, node_name: str = "node1") -> None:
        """Take a node's link down: a partition between it and the control plane. Its pods run on."""
        host.set_link(self._node_shape(), self._number(node_name), up=False)

    def mend(self, node_name: str = "node1") -> None:
        """Take the link up again."""
        host.set_link(self._node_shape(), self._number(node_name), up=True)

    def import_image(self, image: Image | Path) -> None:
        """Import an image (or an OCI archive) into every node; what a node has already is not sent again."""
        for name in self._node_shape().node_names:
            load(self._node(name), self.bin("ctr"), image)

    def set_stages(self, stages: str | Path) -> None:
        """Restart kwok with another set of Stages (see `LoopbackShape.stages`)."""
        if "kwok" not in self.server_names:
            raise LocalError("this cluster has no kwok: it is a loopback cluster with kwok=True that has one")
        self.stop_server("kwok")
        kwok.write_stages(self._folder, stages)
        self.start_server("kwok")

    def add_nodes(
        self,
        count: int,
        *,
        prefix: str = "fake",
        labels: Mapping[str, str] | None = None,
        capacity: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Create fake nodes `PREFIX-0`... and return their names; kwok makes them Ready."""
        names = [f"{prefix}-{number}" for number in range(count)]
        kwok.add_nodes(self.api, names, labels or {}, capacity or {}, annotations or {})
        return names

    def down(self, *, purge: bool = False, say: Say = quiet) -> None:
        """Take it down; see `down`."""
        down(self.settings, purge=purge, say=say)

    @property
    def _folder(self) -> StateFolder:
        return StateFolder(self.state)

    def _node_shape(self) -> NodeShape:
        if not isinstance(self.settings, NodeShape):
            raise LocalError("only the node shape has real nodes: start it with NodeShape()")
        return self.settings

    def _number(self, name: str) -> int:
        names = self._node_shape().node_names
        if name not in names:
            raise LocalError(f"there is no node {name!r}; there are {', '.join(names)}")
        return names.index(name) + 1

    def _node(self, name: str) -> processes.Process:
        self._number(name)
        outer = processes.read_records(self.state).get(name)
        if outer is None:
            raise NotRunningError(f"{name} does not run; `tollgate local up` starts it")
        return outer

    def _locate(self, name: str) -> tuple[processes.Process | None, str]:
        if name not in self.server_names:
            raise LocalError(f"{name!r} is no server of this cluster; there are {', '.join(self.server_names)}")
        where, _, server = name.rpartition("/")
        return (self._node(where) if where else None), server


def up(settings: Shape, *, say: Say = to_stderr) -> Cluster:
    """Start the cluster, or answer with the one that runs already in this state folder.

    Whatever ends this call early, Ctrl-C included, takes down what it started.
    Raises: UnsupportedError on the wrong machine, BuildError, StartError.
    """
    _check_machine(settings)
    folder = StateFolder(settings.state)
    folder.make()
    with locked(folder.lock, say, "starting or stopping this cluster"):
        record = folder.read_record()
        if record is not None and record.ready and _runs(record, folder):
            _say_differences(record.settings, settings, say)
            return Cluster(record)
        if record is not None or any(True for _ in processes.marked(folder.root)):
            say("cleaning up after a cluster that did not come up or was not taken down")
            take_down(record.settings if record else settings, folder)
        programs = _programs(settings, say)
        if isinstance(settings, NodeShape):
            ensure_tools(NODE_TOOLS, say)
            clear_orphan(settings, say)
            host.check_free(settings)
        record = Record(settings, controlplane.choose_ports(settings))
        folder.write_record(record)
        try:
            bring_up(record, folder, programs, say)
        except BaseException:
            say("taking down what was started")
            take_down(settings, folder)
            raise
        record = dataclasses.replace(record, ready=True)
        folder.write_record(record)
    return Cluster(record)


def down(settings: Shape, *, purge: bool = False, say: Say = quiet) -> bool:
    """Take down the cluster in this state folder; `purge` removes its state as well. False when there was none.

    Raises: LeftBehindError when something could not be removed; it lists what.
    """
    folder = StateFolder(settings.state)
    if not folder.root.exists():
        return False
    with locked(folder.lock, say, "starting or stopping this cluster"):
        record = folder.read_record()
        was = record is not None or any(True for _ in processes.marked(folder.root))
        if was:
            take_down(record.settings if record else settings, folder)
            say("down: no process, mount, interface, route, cgroup or sysctl of this cluster is left")
        if purge:
            folder.remove()
            say(f"removed {folder.root}")
    return was


def status(settings: Shape) -> Status:
    """What runs in this state folder."""
    folder = StateFolder(settings.state)
    record = folder.read_record()
    if record is None:
        return Status(settings.name, folder.root, False, None, None, {})
    running = record.ready and _runs(record, folder)
    return Status(
        record.settings.name, folder.root, running, record.server, folder.kubeconfig, _servers(record, folder)
    )


def leftovers_of(settings: Shape) -> list[str]:
    """What of this cluster exists on the machine; nothing after `down`."""
    return leftovers(settings, StateFolder(settings.state))


def _check_machine(settings: Shape) -> None:
    if sys.platform != "linux":
        raise UnsupportedError(
            "the local cluster runs on Linux. Here you can use another cluster (kind, minikube, a real one) through "
            "KUBECONFIG, or train without a cluster: tollgate run FILE"
        )
    if isinstance(settings, NodeShape) and os.geteuid() != 0:
        raise UnsupportedError(
            "the node shape needs root, because it makes namespaces, a bridge and cgroups. You can: run it with sudo; "
            "take `--shape loopback` (no root: the real control plane with pods that are not processes); use another "
            "cluster (kind, minikube, a real one) through KUBECONFIG; or train without a cluster: tollgate run FILE"
        )


def _programs(settings: Shape, say: Say) -> dict[str, Path]:
    return ensure_binaries(NODE_BINARIES if isinstance(settings, NodeShape) else LOOPBACK_BINARIES, say)


def _runs(record: Record, folder: StateFolder) -> bool:
    return all(_servers(record, folder).values()) and Api(record.server, folder.pki).ready()


def _servers(record: Record, folder: StateFolder) -> dict[str, bool]:
    records = processes.read_records(folder.root)
    alive = {name for name, process in records.items() if processes.alive(process)}
    running = {name: name in alive for name in controlplane.server_names(record.settings)}
    if isinstance(record.settings, NodeShape):
        for name in record.settings.node_names:
            for server in node.NODE_SERVERS:
                running[f"{name}/{server}"] = name in alive and (folder.node(name) / "running" / server).exists()
    return running


def _say_differences(running: Shape, asked: Shape, say: Say) -> None:
    differ = [
        f.name
        for f in dataclasses.fields(running)
        if f.name != "fresh" and getattr(running, f.name) != getattr(asked, f.name, None)
    ]
    if differ:
        say(f"it is up with other settings ({', '.join(differ)}); take it down first to change them")


def _run(
    command: Sequence[str], environment: Mapping[str, str] | None, *, stdin: str | None, check: bool, timeout: float
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=timeout
    )
    if check and done.returncode:
        words = done.stderr.strip() or done.stdout.strip()
        raise LocalError(f"`{' '.join(command)}` ended with {done.returncode}: {words}")
    return done
