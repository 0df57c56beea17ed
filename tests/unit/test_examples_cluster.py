"""One manifest: the laptop's document and the cluster's are the same, to the digest."""

from __future__ import annotations

from pathlib import Path

from tollgate.manifest.loader import load_file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_example_run_embeds_the_example_manifest() -> None:
    laptop, cluster = load_file(EXAMPLES / "manifest.yaml"), load_file(EXAMPLES / "cluster/run.yaml")
    assert laptop.digest == cluster.digest
