"""The finished model: saved so that a fresh process loads it, with a record of what it was made from."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tollgate.contract import Files
from tollgate_trainer import durable
from tollgate_trainer.models.digest import FileEntry, digest_of, entries_from, inventory, mismatch
from tollgate_trainer.models.source import Source
from tollgate_trainer.refusal import ModelRefused

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COMPLETED = "Completed"
"""The reason of an attempt whose model is finished."""

BASE_FILE = "base.json"
"""Beside an adapter: the base's folder as the manifest names it, where it was, and its digest."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What stands in model_info.json. `digest` covers every file of the folder but this one."""

    digest: str
    files: list[FileEntry]
    manifest_digest: str
    dataset_digest: str
    document: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> ModelInfo | None:
        """The record in a model folder, None when there is none. Raises: ModelRefused when it cannot be understood."""
        path = folder / Files.MODEL_INFO
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                digest=str(document["digest"]),
                files=entries_from(document["files"]),
                manifest_digest=str(document["manifest_digest"]),
                dataset_digest=str(document["dataset_digest"]),
                document=document,
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ModelRefused(f"{path} cannot be understood ({type(error).__name__}: {error})") from error

    def problem(self, folder: Path) -> str | None:
        """How the folder's files differ from this record, or None when they are what was saved."""
        if digest_of(self.files) != self.digest:
            return "the digest in model_info.json does not fit its own list of files"
        if extra := {entry.path for entry in inventory(folder, [Files.MODEL_INFO])} - {e.path for e in self.files}:
            return f"{sorted(extra)[0]} was added after training"
        return mismatch(folder, self.files)


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    root: Path,
    attempt: int,
    record: dict[str, Any],
    base: Source | None,
    base_name: str | None,
    base_digest: str | None,
) -> str:
    """Write `model/` below the output root in one rename and return the model's digest; one process only.

    An adapter on a saved base is stored as adapter plus a reference to its base; an adapter on weights that lie in no
    file is merged, so that the folder stands by itself.
    Args: record: manifest_digest, dataset_digest and whatever else is to be known about the training; base: where
    an adapter's base lies, None without an adapter.
    """
    staging = root / f".model-{attempt}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    to_save: Any = model
    if base is not None and base.folder is None and base.hub_id is None:
        to_save = to_save.merge_and_unload()
    elif base is not None:
        reference = {"base": base_name, "found_at": base.name, "revision": base.revision, "digest": base_digest}
        (staging / BASE_FILE).write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")
    to_save.save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    files = inventory(staging)
    digest = digest_of(files)
    document = {"schema": 1, "digest": digest, **record, "files": [asdict(entry) for entry in files]}
    durable.write(staging / Files.MODEL_INFO, json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")
    for entry in files:
        _flush(staging / entry.path)
    target = root / Files.MODEL
    shutil.rmtree(target, ignore_errors=True)  # only ever there without model_info.json, or moved aside before
    os.rename(staging, target)
    durable.flush_folder(root)
    return digest


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_finished(model_dir: Path, dataset_root: Path | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The trained model in evaluation mode (fp32, CPU) and its tokenizer, from a folder that `save` made.

    Args: dataset_root: where an adapter's base is looked for when it is no longer where it was at training.
    Raises: ModelRefused when the folder or the adapter's base is missing or not what was trained on.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from tollgate_trainer.models import tokenizer as tokenizers

    if not (model_dir / "config.json").is_file() and not (model_dir / "adapter_config.json").is_file():
        raise ModelRefused(f"{model_dir} holds no trained model")
    tokenizer = tokenizers.load(Source(folder=model_dir))
    if not (model_dir / "adapter_config.json").is_file():
        model: Any = AutoModelForCausalLM.from_pretrained(
            model_dir, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
        return model.eval(), tokenizer
    from peft import PeftModel

    base = _base_of(model_dir, dataset_root)
    loaded = AutoModelForCausalLM.from_pretrained(
        base.name,
        revision=base.revision or "main",
        dtype=torch.float32,
        local_files_only=base.offline,
        trust_remote_code=False,
    )
    adapted: Any = PeftModel.from_pretrained(loaded, str(model_dir))
    return adapted.eval(), tokenizer


def _base_of(model_dir: Path, dataset_root: Path | None) -> Source:
    path = model_dir / BASE_FILE
    try:
        reference = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path}, which names the adapter's base, cannot be read: {error}", "model.base") from error
    if reference["revision"] is not None:
        return Source(hub_id=reference["base"], revision=reference["revision"])
    places = [Path(reference["found_at"])]
    if dataset_root is not None:
        places.append(dataset_root / reference["base"])
    for folder in places:
        if not folder.is_dir():
            continue
        found = digest_of(inventory(folder))
        if found != reference["digest"]:
            raise ModelRefused(
                f"the base in {folder} has {found}, the adapter was trained on {reference['digest']}; restore that one",
                "model.base",
            )
        return Source(folder=folder)
    raise ModelRefused(f"the adapter's base is in none of {', '.join(map(str, places))}; put it there", "model.base")
