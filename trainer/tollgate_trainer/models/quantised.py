"""Bases held in 8 or 4 bits by bitsandbytes, on CPUs and GPUs; an adapter is trained over them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from typing import TYPE_CHECKING, Any, Literal

from tollgate_trainer.refusal import ManifestRefused

if TYPE_CHECKING:
    import torch

Quantisation = Literal["none", "int8", "nf4"]


def loading(quantisation: Quantisation, compute: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told beside the dtype; {} for a base that is not quantised.

    Args: compute: in which 4-bit weights are multiplied; device: where the quantised weights are put, they cannot be
    moved there later by the trainer.
    Raises: ManifestRefused when bitsandbytes is not installed.
    """
    if quantisation == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ManifestRefused(
            f"{quantisation} needs bitsandbytes, which is not installed here; install tollgate with its extra `gpu`, "
            "or write quantization: none",
            "model.quantization",
        )
    from transformers import BitsAndBytesConfig

    make: Any = BitsAndBytesConfig
    # It says at every call that activations are cast; the losses of a quantised base are what they are.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if quantisation == "int8":
        config = make(load_in_8bit=True)
    else:
        config = make(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_differentiable(model: Any) -> None:
    """Have 4-bit layers compute after an evaluation as before it.

    On processors with bf16 instructions bitsandbytes packs the weights anew at the first pass in evaluation mode, and
    from then on computes them, in training too, by a kernel that has no gradient: nothing below such a layer would be
    learned any more, with a warning but without an error.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def facts(quantisation: Quantisation) -> dict[str, Any]:
    """What bit-equality depends on besides the rest of the topology; {} without a quantised base."""
    if quantisation == "none":
        return {}
    return {"quantization": quantisation, "bitsandbytes": importlib.metadata.version("bitsandbytes")}


def doubts(quantisation: Quantisation, device: torch.device) -> list[str]:
    """Why a resumed run may differ although nothing changed; on CPUs it was measured to be bit-equal."""
    if quantisation == "none" or device.type == "cpu":
        return []
    return [f"{quantisation} kernels on a GPU have not been shown to repeat bit by bit"]
