"""Fake nodes: what kwok does with nodes and pods, and the Node objects themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tollgate_local.api import Api, ApiError
from tollgate_local.errors import LocalError
from tollgate_local.state import StateFolder

__all__ = ["STAGE_SETS", "add_nodes", "command", "release_nodes", "write_stages"]

_FOLDER = Path(__file__).parent / "stages"

STAGE_SETS: Mapping[str, tuple[str, ...]] = {
    "fast": ("run", "complete", "delete"),
    "run": ("run", "delete"),
    "scripted": ("run", "end"),
    "none": (),
}
"""Names for `LoopbackShape.stages` -> the files of pod Stages; the nodes' own Stage is always added."""


def write_stages(folder: StateFolder, stages: str | Path) -> Path:
    """Write kwok's configuration: the nodes' Stage and the pods' Stages (a set's name, or a file of Stages).

    Raises: LocalError when neither a set nor a file has that name.
    """
    if isinstance(stages, str) and stages in STAGE_SETS:
        sources = [_FOLDER / f"{name}.yaml" for name in STAGE_SETS[stages]]
    elif Path(stages).is_file():
        sources = [Path(stages)]
    else:
        raise LocalError(f"stages: {str(stages)!r} is neither a file nor one of {', '.join(STAGE_SETS)}")
    path = folder.run / "kwok.yaml"
    path.write_text("\n---\n".join(source.read_text() for source in (_FOLDER / "nodes.yaml", *sources)))
    return path


def command(folder: StateFolder, binary: Path, lease_seconds: int = 40) -> list[str]:
    """The kwok controller; it opens no port."""
    return [
        str(binary),
        f"--kubeconfig={folder.pki}/kwok.kubeconfig",
        f"--config={folder.run}/kwok.yaml",
        "--manage-nodes-with-label-selector=type=kwok",
        f"--node-lease-duration-seconds={lease_seconds}",
        "--cidr=10.0.0.0/8",
        "--node-ip=127.0.0.1",
        "--node-port=0",
        "--server-address=",
    ]


def release_nodes(api: Api) -> None:
    """Before kwok starts: remove the leases by which an earlier one still holds the nodes.

    Each start of kwok is another holder, and would leave nodes and their pods alone until the old leases expire (40 s).
    """
    api.delete("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")


def add_nodes(
    api: Api, names: list[str], labels: Mapping[str, str], capacity: Mapping[str, str], annotations: Mapping[str, str]
) -> None:
    """Create fake nodes; those that exist stay as they are."""
    resources = {"cpu": "32", "memory": "256Gi", "pods": "1000", **capacity}
    for name in names:
        node = {
            "metadata": {
                "name": name,
                "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok", **labels},
                "annotations": dict(annotations),
            },
            "status": {"capacity": resources, "allocatable": resources},
        }
        try:
            api.create("/api/v1/nodes", node)
        except ApiError as error:
            if error.status != 409:
                raise
