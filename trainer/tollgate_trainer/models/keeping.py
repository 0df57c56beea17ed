"""A model for others: the folder that a stock server loads, and a tar with the digest of every file. No torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tollgate.contract import Files
from tollgate_trainer import durable
from tollgate_trainer.data.digest import file_digest
from tollgate_trainer.models.digest import inventory
from tollgate_trainer.models.finished import BASE_FILE, PLAIN_ADAPTER
from tollgate_trainer.models.merging import appearing
from tollgate_trainer.models.moe_lora.config import NO_MERGE
from tollgate_trainer.models.shelf import Shelved
from tollgate_trainer.refusal import ModelRefused

SUMS = "SHA256SUMS"


def export(model: Shelved, target: Path, base: str | None) -> None:
    """Copy the model as a stock server wants it: a whole model as it is, an adapter with the id of its base.

    Args: base: what the server calls the base; default: the hub id, or the folder where it was at training.
    Raises: ModelRefused for a mixture of experts, a damaged model, and a taken target.
    """
    if model.kind == "moe-lora":
        raise ModelRefused("no stock server knows a mixture of LoRA experts. " + NO_MERGE, "adapter.type")
    model.whole()
    with appearing(target) as staging:
        for path in model.folder.iterdir():
            if path.is_file() and path.name not in (Files.MODEL_INFO, BASE_FILE):
                shutil.copyfile(path, staging / path.name)
        if model.kind == "lora":
            config = json.loads((staging / PLAIN_ADAPTER).read_text(encoding="utf-8"))
            known = model.base or {}
            config["base_model_name_or_path"] = base or (
                known.get("base") if known.get("revision") else known.get("found_at")
            )
            config["revision"] = None if base else known.get("revision")
            (staging / PLAIN_ADAPTER).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Backup:
    """Where it lies, its size in bytes, and the sha256 of the tar."""

    place: str
    size: int
    sha256: str


def backup(model: Shelved, target: str) -> Backup:
    """Write the model's folder and SHA256SUMS as one tar, to a path or an s3:// URI; the same model makes the same tar.

    Raises: ModelRefused for a damaged model or a taken path, StoreError, OSError.
    """
    model.whole()
    if not target.startswith("s3://"):
        path = Path(target)
        if path.exists():
            raise ModelRefused(f"{path} is already there; name another file, or remove it")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            _tar(model.folder, partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        durable.flush_folder(path.parent)
        return Backup(str(path), path.stat().st_size, file_digest(path))
    from tollgate_trainer.lifecycle.remote.store import Place, Store, StoreError

    prefix, _, name = target.rpartition("/")
    if not name.endswith(".tar") or prefix in ("s3:", "s3:/"):
        raise ModelRefused(f"{target} names no object in a bucket; write s3://bucket/folder/name.tar")
    store = Store(Place.parse(prefix))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / name
        _tar(model.folder, path)
        size, digest = path.stat().st_size, file_digest(path)
        told = store.upload(path, name)
        if told.size != size:
            raise StoreError(f"{target} took {told.size} of {size} bytes")
    store.put(f"{name}.sha256", f"{digest}  {name}\n".encode())
    return Backup(target, size, digest)


def _tar(folder: Path, path: Path) -> None:
    entries = inventory(folder)
    sums = "".join(f"{entry.sha256}  {entry.path}\n" for entry in entries).encode()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = _header(f"model/{entry.path}", entry.size)
            digest = hashlib.sha256()
            with (folder / entry.path).open("rb") as file:
                tar.addfile(info, _Hashed(file, digest))
            if digest.hexdigest() != entry.sha256:
                raise ModelRefused(f"{folder / entry.path} changed while it was copied")
        with tempfile.SpooledTemporaryFile() as file:
            file.write(sums)
            file.seek(0)
            tar.addfile(_header(f"model/{SUMS}", len(sums)), file)


def _header(name: str, size: int) -> tarfile.TarInfo:
    """Without owner, time and mode of this machine, so that the same model gives the same bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


class _Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes], digest: hashlib._Hash) -> None:
        self._file, self._digest = file, digest

    def read(self, amount: int = -1) -> bytes:
        """The next bytes."""
        data: bytes = self._file.read(amount)
        self._digest.update(data)
        return data
