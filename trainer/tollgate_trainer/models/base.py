"""The model that training starts from, or that an adapter is put on: loaded from a folder or a hub, or identified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tollgate_trainer.models.digest import digest_of, inventory
from tollgate_trainer.models.quantised import Quantisation, keep_differentiable, loading
from tollgate_trainer.models.source import Source
from tollgate_trainer.refusal import ModelRefused

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load_base(
    source: Source,
    dtype: torch.dtype,
    quantisation: Quantisation = "none",
    device: torch.device | None = None,
    auto: Callable[..., PreTrainedModel] | None = None,
    **more: Any,
) -> PreTrainedModel:
    """The saved weights as a model, in `dtype` where they are not quantised.

    Args: device: where quantised weights lie (None: the CPU); others are moved there by the trainer; auto: what makes
    it (`from_pretrained` of a class), default a causal language model; more: for it.
    Raises: ModelRefused, ManifestRefused.
    """
    import torch
    from transformers import AutoModelForCausalLM

    make: Any = auto or AutoModelForCausalLM.from_pretrained
    told = loading(quantisation, dtype, device or torch.device("cpu"))
    try:
        model: PreTrainedModel = make(
            source.name,
            revision=source.revision or "main",
            dtype=dtype,
            local_files_only=source.offline,
            trust_remote_code=False,
            **told,
            **more,
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelRefused(f"no model could be loaded from {source.name}: {error}", "model.base") from error
    if quantisation != "none":
        keep_differentiable(model)
    return model


def empty_base(source: Source, dtype: torch.dtype) -> PreTrainedModel:
    """The same causal language model without memory for its weights. Raises: ModelRefused."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    make: Any = AutoModelForCausalLM.from_config
    try:
        config = AutoConfig.from_pretrained(
            source.name, revision=source.revision or "main", local_files_only=source.offline, trust_remote_code=False
        )
        with torch.device("meta"):
            model: PreTrainedModel = make(config, dtype=dtype)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelRefused(f"no model could be made from {source.name}: {error}", "model.base") from error
    return model


def base_digest(source: Source, model: PreTrainedModel) -> str:
    """What an adapter was trained on: the files of a folder, the commit of a hub's model, or weights from a seed.

    Raises: ModelRefused when a hub's commit is not known.
    """
    if source.folder is not None:
        return digest_of(inventory(source.folder))
    if source.hub_id is not None:
        return hub_digest(resolved(source))
    return weights_digest(model)


def hub_digest(source: Source) -> str:
    """A hub's commit covers all its files, and is the same in every cache."""
    return f"hub:{source.hub_id}@{source.revision}"


def resolved(source: Source) -> Source:
    """The source with the exact commit in place of a branch or tag; call it after loading, when the cache knows it.

    Raises: ModelRefused when the cache does not.
    """
    if source.hub_id is None:
        return source
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.hub_id, "config.json", revision=source.revision)
    if not isinstance(found, str):
        raise ModelRefused(
            f"the commit of {source.hub_id} at {source.revision} is not known; write the commit itself",
            "model.revision",
        )
    return replace(source, revision=Path(found).parent.name)


def weights_digest(model: PreTrainedModel) -> str:
    """Digest over the names and bytes of all weights, for a base that lies in no file."""
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode() + b"\0")
        data = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(data.view(torch.uint8).numpy().tobytes())
    return "sha256:" + total.hexdigest()
