"""OCI images from local files: layers, configuration, manifest and archive, with no registry and no daemon.

The same input gives the same digest: names are sorted, times are 0, and a tag carries the digest, so a tag never lies.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import stat
import tarfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tollgate_local.cache import cache_folder
from tollgate_local.errors import BuildError

__all__ = ["Image", "Layer", "add_file", "add_tree", "build_image", "make_layer", "write_archive"]

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_SMALL = 4 << 20  # bytes; what took long to make is larger
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Layer:
    """An uncompressed tar in the cache."""

    path: Path
    digest: str
    """`sha256:...` of the tar."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose layers lie in the cache."""

    tag: str
    """`NAME:<12 hex digits of the manifest's digest>`."""
    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes


def make_layer(fill: Callable[[tarfile.TarFile], None]) -> Layer:
    """A layer with what `fill` adds; stored in the cache under its digest."""
    folder = cache_folder("images", "layers")
    _forget_old(folder)
    unfinished = folder / f".unfinished-{os.getpid()}"
    try:
        with unfinished.open("wb") as handle:
            hashing = _Hashing(handle)
            with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                fill(tar)
        digest = hashing.digest.hexdigest()
        path = folder / f"{digest}.tar"
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return Layer(path, f"sha256:{digest}", hashing.size)


def add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    """One file, owned by root; `name` has no leading slash."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def add_tree(
    tar: tarfile.TarFile, source: Path, destination: str, *, skip: Collection[str] = (), keep_owners: bool = False
) -> None:
    """A file or a tree at `destination`; devices, sockets, bytecode and paths that start with one of `skip` stay out.

    Without `keep_owners` everything is root's and readable for all, as an image's code should be.
    """
    seen: dict[tuple[int, int], str] = {}
    base = destination.strip("/")
    parts = base.split("/") if base else []
    for depth in range(1, len(parts)):
        entry = tarfile.TarInfo("/".join(parts[:depth]))
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(entry)
    for path, name in _walk(source, base):
        if not any(f"/{name}".startswith(prefix) for prefix in skip):
            _add_one(tar, path, name, seen, keep_owners)


def build_image(
    name: str,
    layers: Sequence[Layer],
    *,
    env: Mapping[str, str] | None = None,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    user: str = "65532:65532",
    workdir: str = "/",
) -> Image:
    """An image of these layers. Its tag is `name:` and twelve digits of its digest.

    Raises: BuildError on a machine for which no image architecture is known.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise BuildError(f"images can be built on {', '.join(_MACHINES)}, not on {machine}")
    variables = {"PATH": _PATH, **(env or {})}
    config = {
        "architecture": _MACHINES[machine],
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": list(entrypoint) or None,
            "Cmd": list(command) or None,
            "User": user,
            "WorkingDir": workdir,
            "Env": [f"{key}={value}" for key, value in variables.items()],
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    config_bytes = json.dumps(config, sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **_descriptor(config_bytes)},
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.digest, "size": layer.size}
            for layer in layers
        ],
    }
    manifest_bytes = json.dumps(manifest, sort_keys=True).encode()
    tag = f"{name}:{hashlib.sha256(manifest_bytes).hexdigest()[:12]}"
    return Image(tag, tuple(layers), config_bytes, manifest_bytes)


def write_archive(image: Image, stream: IO[bytes], omit: Collection[str] = ()) -> None:
    """Write the image as an OCI archive; layers whose digest is in `omit` are left out (the receiver has them)."""
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                **_descriptor(image.manifest),
                "annotations": {
                    "io.containerd.image.name": image.tag,
                    "org.opencontainers.image.ref.name": image.tag.rsplit(":", 1)[1],
                },
            }
        ],
    }
    with tarfile.open(fileobj=stream, mode="w|") as tar:
        add_file(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add_file(tar, "index.json", json.dumps(index).encode())
        for data in (image.manifest, image.config):
            add_file(tar, "blobs/sha256/" + hashlib.sha256(data).hexdigest(), data)
        for layer in dict.fromkeys(image.layers):
            if layer.digest not in omit:
                entry = tarfile.TarInfo("blobs/sha256/" + layer.digest.removeprefix("sha256:"))
                entry.size, entry.mode = layer.size, 0o644
                with layer.path.open("rb") as blob:
                    tar.addfile(entry, blob)


def _forget_old(folder: Path) -> None:
    """Small layers come with every change of the code; those that nobody made again for a week go."""
    week_ago = time.time() - 7 * 86400
    for path in folder.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):  # another process forgets as well
            status = path.stat()
            if status.st_mtime < week_ago and status.st_size < _SMALL:
                path.unlink()


class _Hashing(io.RawIOBase):
    """A write-only file that hashes and counts what passes."""

    def __init__(self, inner: IO[bytes]) -> None:
        self.inner, self.digest, self.size = inner, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.digest.update(data)
        self.size += len(data)
        return self.inner.write(data)


def _descriptor(data: bytes) -> dict[str, str | int]:
    return {"digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}


def _walk(path: Path, name: str) -> Iterable[tuple[Path, str]]:
    if name:
        yield path, name
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(os.listdir(path)):
            if entry != "__pycache__":
                yield from _walk(path / entry, f"{name}/{entry}" if name else entry)


def _add_one(tar: tarfile.TarFile, path: Path, name: str, seen: dict[tuple[int, int], str], keep_owners: bool) -> None:
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    entry = tarfile.TarInfo(name)
    if keep_owners:
        entry.mode, entry.uid, entry.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    else:
        entry.mode = 0o755 if kind == stat.S_IFDIR or status.st_mode & 0o100 else 0o644
    if kind == stat.S_IFDIR:
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    elif kind == stat.S_IFLNK:
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
        tar.addfile(entry)
    elif kind == stat.S_IFREG and (first := seen.get((status.st_dev, status.st_ino))):
        entry.type, entry.linkname = tarfile.LNKTYPE, first
        tar.addfile(entry)
    elif kind == stat.S_IFREG:
        if status.st_nlink > 1:
            seen[status.st_dev, status.st_ino] = name
        entry.size = status.st_size
        with path.open("rb") as data:
            tar.addfile(entry, data)
