"""A pod's environment in a folder; what was started in it is gone afterwards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from launcher_pod import Pod

from tollgate.contract import Env


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(b'{"dataset":{"path":"d"},"name":"demo"}')
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("TOLLGATE_", "OMP_", "PYTHONHASH"))}
    pod = Pod(
        tmp_path,
        environ
        | {
            Env.RUN: "demo",
            Env.NAMESPACE: "care",
            Env.UID: "uid-1",
            Env.ATTEMPT: "1",
            Env.MANIFEST: str(manifest),
            Env.MANIFEST_SHA256: "sha256:" + hashlib.sha256(manifest.read_bytes()).hexdigest(),
            Env.OUTPUT_ROOT: str(tmp_path / "output"),
            Env.GRACE_SECONDS: "20",
            "TOLLGATE_TERMINATION_LOG": str(tmp_path / "termination"),
        },
    )
    yield pod
    for process in pod.started:
        if process.poll() is None:
            process.kill()
            process.wait()
