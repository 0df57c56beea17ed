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
from tollgate_trainer.models.base import base_digest, hub_digest, load_base
from tollgate_trainer.models.digest import FileEntry, digest_of, entries_from, inventory, mismatch
from tollgate_trainer.models.heads import TASK_FILE, Head, read_task
from tollgate_trainer.models.moe_lora.config import CONFIG_FILE as MOE_LORA
from tollgate_trainer.models.quantised import Quantisation
from tollgate_trainer.models.source import Source
from tollgate_trainer.refusal import ModelRefused

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COMPLETED = "Completed"
"""The reason of an attempt whose model is finished."""

BASE_FILE = "base.json"
"""Beside an adapter: the base's folder as the manifest names it, where it was, its digest, and how it is quantised."""
OWN_BASE = "base"
"""Folder inside the model for a base that lies nowhere else, where it cannot be merged with its adapter."""
PLAIN_ADAPTER = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class OnBase:
    """What an adapter was trained on: `name` as the manifest has it, None for weights that lie in no file."""

    source: Source
    name: str | None
    digest: str
    quantisation: Quantisation = "none"

    @property
    def lies_in_no_file(self) -> bool:
        """Made from a config and a seed."""
        return self.source.folder is None and self.source.hub_id is None


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
    base: OnBase | None = None,
    task: dict[str, Any] | None = None,
) -> str:
    """Write `model/` below the output root in one rename and return the model's digest; one process only.

    An adapter on a saved base is stored as adapter plus a reference to its base. One on weights that lie in no file is
    merged, or, where it cannot be, stored with them, so that the folder stands by itself.
    Args: record: manifest_digest, dataset_digest and whatever else is to be known about the training; base: what an
    adapter was trained on, None without an adapter; task: what the task knows, for task.json.
    """
    staging = root / f".model-{attempt}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    if base is None:
        model.save_pretrained(staging)
    else:
        _save_adapter(model, base, staging)
    tokenizer.save_pretrained(staging)
    if task is not None:
        text = json.dumps({"schema": 1, **task}, indent=1, ensure_ascii=False)
        (staging / TASK_FILE).write_text(text + "\n", encoding="utf-8")
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


def _save_adapter(model: Any, base: OnBase, staging: Path) -> None:
    from tollgate_trainer.models.moe_lora.model import MoeLoraModel

    reference = {
        "base": base.name,
        "found_at": None if base.lies_in_no_file else base.source.name,
        "revision": base.source.revision,
        "digest": base.digest,
        "quantization": base.quantisation,
    }
    if base.lies_in_no_file and not isinstance(model, MoeLoraModel):
        model.merge_and_unload().save_pretrained(staging)
        return
    model.save_pretrained(staging)
    if base.lies_in_no_file:
        model.bare().save_pretrained(staging / OWN_BASE)
        reference |= {"base": OWN_BASE, "digest": digest_of(inventory(staging / OWN_BASE))}
    (staging / BASE_FILE).write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")


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

    from tollgate_trainer.models import tokenizer as tokenizers

    kind = next((name for name in ("config.json", PLAIN_ADAPTER, MOE_LORA) if (model_dir / name).is_file()), None)
    if kind is None:
        raise ModelRefused(f"{model_dir} holds no trained model")
    tokenizer = tokenizers.load(Source(folder=model_dir))
    task = read_task(model_dir)
    head = None if task is None else Head.from_document(task)

    def auto(source: Source) -> Any:
        return None if head is None else head.loader(source, int(tokenizer.pad_token_id))

    if kind == "config.json":
        own = Source(folder=model_dir)
        whole: Any = load_base(own, torch.float32, auto=auto(own))
        whole.config.tollgate_task = task
        return whole.eval(), tokenizer
    base = base_of(model_dir, dataset_root)
    loaded = load_base(base.source, torch.float32, base.quantisation, auto=auto(base.source))
    if base.digest.startswith("hub:") and base_digest(base.source, loaded) != base.digest:
        raise ModelRefused(f"the base {base.source.hub_id} is not {base.digest}, which the adapter was trained on")
    known: Any = loaded.config
    known.tollgate_task = task
    adapted: Any
    if kind == MOE_LORA:
        from tollgate_trainer.models.moe_lora.model import load_experts

        adapted = load_experts(loaded, model_dir)
    else:
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(loaded, str(model_dir))
    return adapted.eval(), tokenizer


def base_of(model_dir: Path, dataset_root: Path | None) -> OnBase:
    """What the adapter in a folder was trained on, found and checked.

    Raises: ModelRefused when it is nowhere, or another one stands in its place.
    """
    path = model_dir / BASE_FILE
    try:
        reference = json.loads(path.read_text(encoding="utf-8"))
        name, digest, revision = reference["base"], reference["digest"], reference["revision"]
        quantisation: Quantisation = reference.get("quantization", "none")  # absent in what earlier versions saved
        found_at = reference["found_at"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelRefused(f"{path}, which names the adapter's base, cannot be read: {error}", "model.base") from error
    if revision is not None and name != OWN_BASE:
        source = Source(hub_id=name, revision=revision)
        if digest.startswith("hub:") and digest != hub_digest(source):
            raise ModelRefused(f"{path} names {hub_digest(source)}, but the adapter was trained on {digest}")
        return OnBase(source, name, digest, quantisation)
    if found_at is None:
        places = [model_dir / OWN_BASE]
    else:
        places = [Path(found_at)] + ([dataset_root / name] if dataset_root is not None else [])
    for folder in places:
        if not folder.is_dir():
            continue
        found = digest_of(inventory(folder))
        if found != digest:
            raise ModelRefused(
                f"the base in {folder} has {found}, the adapter was trained on {digest}; restore that one",
                "model.base",
            )
        return OnBase(Source(folder=folder), name, digest, quantisation)
    raise ModelRefused(f"the adapter's base is in none of {', '.join(map(str, places))}; put it there", "model.base")
