"""A model's sizes, counted exactly: the model is made on torch's meta device, where weights have no bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tollgate.manifest.sections import Adapter
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.shapes import Shape, shape_of
from tollgate_trainer.models.source import model_source

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from tollgate_trainer.models.heads import Head


def config_of(manifest: TrainingManifest, dataset_root: Path, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The transformers config of the run's model. Raises: ModelRefused, OSError, ValueError."""
    from tollgate_trainer.models.build import config_from

    if manifest.model.config is not None:
        return config_from(manifest.model.config, tokenizer)
    from transformers import AutoConfig

    source = model_source(manifest, dataset_root)
    config: PretrainedConfig = AutoConfig.from_pretrained(
        source.name, revision=source.revision or "main", local_files_only=source.offline, trust_remote_code=False
    )
    return config


def counted(config: PretrainedConfig, head: Head | None = None, adapter: Adapter | None = None) -> Shape | None:
    """The shape with its exact parameter count; by formula, or None (unknown), where no model can be made of it.

    Args: head: of the task, None for a language model; adapter: whose weights are counted too.
    Raises: ModelRefused for a model that can't have this head, or layers of the adapter that are not there.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from tollgate_trainer.models import chunked_loss
    from tollgate_trainer.models.adapted import with_adapter

    make: Any = AutoModelForCausalLM.from_config if head is None else head.create
    parameters = trained = chunks = None
    try:
        with torch.device("meta"):
            model = make(config)
            parameters = sum(parameter.numel() for parameter in model.parameters())
        chunks = chunked_loss.fit(model).fits if head is None else None
        with torch.device("meta"):
            if adapter is not None and adapter.type != "none":
                kept = () if head is None else tuple(head.modules(model))
                wrapped = with_adapter(model, adapter, kept, "CAUSAL_LM" if head is None else head.peft_task)
                trained = sum(one.numel() for one in wrapped.parameters() if one.requires_grad)
    except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError):
        if parameters is None:
            return shape_of(config.to_dict())
    shape = shape_of(config.to_dict(), parameters)
    if shape is None:
        return None
    shape = replace(shape, counted=True, adapter=trained, chunks=chunks)
    return shape if head is None else _encoder(shape, 2 if head.encoders == "two" else 1)


def _encoder(shape: Shape, encoders: int) -> Shape:
    """Of a model that gives classes or spans: no vocabulary is multiplied by, and there may be two of it."""
    looked_up = encoders * shape.vocabulary * shape.hidden
    return replace(shape, products=max(1, shape.parameters - looked_up), layers=encoders * shape.layers)
