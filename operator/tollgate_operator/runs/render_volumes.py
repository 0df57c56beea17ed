"""Volumes of the trainer's pod and where they are mounted.

The root file system is read-only: what a process may write is /tmp, /dev/shm and the run's own output. An evaluation
sees the model as it is and can write only its evidence and its report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollgate.contract import (
    ANNOTATION_MANIFEST,
    DATASET_MOUNT,
    ENVIRONMENT_MOUNT,
    MANIFEST_FILE,
    MANIFEST_MOUNT,
    OUTPUT_MOUNT,
    Files,
    Role,
)
from tollgate_operator.runs.names import folder_path

if TYPE_CHECKING:
    from tollgate_operator.runs.render import Order

_SHM_CPU = "1Gi"
_SHM_GPU = "16Gi"


def volumes(order: Order) -> list[dict[str, Any]]:
    """The pod's volumes."""
    profile, storage = order.profile, order.storage
    shared_memory = profile.shm_size if profile.shm_size is not None else _SHM_GPU if profile.resource else _SHM_CPU
    found: list[dict[str, Any]] = [
        {
            "name": "manifest",
            "downwardAPI": {
                "defaultMode": 0o444,
                "items": [
                    {
                        "path": MANIFEST_FILE,
                        "fieldRef": {"fieldPath": f"metadata.annotations['{ANNOTATION_MANIFEST}']"},
                    }
                ],
            },
        },
        _claim("dataset", storage.dataset.claim_name, read_only=_dataset_apart(order)),
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(shared_memory)}},
    ]
    if _dataset_apart(order):
        found.insert(2, _claim("output", storage.output.claim_name, read_only=False))
    if profile.environment is not None:
        found.append(_claim("environment", profile.environment.claim_name, read_only=True))
    return found


def mounts(order: Order) -> list[dict[str, Any]]:
    """Where the container sees them."""
    output = "output" if _dataset_apart(order) else "dataset"
    found: list[dict[str, Any]] = [
        {"name": "manifest", "mountPath": MANIFEST_MOUNT, "readOnly": True},
        {"name": "dataset", "mountPath": DATASET_MOUNT, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    if order.role is Role.EVALUATE:
        found.insert(2, {"name": output, "mountPath": OUTPUT_MOUNT, "readOnly": True})
        folder = folder_path(order.storage.output)
        for written in (Files.EVIDENCE, Files.REPORT):
            path = "/".join(part for part in (folder, written.split("/")[0]) if part)
            found.append({"name": output, "mountPath": f"{OUTPUT_MOUNT}/{path}", "subPath": path})
    else:
        found.insert(2, {"name": output, "mountPath": OUTPUT_MOUNT})
    environment = order.profile.environment
    if environment is not None:
        mount: dict[str, Any] = {"name": "environment", "mountPath": ENVIRONMENT_MOUNT, "readOnly": True}
        if environment.path:
            mount["subPath"] = environment.path.strip("/")
        found.append(mount)
    return found


def _dataset_apart(order: Order) -> bool:
    # One claim is one volume of the pod: of two volumes of one claim a read-only one would make both read-only.
    return order.storage.dataset.claim_name != order.storage.output.claim_name


def _claim(name: str, claim: str, *, read_only: bool) -> dict[str, Any]:
    source: dict[str, Any] = {"claimName": claim}
    if read_only:
        source["readOnly"] = True
    return {"name": name, "persistentVolumeClaim": source}
