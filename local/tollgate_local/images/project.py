"""The project's own images for the local cluster: the code of this checkout over the Debian base.

The code is a layer of its own that takes well under a second, so an image is made anew for every change of the code.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

from tollgate_local.cache import cache_folder, digest_of
from tollgate_local.errors import BuildError
from tollgate_local.images.archive import Image, Layer, add_file, add_tree, build_image, make_layer
from tollgate_local.images.base import base_layer, kept_layer
from tollgate_local.progress import Say, quiet

__all__ = [
    "LIBRARY",
    "REQUIREMENTS",
    "code_layer",
    "distribution_info",
    "operator_image",
    "python_image",
    "trainer_image",
]

LIBRARY = "/opt/tollgate/lib"
"""Where the code lies in every image."""
REQUIREMENTS = "/opt/tollgate/requirements"
"""Where the operator image has its third-party packages."""

_CHECKOUT = Path(__file__).resolve().parents[3]
_SOURCES = {
    "tollgate": "core",
    "tollgate_cli": "cli",
    "tollgate_operator": "operator",
    "tollgate_trainer": "trainer",
}


def python_image(say: Say = quiet) -> Image:
    """Debian with Python 3.11 alone, for tests that need no code of ours."""
    return build_image("tollgate.local/python", [base_layer(say)], env={"HOME": "/tmp"}, command=["python3"])


def trainer_image(say: Say = quiet) -> Image:
    """What training pods run. torch and the other heavy packages come from a volume at /opt/tollgate/environment."""
    code = code_layer(("tollgate", "tollgate_cli", "tollgate_trainer"))
    return build_image(
        "tollgate.local/trainer",
        [base_layer(say), code],
        env={"PYTHONPATH": LIBRARY, "HOME": "/tmp", "PYTHONUNBUFFERED": "1"},
        command=["tollgate-launch"],
    )


def operator_image(say: Say = quiet) -> Image:
    """What the chart's Deployment runs: the operator with its pinned requirements inside."""
    code = code_layer(("tollgate", "tollgate_cli", "tollgate_operator"))
    return build_image(
        "tollgate.local/operator",
        [base_layer(say), _requirements_layer(say), code],
        env={"PYTHONPATH": f"{LIBRARY}:{REQUIREMENTS}", "HOME": "/tmp", "PYTHONUNBUFFERED": "1"},
        command=["tollgate-operator"],
    )


def code_layer(packages: tuple[str, ...], checkout: Path = _CHECKOUT) -> Layer:
    """These packages, their commands in /usr/local/bin, and the metadata by which the CLI finds its commands.

    Raises: BuildError when a package is not there (an installed wheel has no checkout).
    """
    folders = {package: checkout / _SOURCES[package] / package for package in packages}
    missing = [str(folder) for folder in folders.values() if not (folder / "__init__.py").is_file()]
    if missing:
        raise BuildError(f"images are made from a checkout of the repository, and there is no package at {missing[0]}")
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]

    def fill(tar: tarfile.TarFile) -> None:
        for package, folder in folders.items():
            add_tree(tar, folder, f"{LIBRARY}/{package}")
        for name, text in distribution_info(project, packages).items():
            add_file(tar, f"{LIBRARY.strip('/')}/{name}", text.encode())
        for command, target in _targets(project.get("scripts", {}), packages).items():
            module, function = target.split(":")
            script = f"#!/usr/bin/python3\nfrom {module} import {function}\n\nraise SystemExit({function}())\n"
            add_file(tar, f"usr/local/bin/{command}", script.encode(), 0o755)

    return make_layer(fill)


def distribution_info(project: dict[str, object], packages: tuple[str, ...]) -> dict[str, str]:
    """The files of a minimal `.dist-info` folder, with only those entry points whose package is in the image."""
    name, version = project["name"], project["version"]
    groups = {"console_scripts": project.get("scripts", {}), **_mapping(project.get("entry-points", {}))}
    lines: list[str] = []
    for group, entries in groups.items():
        present = _targets(_mapping(entries), packages)
        if present:
            lines += [f"[{group}]", *(f"{key} = {target}" for key, target in present.items()), ""]
    folder = f"{name}-{version}.dist-info"
    return {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{folder}/entry_points.txt": "\n".join(lines),
    }


def _targets(entries: dict[str, str], packages: tuple[str, ...]) -> dict[str, str]:
    return {key: target for key, target in entries.items() if target.split(":")[0].split(".")[0] in packages}


def _mapping(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BuildError(f"pyproject.toml: expected a table where {value!r} stands")
    return value


def _requirements_layer(say: Say) -> Layer:
    pins = _CHECKOUT / "requirements/operator.txt"
    if not pins.is_file():
        raise BuildError(f"{pins} is missing: it pins the operator's packages by hash")
    key = digest_of(platform.machine(), pins.read_bytes(), "1")
    return kept_layer("operator-requirements", key, lambda: _pip(pins, say), say)


def _pip(pins: Path, say: Say) -> Layer:
    say("installing the operator's pinned packages for its image (usually 20 to 60 s, once)")
    # wheels for the image's interpreter and C library, not for those of whoever builds it
    platforms = [f"manylinux_2_{minor}_{platform.machine()}" for minor in (5, 12, 17, 24, 28, 31, 34, 35, 36)]
    platforms += [f"{old}_{platform.machine()}" for old in ("manylinux2014", "linux")]
    with tempfile.TemporaryDirectory(dir=cache_folder("images")) as target:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3"]
        command += ["--abi=none", *(f"--platform={name}" for name in platforms), "--target", target, "-r", str(pins)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(
                f"pip could not install {pins.name}: {done.stderr.strip()[-800:]}\nIt needs pip in {sys.executable} "
                "and a package index"
            )
        return make_layer(lambda tar: add_tree(tar, Path(target), REQUIREMENTS))
