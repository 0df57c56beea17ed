"""The dataset's identity: a digest over the bytes of its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tollgate.manifest import paths
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.documents import files_of
from tollgate_trainer.extensions import extension
from tollgate_trainer.refusal import DatasetRefused


def file_digest(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_digest(path: Path, name: str) -> tuple[str, int]:
    """(`sha256:<hex>`, size in bytes) of a file or folder.

    A file: the sha256 of its bytes, what `sha256sum` prints. A folder: the sha256 of one line `path NUL hex LF` per
    file, sorted by path.
    """
    files = files_of(path, name)
    size = sum(file.stat().st_size for file in files)
    if path.is_file():
        return "sha256:" + file_digest(path), size
    lines = (f"{file.relative_to(path).as_posix()}\0{file_digest(file)}\n".encode() for file in files)
    return "sha256:" + hashlib.sha256(b"".join(lines)).hexdigest(), size


@dataclass(frozen=True, slots=True)
class Read:
    """A file or folder that a run reads: its path as the manifest says it, its digest and size."""

    path: str
    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Identity:
    """What a run reads; `digest` covers all of it."""

    digest: str
    files: tuple[Read, ...]


def checked_digest(manifest: TrainingManifest, dataset_root: Path) -> str:
    """The digest of `identified`."""
    return identified(manifest, dataset_root).digest


def identified(manifest: TrainingManifest, dataset_root: Path) -> Identity:
    """Everything that the run reads, after the manifest's own sha256s and size were checked.

    The digest of one path is its own. With `sources` or `splits.validation_path`: the sha256 of the digests, a line
    each, in the manifest's order. With `extensions.dataset_source` its name and version are in it.
    Raises: DatasetRefused, ManifestError (a path that leaves its root).
    """
    dataset = manifest.dataset
    digest, size = path_digest(paths.resolve(dataset_root, dataset.path, "dataset.path"), dataset.path)
    if dataset.size_bytes is not None and dataset.size_bytes != size:
        raise DatasetRefused(
            f"{dataset.path} has {size} bytes, the manifest says {dataset.size_bytes}; it is another version of the "
            "data: restore the right one or correct the manifest",
            "dataset.size_bytes",
        )
    _compare(dataset.path, digest, dataset.sha256, "dataset.sha256")
    files = [Read(dataset.path, digest, size)]
    for index, source in enumerate(dataset.sources):
        path = paths.resolve(dataset_root, source.path, f"dataset.sources[{index}].path")
        file = Read(source.path, *path_digest(path, source.path))
        _compare(file.path, file.digest, source.sha256, f"dataset.sources[{index}].sha256")
        files.append(file)
    if dataset.splits.validation_path is not None:
        path = paths.resolve(dataset_root, dataset.splits.validation_path, "dataset.splits.validation_path")
        files.append(Read(dataset.splits.validation_path, *path_digest(path, dataset.splits.validation_path)))
    if len(files) > 1:
        digest = "sha256:" + hashlib.sha256("".join(f"{one.digest}\n" for one in files).encode()).hexdigest()
    reader = extension(manifest, "dataset_source")
    if reader is not None:  # other code may make other documents of the same bytes
        digest = "sha256:" + hashlib.sha256(f"{digest}\n{reader.name} {reader.version}\n".encode()).hexdigest()
    return Identity(digest, tuple(files))


def _compare(shown: str, found: str, said: str | None, field: str) -> None:
    if said is not None and said.removeprefix("sha256:") != found.removeprefix("sha256:"):
        raise DatasetRefused(
            f"{shown} has {found}, the manifest says {said}; it is another version of the data: restore the right one "
            "or correct the manifest",
            field,
        )
