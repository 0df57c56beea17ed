"""Paths in a manifest stay below their root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tollgate.manifest import paths
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/data/x", "~/x", "s3://bucket/x", "a\\b", ".."])
@pytest.mark.parametrize("field", ["dataset.path", "dataset.splits.validation_path", "output_dir"])
def test_a_path_that_leaves_its_root_is_refused(field: str, path: str) -> None:
    document: dict[str, Any] = {"name": "m", "dataset": {"path": "d"}}
    *parents, last = field.split(".")
    at = document
    for part in parents:
        at = at.setdefault(part, {})
    at[last] = path
    with pytest.raises(ManifestError) as refusal:
        load_document(document, "test")
    (problem,) = refusal.value.problems
    assert (problem.field, problem.value) == (field, path)


def test_a_path_below_the_root_is_resolved(tmp_path: Path) -> None:
    assert paths.resolve(tmp_path, "a/../b/c.jsonl", "dataset.path") == tmp_path.resolve() / "b/c.jsonl"
    assert paths.resolve(tmp_path, ".", "output_dir") == tmp_path.resolve()


def test_a_symbolic_link_may_not_lead_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "real").mkdir(parents=True)
    outside.mkdir()
    (root / "inside").symlink_to("real")
    (root / "out").symlink_to(outside)
    (root / "loop").symlink_to("loop")
    assert paths.resolve(root, "inside/x", "dataset.path") == root.resolve() / "real/x"
    with pytest.raises(ManifestError, match=r"dataset\.path: this path leads out of .* by a symbolic link"):
        paths.resolve(root, "out/x", "dataset.path")
    with pytest.raises(ManifestError, match=r"dataset\.path"):
        paths.resolve(root, "loop/x", "dataset.path")
