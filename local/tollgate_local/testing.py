"""What tests against a local cluster share: waiting for a condition, namespaces, restricted pods, counting requests."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tollgate_local.api import Api, ApiError

__all__ = ["audit_counts", "eventually", "finished_pod", "make_namespace", "restricted_pod", "site_volume"]

T = TypeVar("T")


def eventually(condition: Callable[[], T | None], seconds: float, what: str) -> T:
    """The first true value of `condition`; an API error or a broken connection counts as not yet.

    Raises: AssertionError after `seconds`, with `what` and the last error.
    """
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while True:
        try:
            if value := condition():
                return value
        except (OSError, ApiError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}" + (f" (last error: {last})" if last else ""))
        time.sleep(0.1)


def make_namespace(api: Api, name: str, *, restricted: bool = True) -> str:
    """Create a namespace and wait for its default ServiceAccount, without which no pod is admitted."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
    api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    # After an outage of the API server the controller manager may wait for half a minute before it looks again.
    eventually(lambda: api.get(account), 120, f"the default ServiceAccount of {name}")
    return name


def restricted_pod(name: str, image: str, command: Sequence[str], **spec: Any) -> dict[str, Any]:
    """A pod that the *restricted* standard admits; `spec` adds to its spec, `container` to its container."""
    container = {
        "name": "main",
        "image": image,
        "command": list(command),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **spec.pop("container", {}),
    }
    return {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 2,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            **spec,
        },
    }


def finished_pod(api: Api, namespace: str, name: str, seconds: float) -> tuple[str, str]:
    """Wait until a pod ended: its phase and its log. Raises: AssertionError with its status after `seconds`."""
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    pod: dict[str, Any] = {}

    def ended() -> bool:
        pod.update(api.get(path))
        return pod["status"].get("phase") in ("Succeeded", "Failed")

    try:
        eventually(ended, seconds, f"pod {name} ended")
    except AssertionError as error:
        raise AssertionError(f"{error}; its status: {json.dumps(pod.get('status'))}") from error
    return pod["status"]["phase"], str(api.call("GET", f"{path}/log")[1])


def site_volume(api: Api, namespace: str, claim: str, folder: Path) -> None:
    """A claim in `namespace` that is bound to a read-only volume over a folder of the host (an environment, say)."""
    volume = f"{namespace}-{claim}"
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": "static"}
    api.create(
        "/api/v1/persistentvolumes",
        {
            "metadata": {"name": volume},
            "spec": {
                **common,
                "capacity": {"storage": "1Gi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": claim},  # both name each other: bound at once
                "hostPath": {"path": str(folder)},
            },
        },
    )
    api.create(
        f"/api/v1/namespaces/{namespace}/persistentvolumeclaims",
        {
            "metadata": {"name": claim},
            "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
        },
    )


def audit_counts(log: Path, user: str) -> Mapping[tuple[str, str], int]:
    """How many requests a user made, by (verb, resource), from the audit log (`Cluster.audit_log`)."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["stage"] == "ResponseComplete" and event["user"].get("username") == user:
            counts[event["verb"], event.get("objectRef", {}).get("resource", "")] += 1
    return counts
