"""A model with a mixture of LoRA experts: made from a base, saved so that nothing else takes it for a plain LoRA."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from tollgate_trainer.models.adapted import linear_layers
from tollgate_trainer.models.moe_lora.config import NO_MERGE, WEIGHTS_FILE, MoeLoraConfig
from tollgate_trainer.models.moe_lora.layer import MergeRefusedError, MoeLoraLinear, Router
from tollgate_trainer.models.moe_lora.routing import Routing
from tollgate_trainer.refusal import ModelRefused

ADAPTER = "default"


class MoeLoraModel(PeftModel):
    """A PEFT model of custom layers.

    A plain `PeftModel.from_pretrained` of its files would load and be wrong, so it has its own, in which PEFT finds
    nothing.
    """

    def __init__(self, base: nn.Module, config: MoeLoraConfig) -> None:
        routing = Routing(config.experts, config.top_k, config.balance)
        make: Any = LoraConfig  # its alpha is typed as int, but any number will do
        lora = make(
            r=config.experts * config.rank,
            lora_alpha=config.experts * config.alpha,
            lora_dropout=config.dropout,
            target_modules=config.target_modules
            if isinstance(config.target_modules, str)
            else list(config.target_modules),
            modules_to_save=list(config.modules_to_save) or None,
            bias="none",
        )
        layer = partial(MoeLoraLinear, moe=config, routing=routing)
        # 8-bit and 4-bit linears are linears to isinstance, so they are among these.
        lora._register_custom_module({nn.Linear: layer, Conv1D: layer})
        super().__init__(base, lora, ADAPTER)
        self.moe, self.routing = config, routing
        for name, module in self.named_modules():
            if isinstance(module, Router):
                module.float()
            elif isinstance(module, LoraLayer) and not isinstance(module, MoeLoraLinear):
                raise ModelRefused(
                    f"{name.removeprefix('base_model.model.')} is no linear layer; experts are put on no others",
                    "adapter.target_modules",
                )

    def save_pretrained(
        self,
        save_directory: str | Path,
        *_: Any,
        state_dict: dict[str, Any] | None = None,
        is_main_process: bool = True,
        **__: Any,
    ) -> None:
        """Write moe_lora.json and adapter_moe.safetensors; one process of many does.

        Args: state_dict: the whole weights where this process holds only a part of them (sharded training).
        """
        if not is_main_process:
            return
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = get_peft_model_state_dict(self, state_dict=state_dict, adapter_name=ADAPTER)
        self.moe.write(folder)
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    def load_weights(self, folder: Path) -> None:
        """Put saved weights into this model.

        Raises: ModelRefused when the file is missing or is not exactly this model's adapter.
        """
        path = folder / WEIGHTS_FILE
        if (saved := MoeLoraConfig.read(folder)) != self.moe:
            raise ModelRefused(f"the adapter in {folder} is {saved}, this model has {self.moe}")
        try:
            tensors = load_file(path, device="cpu")
        except (OSError, SafetensorError) as error:
            raise ModelRefused(f"the adapter's weights {path} cannot be read: {error}") from error
        own = get_peft_model_state_dict(self, adapter_name=ADAPTER)
        for name in sorted(own.keys() | tensors.keys()):
            if name not in tensors or name not in own:
                raise ModelRefused(f"{path} {'has no' if name in own else 'has an unknown'} tensor {name}")
            if tensors[name].shape != own[name].shape:
                raise ModelRefused(
                    f"{path}: {name} is {tuple(tensors[name].shape)}, this model has {tuple(own[name].shape)}"
                )
        set_peft_model_state_dict(self, tensors, adapter_name=ADAPTER)

    def load_adapter(self, *_: Any, **__: Any) -> NoReturn:
        """Raises: ModelRefused; a plain adapter has no router."""
        raise ModelRefused("a mixture of LoRA experts takes no plain adapter; use load_weights on its own folder")

    def merge_and_unload(self, *_: Any, **__: Any) -> NoReturn:
        """Raises: MergeRefusedError."""
        raise MergeRefusedError(NO_MERGE)

    def bare(self) -> Any:
        """The base without its experts. The experts are gone after that, so save them first."""
        tuner: Any = self.base_model
        return tuner.unload()


def with_experts(base: nn.Module, config: MoeLoraConfig) -> MoeLoraModel:
    """Put experts on the linear layers of `base`; only they (and modules_to_save) are trained.

    Raises: ModelRefused for layers that are not there, are no linear layers, or are trained whole as well.
    """
    targets = [] if isinstance(config.target_modules, str) else config.target_modules
    for target in targets:
        for whole in config.modules_to_save:  # left to peft, such a layer would quietly have no experts
            if target == whole or target.endswith(f".{whole}") or whole.endswith(f".{target}"):
                raise ModelRefused(
                    f"{whole} is trained whole (modules_to_save) and is to have experts; name only one of the two",
                    "adapter.target_modules",
                )
    try:
        return MoeLoraModel(base, config)
    except ValueError as error:
        raise ModelRefused(
            f"experts cannot be put on {config.target_modules}: {error}. Linear layers of this model: "
            f"{', '.join(linear_layers(base))}",
            "adapter.target_modules",
        ) from error


def load_experts(base: nn.Module, folder: Path) -> MoeLoraModel:
    """The saved adapter on its base, in evaluation mode. Raises: ModelRefused."""
    model = with_experts(base, MoeLoraConfig.read(folder))
    model.load_weights(folder)
    model.requires_grad_(False)
    return model.eval()
