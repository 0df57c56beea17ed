"""Where each binary comes from: a Go module (a folder beside this package) and a package in it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LOOPBACK_BINARIES", "NODE_BINARIES", "PROGRAMS", "Program"]

_KUBE = "v1.36.3"
_CONTAINERD = "v2.1.9"
_HELM = "v4.3.1"

_STRIPPED = "-s -w"
# Without these, the servers call themselves v0.0.0-master and kubectl complains about version skew.
_KUBE_FLAGS = f"{_STRIPPED} " + " ".join(
    f"-X {package}.gitVersion={_KUBE}" for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
)
_CONTAINERD_FLAGS = f"{_STRIPPED} -X github.com/containerd/containerd/v2/version.Version={_CONTAINERD}"
_HELM_FLAGS = f"{_STRIPPED} -X helm.sh/helm/v4/internal/version.version={_HELM}"


@dataclass(frozen=True, slots=True)
class Program:
    """One binary: the module folder, the package inside it, linker flags, and a cold build on 2 cores in words."""

    name: str
    module: str
    package: str
    ldflags: str
    usually: str


_ALL = (
    Program("etcd", "controlplane", "go.etcd.io/etcd/server/v3", _KUBE_FLAGS, "40 s"),
    Program("kube-apiserver", "controlplane", "k8s.io/kubernetes/cmd/kube-apiserver", _KUBE_FLAGS, "2.5 min"),
    Program(
        "kube-controller-manager", "controlplane", "k8s.io/kubernetes/cmd/kube-controller-manager", _KUBE_FLAGS, "50 s"
    ),
    Program("kube-scheduler", "controlplane", "k8s.io/kubernetes/cmd/kube-scheduler", _KUBE_FLAGS, "10 s"),
    Program("kubectl", "controlplane", "k8s.io/kubernetes/cmd/kubectl", _KUBE_FLAGS, "15 s"),
    Program("kwok", "controlplane", "sigs.k8s.io/kwok/cmd/kwok", _KUBE_FLAGS, "15 s"),
    Program("kubelet", "controlplane", "k8s.io/kubernetes/cmd/kubelet", _KUBE_FLAGS, "30 s"),
    Program("kube-proxy", "controlplane", "k8s.io/kubernetes/cmd/kube-proxy", _KUBE_FLAGS, "10 s"),
    Program(
        "containerd",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd",
        _CONTAINERD_FLAGS,
        "1 to 2 min",
    ),
    Program("ctr", "containerd", "github.com/containerd/containerd/v2/cmd/ctr", _CONTAINERD_FLAGS, "10 s"),
    Program(
        "containerd-shim-runc-v2",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        _CONTAINERD_FLAGS,
        "10 s",
    ),
    Program("coredns", "coredns", ".", _STRIPPED, "1 to 2 min"),
    Program("pause", "pause", ".", _STRIPPED, "2 s"),
    Program("helm", "helm", "helm.sh/helm/v4/cmd/helm", _HELM_FLAGS, "1.5 to 3 min"),
)

PROGRAMS = {program.name: program for program in _ALL}

LOOPBACK_BINARIES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")
NODE_BINARIES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kube-proxy",
    "containerd",
    "ctr",
    "containerd-shim-runc-v2",
    "coredns",
    "pause",
)
