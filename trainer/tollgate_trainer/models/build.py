"""The model to train: made from a config with seeded weights, or loaded; with the adapter that is asked for."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.models.adapted import with_adapter
from tollgate_trainer.models.base import base_digest, empty_base, load_base, resolved
from tollgate_trainer.models.heads import Head
from tollgate_trainer.models.source import Source, model_source
from tollgate_trainer.refusal import ManifestRefused, ModelRefused

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Precision = str
"""`fp32`, `bf16` or `fp16`, resolved."""


@dataclass(frozen=True)
class Built:
    """A model ready for training.

    source: where its weights come from, a hub's with the exact commit; base_digest: of what an adapter was put on, None
    without one.
    """

    model: PreTrainedModel
    source: Source
    precision: Precision
    base_digest: str | None
    parameters: int
    trainable: int


def whole_shape(parameter: torch.Tensor) -> tuple[int, ...]:
    """The shape of a weight; one that was cut into shards while it was loaded (ZeRO-3) remembers it."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def precision_for(manifest: TrainingManifest, cuda: bool) -> Precision:
    """The manifest's precision; `auto` (the default) is bf16 where the device has it, else fp32.

    Raises: ManifestRefused for a precision that the device does not have.
    """
    import torch

    asked = manifest.precision or "auto"
    if asked == "auto":
        return "bf16" if cuda and torch.cuda.is_bf16_supported() else "fp32"
    if asked == "fp16" and not cuda:
        raise ManifestRefused("fp16 is for GPUs, and there is none here; write bf16, fp32 or auto", "precision")
    if asked == "bf16" and cuda and not torch.cuda.is_bf16_supported():
        raise ManifestRefused("this GPU has no bf16; use auto", "precision")
    return asked


def build(
    manifest: TrainingManifest,
    dataset_root: Path,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    head: Head | None = None,
    empty: bool = False,
) -> Built:
    """Make or load the model, seeded by `reproducibility.seed`, on the CPU; every process makes the same one.

    Args: head: of the task, None for a causal language model; empty: a saved causal model without its weights, which
    come from another process.
    Raises: ModelRefused, ManifestRefused.
    """
    import torch

    source = model_source(manifest, dataset_root)
    precision = precision_for(manifest, device.type == "cuda")
    torch.manual_seed(manifest.reproducibility.seed)
    if manifest.model.config is not None:
        model = _from_config(manifest.model.config, tokenizer, head)
    else:
        # Frozen weights need no fp32 master copy; trained ones do.
        halved = precision == "bf16" and manifest.adapter.type != "none" and device.type == "cuda"
        dtype = torch.bfloat16 if halved else torch.float32
        if empty:
            model = empty_base(source, dtype)
        else:
            auto = None if head is None else head.loader(source, int(tokenizer.pad_token_id))
            model = load_base(source, dtype, manifest.model.quantization, device, auto)
        source = resolved(source)
    embeddings: Any = model.get_input_embeddings()
    rows = int(whole_shape(embeddings.weight)[0])
    if len(tokenizer) > rows:
        raise ModelRefused(
            f"the tokenizer has {len(tokenizer)} entries but the model only {rows} embeddings; use the model's own "
            "tokenizer, or a larger vocab_size",
            "model.tokenizer",
        )
    digest = None
    if manifest.adapter.type != "none":
        digest = base_digest(source, model)
        if head is None:
            with torch.device("meta" if empty else "cpu"):
                model = with_adapter(model, manifest.adapter)
        else:
            model = with_adapter(model, manifest.adapter, tuple(head.modules(model)), head.peft_task)
            head.train_in_full_precision(model)
        if manifest.hyperparameters.gradient_checkpointing:
            prepare: Any = model.enable_input_require_grads  # the first checkpointed layer's input is frozen otherwise
            prepare()
    parameters = sum(math.prod(whole_shape(p)) for p in model.parameters())
    trainable = sum(math.prod(whole_shape(p)) for p in model.parameters() if p.requires_grad)
    return Built(model, source, precision, digest, parameters, trainable)


def _from_config(given: dict[str, Any], tokenizer: PreTrainedTokenizerBase, head: Head | None) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    config = config_from(given, tokenizer)
    if head is not None:
        return head.create(config)
    make: Any = AutoModelForCausalLM.from_config
    try:
        model: PreTrainedModel = make(config, dtype="float32")
    except (ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        raise ModelRefused(f"no model can be made from this config: {error}", "model.config") from error
    return model


def config_from(given: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The transformers config, with the tokenizer's size and marks where the manifest names none.

    Raises: ModelRefused for an unknown model_type or key (naming the nearest), or a vocabulary below the tokenizer's.
    """
    from transformers import AutoConfig

    values = dict(given)
    model_type = values.pop("model_type", None)
    if not isinstance(model_type, str):
        raise ModelRefused('a config needs a model_type, for example "llama"', "model.config.model_type")
    try:
        known = set(AutoConfig.for_model(model_type).to_dict())
    except ValueError as error:
        raise ModelRefused(
            f"transformers knows no model_type {model_type!r}; for example llama, qwen3, gpt2",
            "model.config.model_type",
        ) from error
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ModelRefused(f"a {model_type} config has no key {key!r}{hint}", f"model.config.{key}")
    if values.setdefault("vocab_size", len(tokenizer)) < len(tokenizer):
        raise ModelRefused(
            f"vocab_size {values['vocab_size']} is below the tokenizer's {len(tokenizer)}", "model.config.vocab_size"
        )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        values.setdefault(name, getattr(tokenizer, name))
    try:
        config: PretrainedConfig = AutoConfig.for_model(model_type, **values)
    except Exception as error:  # transformers validates with its own, private error types
        raise ModelRefused(f"this is not a valid {model_type} config: {error}", "model.config") from error
    return config
