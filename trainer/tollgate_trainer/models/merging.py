"""An adapter and its base as one model: shard by shard, so that never more than one of the base's files is in memory.

What is written is W + s * B A per layer (DoRA: its magnitudes over the rows' norms), in the dtype of the base.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tollgate.contract import Files
from tollgate_trainer import durable
from tollgate_trainer.models.digest import digest_of, inventory
from tollgate_trainer.models.finished import BASE_FILE, PLAIN_ADAPTER, OnBase, base_of
from tollgate_trainer.models.moe_lora.config import NO_MERGE
from tollgate_trainer.models.shelf import Shelved
from tollgate_trainer.refusal import ModelRefused

if TYPE_CHECKING:
    import torch

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_INDEX = "model.safetensors.index.json"
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Layer:
    """What one layer's weight gets: a, b of shapes [r, in], [out, r]; magnitude [out] with DoRA."""

    a: torch.Tensor
    b: torch.Tensor
    magnitude: torch.Tensor | None
    scale: float
    transposed: bool

    def applied(self, weight: torch.Tensor) -> torch.Tensor:
        """The merged weight in the weight's dtype. Raises: ModelRefused when the shapes do not fit."""
        delta = (self.b.float() @ self.a.float()) * self.scale
        delta = delta.T if self.transposed else delta
        if delta.shape != weight.shape:
            raise ModelRefused(f"the adapter's layer is {tuple(delta.shape)}, the base's {tuple(weight.shape)}")
        merged = weight.float() + delta
        if self.magnitude is not None:
            norm = merged.norm(dim=0 if self.transposed else 1)
            ratio = self.magnitude.float() / norm
            merged = merged * (ratio[None, :] if self.transposed else ratio[:, None])
        return merged.to(weight.dtype).contiguous()


def merge(model: Shelved, target: Path, dataset_root: Path | None = None) -> dict[str, Any]:
    """Write the merged model into `target`, which appears in one rename; answers its model_info.json.

    Raises: ModelRefused for what is no adapter, cannot be merged, or does not fit its base; OSError.
    """
    if model.kind == "moe-lora":
        raise ModelRefused(NO_MERGE, "adapter.type")
    if model.kind == "whole":
        raise ModelRefused(f"{model.folder} is a whole model, there is nothing to merge")
    model.whole()
    base = base_of(model.folder, dataset_root)
    with appearing(target) as staging:
        if base.source.folder is not None and model.task is None and _plain(model.folder):
            _by_shard(model.folder, base.source.folder, staging)
        else:
            _in_memory(model.folder, dataset_root, staging)
        _the_rest(model.folder, staging)
        return _record(model, base, staging)


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when the block ends well. Raises: ModelRefused when it is taken."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelRefused(f"{target} is already there; name another folder, or remove it")
    staging = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        if target.exists():
            target.rmdir()
        staging.rename(target)
        durable.flush_folder(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _plain(folder: Path) -> bool:
    """Whether the adapter is nothing but A, B and magnitudes of weights."""
    config = json.loads((folder / PLAIN_ADAPTER).read_text(encoding="utf-8"))
    unusual = (
        "modules_to_save",
        "rank_pattern",
        "alpha_pattern",
        "lora_bias",
        "target_parameters",
        "trainable_token_indices",
    )
    return not any(config.get(name) for name in unusual) and config.get("bias", "none") == "none"


def _by_shard(adapter: Path, base: Path, staging: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    shards = sorted(path.name for path in base.glob("*.safetensors"))
    if not shards:
        raise ModelRefused(f"the base in {base} has no *.safetensors; save it so first")
    layers = _layers(adapter)
    for name in shards:
        with safe_open(base / name, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {}
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                weight = file.get_tensor(key)
                layer = layers.pop(key, None)
                tensors[key] = weight if layer is None else layer.applied(weight)
        save_file(tensors, staging / name, metadata={"format": "pt"} | metadata)
        del tensors
    if layers:
        raise ModelRefused(f"the base in {base} has no weight {min(layers)}, which the adapter was trained for")
    for name in ("config.json", "generation_config.json", _INDEX):
        if (base / name).is_file():
            shutil.copyfile(base / name, staging / name)


def _layers(adapter: Path) -> dict[str, Layer]:
    """By the name of the base's weight. Raises: ModelRefused."""
    from safetensors.torch import load_file

    config = json.loads((adapter / PLAIN_ADAPTER).read_text(encoding="utf-8"))
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    layers = {}
    for key in sorted(tensors):
        if not key.endswith(".lora_A.weight"):
            continue
        stem = key.removesuffix(".lora_A.weight")
        layers[stem.removeprefix(_PREFIX) + ".weight"] = Layer(
            tensors.pop(key),
            tensors.pop(f"{stem}.lora_B.weight"),
            tensors.pop(f"{stem}.lora_magnitude_vector", None),
            scale,
            bool(config.get("fan_in_fan_out")),
        )
    if tensors:
        raise ModelRefused(f"{adapter / ADAPTER_WEIGHTS} has {min(tensors)}, which is not known how to merge")
    return layers


def _in_memory(adapter: Path, dataset_root: Path | None, staging: Path) -> None:
    """The library's way, for heads and bases of a hub: the whole model in memory."""
    from tollgate_trainer.models.finished import load_finished

    loaded: Any = load_finished(adapter, dataset_root)[0]
    loaded.merge_and_unload().save_pretrained(staging)


def _the_rest(adapter: Path, staging: Path) -> None:
    """Tokenizer and task."""
    left_out = {ADAPTER_WEIGHTS, PLAIN_ADAPTER, BASE_FILE, Files.MODEL_INFO, "README.md"}
    for path in adapter.iterdir():
        if path.is_file() and path.name not in left_out and not (staging / path.name).exists():
            shutil.copyfile(path, staging / path.name)


def _record(model: Shelved, base: OnBase, staging: Path) -> dict[str, Any]:
    files = inventory(staging)
    known = dict(model.info.document) if model.info is not None else {"manifest_digest": "", "dataset_digest": ""}
    known |= {
        "schema": 1,
        "digest": digest_of(files),
        "files": [asdict(entry) for entry in files],
        "merged_from": {
            "adapter": model.info.digest if model.info is not None else None,
            "base": base.digest,
            "trained_on_quantised": base.quantisation,
        },
    }
    durable.write(staging / Files.MODEL_INFO, json.dumps(known, indent=1, ensure_ascii=False).encode() + b"\n")
    return known
