"""REST paths of everything the operator reads or writes. `namespace=None` names the collection of all namespaces."""

from __future__ import annotations

from typing import Final

from tollgate.api import compute_profile, promotion_policy, training_run
from tollgate.contract import GROUP, VERSION

_OURS: Final = f"/apis/{GROUP}/{VERSION}"


def _collection(prefix: str, plural: str, namespace: str | None) -> str:
    return f"{prefix}/{plural}" if namespace is None else f"{prefix}/namespaces/{namespace}/{plural}"


def runs(namespace: str | None = None) -> str:
    """TrainingRuns."""
    return _collection(_OURS, training_run.PLURAL, namespace)


def run(namespace: str, name: str) -> str:
    """One TrainingRun."""
    return f"{runs(namespace)}/{name}"


def run_status(namespace: str, name: str) -> str:
    """The status subresource of one TrainingRun."""
    return f"{run(namespace, name)}/status"


def policies(namespace: str | None = None) -> str:
    """PromotionPolicies."""
    return _collection(_OURS, promotion_policy.PLURAL, namespace)


def policy(namespace: str, name: str) -> str:
    """One PromotionPolicy."""
    return f"{policies(namespace)}/{name}"


def profiles() -> str:
    """ComputeProfiles (cluster-scoped)."""
    return f"{_OURS}/{compute_profile.PLURAL}"


def profile(name: str) -> str:
    """One ComputeProfile."""
    return f"{profiles()}/{name}"


def jobs(namespace: str | None = None) -> str:
    """Jobs."""
    return _collection("/apis/batch/v1", "jobs", namespace)


def job(namespace: str, name: str) -> str:
    """One Job."""
    return f"{jobs(namespace)}/{name}"


def pods(namespace: str | None = None) -> str:
    """Pods."""
    return _collection("/api/v1", "pods", namespace)


def pod(namespace: str, name: str) -> str:
    """One pod."""
    return f"{pods(namespace)}/{name}"


def nodes() -> str:
    """Nodes."""
    return "/api/v1/nodes"


def node(name: str) -> str:
    """One node."""
    return f"{nodes()}/{name}"


def services(namespace: str) -> str:
    """Services of a namespace."""
    return _collection("/api/v1", "services", namespace)


def service(namespace: str, name: str) -> str:
    """One Service."""
    return f"{services(namespace)}/{name}"


def claims(namespace: str) -> str:
    """PersistentVolumeClaims of a namespace."""
    return _collection("/api/v1", "persistentvolumeclaims", namespace)


def claim(namespace: str, name: str) -> str:
    """One PersistentVolumeClaim."""
    return f"{claims(namespace)}/{name}"


def config_maps(namespace: str) -> str:
    """ConfigMaps of a namespace."""
    return _collection("/api/v1", "configmaps", namespace)


def config_map(namespace: str, name: str) -> str:
    """One ConfigMap."""
    return f"{config_maps(namespace)}/{name}"


def events(namespace: str) -> str:
    """Events (events.k8s.io/v1) of a namespace."""
    return _collection("/apis/events.k8s.io/v1", "events", namespace)


def leases(namespace: str) -> str:
    """Leases of a namespace."""
    return _collection("/apis/coordination.k8s.io/v1", "leases", namespace)


def lease(namespace: str, name: str) -> str:
    """One Lease."""
    return f"{leases(namespace)}/{name}"


def resource_of(path: str) -> str:
    """The plural (and subresource) that a path addresses, for metrics: `trainingruns/status`, `pods`; never a name.

    Works on every path of this module: `/api/v1/...` or `/apis/GROUP/VERSION/...`, `namespaces/NS` optional.
    """
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if len(rest) >= 3 and rest[0] == "namespaces":
        rest = rest[2:]
    if not rest:
        return "discovery"
    return f"{rest[0]}/{rest[2]}" if len(rest) >= 3 else rest[0]
