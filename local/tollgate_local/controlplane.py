"""The servers that run on the host: which there are, their files, and how each is started and ended."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path

from tollgate_local import kwok, processes, servers
from tollgate_local.errors import LocalError, StartError
from tollgate_local.pki import Authority, service_account_key
from tollgate_local.settings import LoopbackShape, NodeShape, Shape
from tollgate_local.state import Ports, Record, StateFolder

__all__ = ["bootstrap_objects", "choose_ports", "server_names", "start", "stop", "write_files", "write_pki"]

_KUBELET_API = "tollgate-local:kubelet-api"
_COREDNS = "tollgate-local:coredns"


def server_names(settings: Shape) -> tuple[str, ...]:
    """Names of the servers on the host, in the order in which they start."""
    common = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    if isinstance(settings, NodeShape):
        return (*common, "coredns")
    return (*common, "kwok") if settings.kwok else common


def choose_ports(settings: Shape) -> Ports:
    """Free ports on 127.0.0.1; the API server's is fixed in the node shape, where only the link can reach it."""
    free = _free_ports(5)
    api = settings.port if isinstance(settings, NodeShape) else free[4]
    return Ports(api, *free[:4])


def _free_ports(count: int) -> list[int]:
    """Ports below the range from which the kernel takes clients' own ports.

    From inside that range, a client that retries while its server is stopped can end up connected to itself, and
    then the server cannot start again.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in random.sample(range(10000, max(lowest, 20000)), 2000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise StartError(f"fewer than {count} ports between 10000 and {lowest} are free on 127.0.0.1")


def write_pki(record: Record, folder: StateFolder) -> None:
    """All certificates and kubeconfigs; the user's own is `kubeconfig` in the state folder."""
    settings, pki = record.settings, folder.pki
    authority = Authority(pki)
    service_account_key(pki / "service-accounts.key")
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    addresses = ["127.0.0.1", servers.service_ip(record)]
    if isinstance(settings, NodeShape):
        addresses.append(settings.host_ip)
    authority.issue("apiserver", "kube-apiserver", hosts=[*names, "localhost", *addresses])
    authority.issue("front-proxy", "front-proxy")
    authority.issue("kubelet-client", "apiserver-kubelet-client", [_KUBELET_API])
    authority.kubeconfig(folder.kubeconfig, record.server, "admin", "admin", ["system:masters"])

    def client(name: str, user: str, *groups: str) -> None:
        authority.kubeconfig(pki / f"{name}.kubeconfig", record.server, name, user, groups)

    client("controller-manager", "system:kube-controller-manager")
    client("scheduler", "system:kube-scheduler")
    if isinstance(settings, LoopbackShape):
        client("kwok", "kwok", "system:masters")
        return
    client("kube-proxy", "system:kube-proxy")
    client("coredns", "system:coredns")
    for number, node in enumerate(settings.node_names, start=1):
        authority.issue(node, f"system:node:{node}", ["system:nodes"], [node, settings.node_ip(number)])
        client(f"{node}-client", f"system:node:{node}", "system:nodes")


def write_files(record: Record, folder: StateFolder) -> None:
    """The servers' own configuration files."""
    settings = record.settings
    (folder.run / "scheduler.yaml").write_text(servers.scheduler_config(folder))
    if settings.audit:
        (folder.run / "audit-policy.yaml").write_text(servers.AUDIT_POLICY)
    if isinstance(settings, NodeShape):
        (folder.run / "Corefile").write_text(servers.corefile(settings, folder))
    elif settings.kwok:
        kwok.write_stages(folder, settings.stages)


def start(name: str, record: Record, folder: StateFolder, programs: dict[str, Path]) -> processes.Process:
    """Start one server. Raises: LocalError when the shape has no such server."""
    if name not in server_names(record.settings):
        raise LocalError(f"{name!r} is no server of this cluster; there are {', '.join(server_names(record.settings))}")
    binary = programs[name]
    command = {
        "etcd": lambda: servers.etcd(record, folder, binary),
        "kube-apiserver": lambda: servers.apiserver(record, folder, binary),
        "kube-controller-manager": lambda: servers.controller_manager(record, folder, binary),
        "kube-scheduler": lambda: servers.scheduler(record, folder, binary),
        "coredns": lambda: servers.coredns(folder, binary),
        "kwok": lambda: kwok.command(folder, binary),
    }[name]()
    # nothing of the caller's environment: a proxy or a Go variable there must not change the cluster
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder.run)}
    return processes.start_server(
        name, command, state=folder.root, environment=environment, nice=record.settings.nice, cwd=folder.run
    )


def stop(process: processes.Process) -> None:
    """End one server. Only etcd has something to save; the API server would wait a minute for watches to end."""
    processes.end(process, patience=5.0 if process.name == "etcd" else 0.0)


def bootstrap_objects(settings: Shape) -> dict[str, dict[str, object]]:
    """What an installer would add, path -> object: rights for the API server on kubelets, and for CoreDNS."""
    if not isinstance(settings, NodeShape):
        return {}
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    api_version = "rbac.authorization.k8s.io/v1"

    def binding(name: str, role: str, kind: str, subject: str) -> dict[str, object]:
        return {
            "apiVersion": api_version,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": subject}],
        }

    role: dict[str, object] = {
        "apiVersion": api_version,
        "kind": "ClusterRole",
        "metadata": {"name": _COREDNS},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    }
    return {
        f"{rbac}/clusterroles/{_COREDNS}": role,
        f"{rbac}/clusterrolebindings/{_COREDNS}": binding(_COREDNS, _COREDNS, "User", "system:coredns"),
        f"{rbac}/clusterrolebindings/{_KUBELET_API}": binding(
            _KUBELET_API, "system:kubelet-api-admin", "Group", _KUBELET_API
        ),
    }
