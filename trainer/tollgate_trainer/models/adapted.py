"""The adapter that the manifest asks for, put on a base; the rest of the weights is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollgate.manifest.sections import Adapter
from tollgate_trainer.refusal import ModelRefused

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def with_adapter(
    model: PreTrainedModel, adapter: Adapter, modules_to_save: tuple[str, ...] = (), task_type: str | None = "CAUSAL_LM"
) -> Any:
    """The model with LoRA, DoRA or a mixture of LoRA experts; itself for `adapter.type: none`.

    Args: modules_to_save: modules that are new and are trained whole beside the adapter (a head); task_type: peft's
    word for the task, which decides its class of model.
    Raises: ModelRefused for layers that are not there.
    """
    if adapter.type == "none":
        return model
    if adapter.type == "moe-lora":
        from tollgate_trainer.models.moe_lora.config import MoeLoraConfig
        from tollgate_trainer.models.moe_lora.model import with_experts

        return with_experts(model, MoeLoraConfig.from_manifest(adapter, modules_to_save))
    return _with_lora(model, adapter, modules_to_save, task_type)


def _with_lora(
    model: PreTrainedModel, adapter: Adapter, modules_to_save: tuple[str, ...], task_type: str | None
) -> Any:
    from peft import LoraConfig, get_peft_model

    make: Any = LoraConfig  # its alpha is typed as int, but any number will do
    config = make(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules or "all-linear",
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        modules_to_save=list(modules_to_save) or None,
        # Else `all-linear` puts a LoRA on the head, too, and merging forgets it.
        exclude_modules=rf"(.*\.)?({'|'.join(modules_to_save)})(\..*)?" if modules_to_save else None,
        bias="none",
        task_type=task_type,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ModelRefused(
            f"LoRA cannot be put on {adapter.target_modules}: {error}. Linear layers of this model: "
            f"{', '.join(linear_layers(model))}",
            "adapter.target_modules",
        ) from error


def linear_layers(model: Any) -> list[str]:
    """The last names of the linear layers, each once."""
    import torch

    return sorted(
        {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    )
