"""Images: the same input gives the same digest, and an archive holds what a registry would."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from tollgate_local.errors import BuildError
from tollgate_local.images import Layer, add_tree, build_image, code_layer, make_layer, write_archive
from tollgate_local.images.project import distribution_info


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_CACHE", str(tmp_path / "cache"))


def tree_layer(folder: Path) -> Layer:
    return make_layer(lambda tar: add_tree(tar, folder, "/opt/x"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "sub/__pycache__").mkdir(parents=True)
    (folder / "sub/a.py").write_text("A = 1\n")
    (folder / "sub/__pycache__/a.pyc").write_text("no")
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o700)
    (folder / "link").symlink_to("run")
    return folder


def test_times_and_owners_do_not_change_a_layer(tree: Path) -> None:
    first = tree_layer(tree)
    os.utime(tree / "run", (1, 1))
    (tree / "sub/a.py").chmod(0o600)
    assert tree_layer(tree).digest == first.digest


def test_a_layer_holds_the_tree_readable_for_all_and_no_bytecode(tree: Path) -> None:
    with tarfile.open(tree_layer(tree).path) as tar:
        found = {entry.name: (entry.mode, entry.uid) for entry in tar if not entry.issym()}
        assert tar.getmember("opt/x/link").linkname == "run"
    assert found == {
        "opt": (0o755, 0),
        "opt/x": (0o755, 0),
        "opt/x/run": (0o755, 0),
        "opt/x/sub": (0o755, 0),
        "opt/x/sub/a.py": (0o644, 0),
    }


def test_a_tag_changes_with_the_content_and_only_with_it(tree: Path) -> None:
    before = build_image("tollgate.local/x", [tree_layer(tree)]).tag
    assert build_image("tollgate.local/x", [tree_layer(tree)]).tag == before
    (tree / "sub/a.py").write_text("A = 2\n")
    assert build_image("tollgate.local/x", [tree_layer(tree)]).tag != before


def test_an_archive_leaves_out_what_the_receiver_has(tree: Path) -> None:
    layer = tree_layer(tree)
    image = build_image("tollgate.local/x", [layer], env={"A": "b"}, command=["run"])

    def names(omit: set[str]) -> set[str]:
        stream = io.BytesIO()
        write_archive(image, stream, omit)
        with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
            return set(tar.getnames())

    blob = "blobs/sha256/" + layer.digest.removeprefix("sha256:")
    assert blob in names(set())
    assert names(set()) - names({layer.digest}) == {blob}
    assert json.loads(image.config)["config"]["User"] == "65532:65532"


def test_entry_points_of_packages_that_are_not_in_the_image_are_left_out() -> None:
    project = {
        "name": "tollgate",
        "version": "1.2",
        "scripts": {"tollgate": "tollgate_cli.main:main", "tollgate-operator": "tollgate_operator.main:main"},
        "entry-points": {
            "tollgate.commands": {"run": "tollgate_trainer.commands:run", "local": "tollgate_local.commands:local"},
            "only.local": {"x": "tollgate_local.x:y"},
        },
    }
    files = distribution_info(project, ("tollgate_cli", "tollgate_trainer"))
    assert files["tollgate-1.2.dist-info/entry_points.txt"].split("\n") == [
        "[console_scripts]",
        "tollgate = tollgate_cli.main:main",
        "",
        "[tollgate.commands]",
        "run = tollgate_trainer.commands:run",
        "",
    ]
    assert "Name: tollgate\nVersion: 1.2\n" in files["tollgate-1.2.dist-info/METADATA"]


def test_the_code_layer_has_a_command_per_script_of_its_packages(tmp_path: Path) -> None:
    for source, package in (("core", "tollgate"), ("trainer", "tollgate_trainer")):
        (tmp_path / source / package).mkdir(parents=True)
        (tmp_path / source / package / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "tollgate"\nversion = "1"\n'
        '[project.scripts]\ntollgate-launch = "tollgate_trainer.launch:main"\nother = "elsewhere.main:main"\n'
    )
    with tarfile.open(code_layer(("tollgate", "tollgate_trainer"), tmp_path).path) as tar:
        commands = [entry for entry in tar if entry.name.startswith("usr/local/bin/")]
        assert [(entry.name, entry.mode) for entry in commands] == [("usr/local/bin/tollgate-launch", 0o755)]
        script = tar.extractfile(commands[0])
        assert script is not None
        assert script.read().startswith(b"#!/usr/bin/python3\nfrom tollgate_trainer.launch import main\n")


def test_without_a_checkout_the_error_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="core/tollgate"):
        code_layer(("tollgate",), tmp_path)
