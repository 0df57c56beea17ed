"""The command lines of the control plane's servers: from settings and paths to flags, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tollgate_local.settings import NodeShape
from tollgate_local.state import Record, StateFolder

__all__ = [
    "AUDIT_POLICY",
    "apiserver",
    "controller_manager",
    "coredns",
    "corefile",
    "etcd",
    "scheduler",
    "scheduler_config",
    "service_ip",
    "service_network",
]

AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
"""

_LOOPBACK_SERVICES = "10.96.0.0/16"  # nothing routes there: kwok pods are not processes


def service_network(record: Record) -> str:
    """The Services' network."""
    settings = record.settings
    return f"{settings.services}.0.0/16" if isinstance(settings, NodeShape) else _LOOPBACK_SERVICES


def service_ip(record: Record) -> str:
    """The first address of the Services' network, which is the API server's."""
    return service_network(record).replace(".0.0/16", ".0.1")


def etcd(record: Record, folder: StateFolder, binary: Path) -> list[str]:
    """One member, on 127.0.0.1. No fsync: a machine that crashes may lose this cluster, and saves minutes of a test."""
    client, peer = (f"http://127.0.0.1:{port}" for port in (record.ports.etcd, record.ports.etcd_peer))
    return [
        str(binary),
        f"--data-dir={folder.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync=true",
        "--log-level=warn",
    ]


def apiserver(record: Record, folder: StateFolder, binary: Path) -> list[str]:
    """Node and RBAC authorization, NodeRestriction, bound tokens; TLS everywhere."""
    settings, pki = record.settings, folder.pki
    node = isinstance(settings, NodeShape)
    host = settings.host_ip if isinstance(settings, NodeShape) else "127.0.0.1"
    flags = {
        "etcd-servers": f"http://127.0.0.1:{record.ports.etcd}",
        "bind-address": host,
        "advertise-address": host,
        "secure-port": str(record.ports.api),
        "tls-cert-file": f"{pki}/apiserver.crt",
        "tls-private-key-file": f"{pki}/apiserver.key",
        "client-ca-file": f"{pki}/ca.crt",
        "cert-dir": str(folder.run),
        "service-cluster-ip-range": service_network(record),
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": f"{pki}/service-accounts.key",
        "service-account-signing-key-file": f"{pki}/service-accounts.key",
        "kubelet-client-certificate": f"{pki}/kubelet-client.crt",
        "kubelet-client-key": f"{pki}/kubelet-client.key",
        "kubelet-certificate-authority": f"{pki}/ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": f"{pki}/ca.crt",
        "requestheader-allowed-names": "front-proxy",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": f"{pki}/front-proxy.crt",
        "proxy-client-key-file": f"{pki}/front-proxy.key",
    }
    if not node:
        flags["endpoint-reconciler-type"] = "none"  # an endpoint on 127.0.0.1 is refused, with an error every 10 s
    if settings.audit:
        flags |= {
            "audit-policy-file": f"{folder.run}/audit-policy.yaml",
            "audit-log-path": str(folder.audit_log),
            "audit-log-mode": "blocking",  # a request that was answered is in the file: counts are exact
            "audit-log-maxsize": "10240",
        }
    return _command(binary, flags, settings.apiserver_args)


def controller_manager(record: Record, folder: StateFolder, binary: Path) -> list[str]:
    """All controllers, each with its own ServiceAccount; no leader election, as there is one."""
    flags = {
        **_client(folder, "controller-manager"),
        "kubeconfig": f"{folder.pki}/controller-manager.kubeconfig",
        "service-account-private-key-file": f"{folder.pki}/service-accounts.key",
        "root-ca-file": f"{folder.pki}/ca.crt",
        "use-service-account-credentials": "true",
        "leader-elect": "false",
        # the default, 20 a second, makes its start 5 s long: it asks for a token per controller
        "kube-api-qps": "200",
        "kube-api-burst": "400",
        "secure-port": str(record.ports.controller_manager),
    }
    return _command(binary, flags, record.settings.controller_manager_args)


def scheduler(record: Record, folder: StateFolder, binary: Path) -> list[str]:
    """The default scheduler."""
    flags = {
        **_client(folder, "scheduler"),
        "config": f"{folder.run}/scheduler.yaml",
        "secure-port": str(record.ports.scheduler),
    }
    return _command(binary, flags, ())


def scheduler_config(folder: StateFolder) -> str:
    """The scheduler takes its kubeconfig only from a file of its own."""
    return f"""\
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {{kubeconfig: {folder.pki}/scheduler.kubeconfig, qps: 200, burst: 400}}
leaderElection: {{leaderElect: false}}
"""


def coredns(folder: StateFolder, binary: Path) -> list[str]:
    """Names for pods, on the link."""
    return [str(binary), "-conf", f"{folder.run}/Corefile"]


def corefile(settings: NodeShape, folder: StateFolder) -> str:
    """Cluster names with a TTL of 1 s, and NXDOMAIN for the rest: pods reach nothing beyond this machine."""
    return f"""\
cluster.local:53 {{
  bind {settings.host_ip}
  errors
  ready {settings.host_ip}:8181
  kubernetes cluster.local {{
    kubeconfig {folder.pki}/coredns.kubeconfig
    ttl 1
  }}
  cache {{
    success 1024 1
    denial 1024 1
  }}
}}
.:53 {{
  bind {settings.host_ip}
  template ANY ANY . {{
    rcode NXDOMAIN
  }}
}}
"""


def _client(folder: StateFolder, name: str) -> dict[str, str]:
    kubeconfig = f"{folder.pki}/{name}.kubeconfig"
    return {
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "cert-dir": str(folder.run),
    }


def _command(binary: Path, flags: Mapping[str, str], more: tuple[str, ...]) -> list[str]:
    """Flags given by the user replace ours of the same name."""
    theirs = {flag.lstrip("-").split("=", 1)[0] for flag in more}
    return [str(binary), *(f"--{name}={value}" for name, value in flags.items() if name not in theirs), *more]
