"""A small Llama with experts, and what the tests of it look at."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tollgate_trainer.models.moe_lora.config import MoeLoraConfig
from tollgate_trainer.models.moe_lora.layer import MoeLoraLinear
from tollgate_trainer.models.moe_lora.model import MoeLoraModel, with_experts

EXPERTS, TOP_K, RANK, ALPHA = 4, 2, 3, 12.0
MOE = MoeLoraConfig(EXPERTS, TOP_K, RANK, ALPHA, 0.0, 0.01, "all-linear")
IDS = torch.arange(24).reshape(2, 12)
MASK = torch.ones_like(IDS)
MASK[1, 7:] = 0


def base() -> Any:
    torch.manual_seed(5)
    make: Any = LlamaConfig
    config = make(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def model(config: MoeLoraConfig = MOE, trained: bool = True) -> MoeLoraModel:
    """Experts on a small Llama; trained: they add something."""
    torch.manual_seed(6)
    made = with_experts(base(), config)
    if trained:
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return made


def layers(made: Any) -> list[MoeLoraLinear]:
    return [part for part in made.modules() if isinstance(part, MoeLoraLinear)]


def logits(made: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = made.eval()(input_ids=IDS, attention_mask=MASK).logits
    return found
