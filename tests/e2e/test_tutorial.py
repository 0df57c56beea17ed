"""docs/tutorial-own-data.md does what it says: its commands, in its order, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from runs import CHECKOUT, NAMESPACE, Tollgate

from tollgate.contract import Files
from tollgate.manifest.loader import load_file

pytestmark = pytest.mark.e2e

PAGE = CHECKOUT / "docs/tutorial-own-data.md"
FENCE = re.compile(r"^```(sh|sh cluster)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    """The page's fenced shell commands of one kind; a fence without a kind is for people."""
    return [text for found, text in FENCE.findall(PAGE.read_text(encoding="utf-8")) if found == kind]


def follow(kind: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Runs the blocks as a reader would who stops at the first error; answers everything that they said."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.environ['PATH'])}"
    given = {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1", **environment, "PATH": path}
    said = ""
    for block in blocks(kind):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=folder,
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        said += done.stdout
        assert done.returncode == 0, f"{block}\nended with {done.returncode}:\n{said[-6000:]}"
    return said


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The laptop's part of the page, followed once: the folder, and what was said."""
    folder = tmp_path_factory.mktemp("newcomer")
    return folder, follow("sh", folder, {})


def test_the_laptop_part_ends_with_a_model_its_evidence_a_report_and_a_passed_stage(walked: tuple[Path, str]) -> None:
    folder, said = walked
    output = folder / "runs/http"
    info = json.loads((output / "model" / Files.MODEL_INFO).read_text())
    assert info["manifest_digest"] == load_file(folder / "http.yaml").digest
    assert (output / Files.REPORT).is_file()
    assert (output / "evaluation/evidence.json").is_file()
    assert load_file(folder / "http.yaml").manifest.dataset.splits.validation == 0.3
    assert re.search(r"^staging: Passed$", said, re.MULTILINE)
    assert "[[" in said, "the preview marks what is taught"
    assert "tollgate run http.yaml   # the run itself" in said, "the quick test says what comes next"
    assert "Error" not in said
    assert "Traceback" not in said


@pytest.mark.full
def test_the_cluster_part_ends_with_the_same_manifest_promoted(walked: tuple[Path, str], tollgate: Tollgate) -> None:
    folder, _ = walked
    cluster = tollgate.cluster
    # What the page's `make demo` leaves: a kubeconfig whose namespace is the one with the claims.
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_bytes(cluster.kubeconfig.read_bytes())
    kubectl = [str(cluster.bin("kubectl")), "--kubeconfig", str(kubeconfig)]
    subprocess.run([*kubectl, "config", "set-context", "--current", "--namespace", NAMESPACE], check=True)
    given = {
        "KUBECONFIG": str(kubeconfig),
        "PATH": f"{cluster.bin('kubectl').parent}{os.pathsep}{os.environ['PATH']}",
        "DATASETS": str(tollgate.installed.volumes.datasets),
    }
    try:
        said = follow("sh cluster", folder, given)
        status = tollgate.get("http")["status"]
        assert status["phase"] == "Succeeded"
        assert status["manifestDigest"] == load_file(folder / "http.yaml").digest
        data = tollgate.installed.kubectl.object("configmap", "model-http-models-staging")["data"]
        assert data["modelDigest"] == status["model"]["digest"]
        assert data["modelDigest"] in said
    finally:
        tollgate.delete("http")
        tollgate.installed.kubectl.run("delete", "promotionpolicy", "http-models", "--ignore-not-found")
