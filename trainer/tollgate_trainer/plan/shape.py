"""A model's sizes, counted exactly: the model is made on torch's meta device, where weights have no bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.shapes import Shape, shape_of
from tollgate_trainer.models.source import model_source

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


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


def counted(config: PretrainedConfig, causal: bool) -> Shape | None:
    """The shape with its exact parameter count; by formula, or None (unknown), where no model can be made of it."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    make: Any = AutoModelForCausalLM if causal else AutoModel
    try:
        with torch.device("meta"):
            model = make.from_config(config)
        parameters = sum(parameter.numel() for parameter in model.parameters())
    except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError):
        return shape_of(config.to_dict())
    shape = shape_of(config.to_dict(), parameters)
    return replace(shape, counted=True) if shape is not None else None
