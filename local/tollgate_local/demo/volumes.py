"""The demo's storage: folders of this machine as PersistentVolumes with their claims."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tollgate_local.demo.kubectl import DemoError

TRAINER_ID = 65532
"""User and group of the trainer's process, as ComputeProfile.spec.security says by default."""


@dataclass(frozen=True, slots=True)
class Volumes:
    """Folders on this machine that the pods mount."""

    environment: Path
    datasets: Path
    models: Path


def prepare(folder: Path, examples: Path) -> Volumes:
    """Makes the folders; datasets hold a copy of the examples' data, models belong to the trainer's user."""
    volumes = Volumes(environment=environment_folder(), datasets=folder / "datasets", models=folder / "models")
    source = examples / "data"
    if not source.is_dir():
        raise DemoError(f"{source}: no data; make it with python examples/make_stdlib_qa.py")
    shutil.rmtree(volumes.datasets, ignore_errors=True)
    shutil.copytree(source, volumes.datasets / "data")
    shutil.rmtree(volumes.models, ignore_errors=True)
    volumes.models.mkdir(parents=True)
    for path in (volumes.datasets, volumes.datasets / "data"):
        path.chmod(0o755)
    os.chown(volumes.models, TRAINER_ID, TRAINER_ID)
    return volumes


def environment_folder() -> Path:
    """The site-packages folder that has torch, found without importing it."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise DemoError("torch is not installed in this environment; make setup installs it")
    return Path(found.origin).parent.parent


def claims(volumes: Volumes, namespace: str) -> str:
    """YAML of the PersistentVolumes and claims."""
    return "\n---\n".join(
        _claim(name, folder, mode, namespace)
        for name, folder, mode in (
            ("environment", volumes.environment, "ReadOnlyMany"),
            ("datasets", volumes.datasets, "ReadOnlyMany"),
            ("models", volumes.models, "ReadWriteMany"),
        )
    )


def _claim(name: str, folder: Path, mode: str, namespace: str) -> str:
    return f"""\
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {namespace}-{name}}}
spec:
  capacity: {{storage: 10Gi}}
  accessModes: [{mode}]
  storageClassName: static
  persistentVolumeReclaimPolicy: Retain
  claimRef: {{namespace: {namespace}, name: {name}}}
  hostPath: {{path: {folder}, type: Directory}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  accessModes: [{mode}]
  storageClassName: static
  volumeName: {namespace}-{name}
  resources: {{requests: {{storage: 10Gi}}}}
"""
