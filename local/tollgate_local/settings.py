"""The two shapes of the local cluster and every knob of them; environment variables override the defaults."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tollgate_local.errors import LocalError

__all__ = ["PREFIX", "LoopbackShape", "NodeShape", "Shape", "default_state", "from_environment"]

PREFIX = "TOLLGATE_LOCAL_"
"""`TOLLGATE_LOCAL_<FIELD>` overrides a text or integer field of a shape when `from_environment` makes it."""


def default_state(shape: str) -> Path:
    """The state folder of a shape: below `$TOLLGATE_LOCAL_STATE`, else below `~/.local/state/tollgate`."""
    root = os.environ.get(PREFIX + "STATE")
    return (Path(root) if root else Path.home() / ".local/state/tollgate").absolute() / shape


@dataclass(frozen=True, kw_only=True)
class _Common:
    """What both shapes share."""

    state: Path
    """Everything that this cluster writes: certificates, etcd, logs, process records. One cluster per folder."""
    fresh: bool = False
    """Start from an empty cluster; False goes on with the objects of the last time."""
    audit: bool = False
    """Write one JSON line per API request (Metadata level) to `Cluster.audit_log`."""
    apiserver_args: tuple[str, ...] = ()
    """More flags for kube-apiserver; a flag given here wins over ours."""
    controller_manager_args: tuple[str, ...] = ()
    """More flags for kube-controller-manager, e.g. `--node-monitor-grace-period=8s`."""
    nice: int = 5
    """Niceness of the servers, so that a small machine stays usable."""

    def __post_init__(self) -> None:
        """Refuse a state folder that could not be told from another one."""
        if not self.state.is_absolute():
            raise LocalError(f"state: {str(self.state)!r} is relative; give an absolute folder")


@dataclass(frozen=True, kw_only=True)
class LoopbackShape(_Common):
    """The control plane on 127.0.0.1 with kwok nodes: no root, no processes in pods, several at the same time."""

    state: Path = field(default_factory=lambda: default_state("loopback"))
    nodes: int = 3
    """How many fake nodes `up` creates (`fake-0`, `fake-1`, ...)."""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    node_capacity: Mapping[str, str] = field(default_factory=lambda: {"cpu": "32", "memory": "256Gi", "pods": "1000"})
    stages: str | Path = "fast"
    """How pods behave: `fast` (a Job's pods complete at once), `run` (pods run until deleted), `scripted` (annotations
    say how a pod ends), `none` (nobody touches pods: the test writes their status), or a file of kwok Stages."""
    kwok: bool = True
    """False starts no kwok: nodes then never become Ready."""

    @property
    def name(self) -> str:
        """The word for this shape in commands and messages."""
        return "loopback"

    def __post_init__(self) -> None:
        """Check what would otherwise fail late."""
        super().__post_init__()
        _range("nodes", self.nodes, 0, 5000)
        _range("nice", self.nice, 0, 19)


@dataclass(frozen=True, kw_only=True)
class NodeShape(_Common):
    """A real node beside the control plane: kubelet, containerd, runc, CNI, kube-proxy and CoreDNS. Needs root."""

    state: Path = field(default_factory=lambda: default_state("node"))
    nodes: int = 1
    """How many nodes (`node1`, ...), each in namespaces of its own."""
    bridge: str = "tollgate0"
    """The host's bridge of the link between control plane and nodes."""
    net: str = "10.250.0"
    """First three numbers of that link's /24: the control plane is `.1`, node k is `.10+k`."""
    services: str = "10.96"
    """First two numbers of the Services' /16."""
    pods: str = "10.244"
    """First two numbers of the pods' /16; node k has `<pods>.k.0/24`."""
    port: int = 6443
    """The API server's port on the link (`<net>.1`); nothing listens beyond the link."""
    cgroup: str = "tollgate-local"
    """Every pod's cgroup lies below this one."""
    lease_seconds: int = 40
    """The kubelet's lease; 4 together with a short node-monitor-grace-period makes a lost node known in seconds."""
    max_pods: int = 110

    @property
    def name(self) -> str:
        """The word for this shape in commands and messages."""
        return "node"

    @property
    def host_ip(self) -> str:
        """The control plane's address on the link."""
        return f"{self.net}.1"

    @property
    def node_names(self) -> tuple[str, ...]:
        """`node1` up to the last one."""
        return tuple(f"node{k}" for k in range(1, self.nodes + 1))

    def node_ip(self, number: int) -> str:
        """The address of node `number` (1, 2, ...) on the link."""
        return f"{self.net}.{10 + number}"

    def veth(self, number: int) -> str:
        """The host's end of node `number`'s cable; named for the bridge, so that two clusters never meet."""
        return f"{self.bridge}n{number}"

    def __post_init__(self) -> None:
        """Check what would otherwise fail late, or collide with the machine."""
        super().__post_init__()
        _range("nodes", self.nodes, 1, 9)
        _range("nice", self.nice, 0, 19)
        _range("port", self.port, 1024, 65535)
        for name, prefix, zeros in (("net", self.net, 1), ("services", self.services, 2), ("pods", self.pods, 2)):
            try:
                network = ipaddress.ip_network(f"{prefix}{'.0' * zeros}/{32 - 8 * zeros}")
            except ValueError as error:
                raise LocalError(f"{name}: {prefix!r} is not the start of an IPv4 network: {error}") from error
            if not network.is_private:
                raise LocalError(f"{name}: {network} is not a private network; take one from 10.0.0.0/8")
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,11}", self.bridge):
            raise LocalError(f"bridge: {self.bridge!r} must be 1 to 12 lowercase letters, digits or dashes")
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,40}", self.cgroup):
            raise LocalError(f"cgroup: {self.cgroup!r} must be lowercase letters, digits or dashes")


Shape = NodeShape | LoopbackShape


def from_environment(shape: str, state: Path | None = None, environ: Mapping[str, str] = os.environ) -> Shape:
    """The settings of shape `node` or `loopback`: defaults, overridden by `TOLLGATE_LOCAL_NET` and its like.

    Raises: LocalError when the shape is unknown or a variable does not fit its field.
    """
    kinds: dict[str, type[NodeShape] | type[LoopbackShape]] = {"node": NodeShape, "loopback": LoopbackShape}
    if shape not in kinds:
        raise LocalError(f"shape: {shape!r} is unknown; it is one of {', '.join(kinds)}")
    kind = kinds[shape]
    made = kind() if state is None else kind(state=state.absolute())
    changes: dict[str, str | int] = {}
    for name in (f.name for f in dataclasses.fields(kind) if f.name != "state"):
        text = environ.get(PREFIX + name.upper())
        default = getattr(made, name)
        if text is None or isinstance(default, bool) or not isinstance(default, int | str):
            continue
        if isinstance(default, str):
            changes[name] = text
        elif text.isdecimal():
            changes[name] = int(text)
        else:
            raise LocalError(f"{PREFIX}{name.upper()}: {text!r} is not a whole number")
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def _range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise LocalError(f"{name}: {value} is not between {low} and {high}")
