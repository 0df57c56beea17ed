"""The base of our images: Debian with its own Python, made by debootstrap once and kept in the cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from tollgate_local.cache import cache_folder, digest_of, locked
from tollgate_local.errors import BuildError, UnsupportedError
from tollgate_local.images.archive import Layer, add_tree, make_layer
from tollgate_local.packages import ensure_tools, tool
from tollgate_local.progress import Say, quiet

__all__ = ["base_layer", "kept_layer"]

_SUITE = "bookworm"  # its Python is 3.11, the oldest that this project supports
_PACKAGES = ("ca-certificates", "libpython3.11-stdlib", "libstdc++6", "python3-minimal")
_RECIPE = "2"  # raise it when the steps below change
_SKIP = (
    "/dev/",
    "/var/cache/",
    "/var/lib/apt/",
    "/var/log/",
    "/usr/share/doc/",
    "/usr/share/man/",
    "/usr/share/locale/",
    "/usr/share/info/",
)
# torch asks for the name of the user it runs as; the id is the one that our pods use
_USER = "tollgate:x:65532:65532:tollgate:/tmp:/usr/sbin/nologin\n"
_GROUP = "tollgate:x:65532:\n"


def base_layer(say: Say = quiet) -> Layer:
    """Debian's root with Python; minutes and root the first time, then from the cache.

    Raises: UnsupportedError without root; BuildError when debootstrap fails.
    """
    return kept_layer("debian", digest_of(_SUITE, *_PACKAGES, _RECIPE), lambda: _debootstrap(say), say)


def kept_layer(kind: str, key: str, make: Callable[[], Layer], say: Say) -> Layer:
    """The layer that `make` makes, made only once per `key`; two processes never make it at the same time."""
    note = cache_folder("images") / f"{kind}-{key}.json"
    if (layer := _read_note(note)) is not None:
        return layer
    with locked(note.with_suffix(".lock"), say, f"making the {kind} layer"):
        if (layer := _read_note(note)) is None:
            layer = make()
            unfinished = note.with_suffix(".tmp")
            unfinished.write_text(json.dumps({"digest": layer.digest, "size": layer.size}))
            unfinished.rename(note)
        return layer


def _read_note(note: Path) -> Layer | None:
    if not note.exists():
        return None
    values = json.loads(note.read_text())
    path = cache_folder("images", "layers") / f"{values['digest'].removeprefix('sha256:')}.tar"
    return Layer(path, values["digest"], values["size"]) if path.exists() else None


def _debootstrap(say: Say) -> Layer:
    if os.geteuid() != 0:
        raise UnsupportedError("the base image is made by debootstrap, which needs root: run this once with sudo")
    ensure_tools(["debootstrap"], say)
    root = cache_folder("images") / f"root-{os.getpid()}"
    say(f"making the base image, Debian {_SUITE} with Python (usually 1 to 2 min, once)")
    started = time.monotonic()
    try:
        command = [tool("debootstrap"), "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(root)]
        if mirror := os.environ.get("TOLLGATE_DEBIAN_MIRROR"):
            command.append(mirror)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            log = root / "debootstrap/debootstrap.log"
            detail = log.read_text(errors="replace") if log.exists() else done.stdout + done.stderr
            raise BuildError(
                f"debootstrap failed: {detail.strip()[-800:]}\n"
                "It needs a Debian mirror; TOLLGATE_DEBIAN_MIRROR sets another one"
            )
        for name, line in (("passwd", _USER), ("group", _GROUP)):
            with (root / "etc" / name).open("a") as handle:
                handle.write(line)
        layer = make_layer(lambda tar: _fill(tar, root))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    say(f"made the base image in {time.monotonic() - started:.0f} s ({layer.size >> 20} MiB)")
    return layer


def _fill(tar: tarfile.TarFile, root: Path) -> None:
    add_tree(tar, root, "/", skip=_SKIP, keep_owners=True)
