"""A linear layer with a mixture of LoRA experts beside it.

    h = A(x) as [..., E, r] times g[..., E, 1];  y = base(x) + s * B(h flattened),  g = renormalised top-k softmax

which is base(x) + s * sum over experts of g_e * B_e(A_e(x)), in two wide multiplications.
Source: LoRA (Hu et al. 2021), gated as in sparsely-gated mixtures (Shazeer et al. 2017).
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import LoraLayer
from torch import nn
from torch.nn import functional

from tollgate_trainer.models.moe_lora.config import NO_MERGE, MoeLoraConfig
from tollgate_trainer.models.moe_lora.routing import Routing


class MergeRefusedError(RuntimeError):
    """Somebody asked for the one weight that a mixture does not have."""


class Router(nn.Linear):
    """Logits [..., E] of a token, in fp32 whatever the mixed precision around it.

    A module of its own that is called, so that sharded training gathers its weight when it is needed.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [..., in] -> [..., E]."""
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.float(), self.weight.float())


def gates(probabilities: torch.Tensor, top_k: int) -> torch.Tensor:
    """The k largest of [..., E], divided by their sum; the others are 0.

    Compared instead of scattered: elementwise operations are deterministic on every device.
    """
    experts = probabilities.shape[-1]
    if top_k >= experts:
        return probabilities
    chosen = probabilities.topk(top_k, dim=-1).indices
    among = (chosen.unsqueeze(-1) == torch.arange(experts, device=probabilities.device)).any(-2)
    kept = probabilities * among
    return kept / kept.sum(-1, keepdim=True)


class MoeLoraLinear(nn.Module, LoraLayer):
    """Replaces a linear layer (plain, 8-bit or 4-bit; its base is only ever called)."""

    adapter_layer_names = (*LoraLayer.adapter_layer_names, "lora_router")

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: LoraConfig,
        moe: MoeLoraConfig,
        routing: Routing,
        r: int,
        lora_alpha: float,
        target_name: str = "",
        **_: Any,
    ) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer)
        self.moe = moe
        self.routing = routing
        self.name = target_name
        self.lora_router = nn.ModuleDict()
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, lora_alpha, config)
        routing.layers.append(target_name)

    def update_layer(self, adapter_name: str, r: int, lora_alpha: float, config: LoraConfig, **_: Any) -> None:
        """Make the weights: A as for one LoRA, B zero (so the layer begins as its base), the router as any linear."""
        if config.use_dora:
            raise ValueError("DoRA scales the one merged weight, which a mixture of experts does not have")
        assert self.in_features is not None  # only linear layers are registered
        self.lora_router[adapter_name] = Router(self.in_features, self.moe.experts, bias=False)
        alpha: Any = lora_alpha  # typed as int, but any number will do
        super().update_layer(adapter_name, r, alpha, config)
        self.scaling[adapter_name] = self.moe.scaling

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """x: [..., in] -> [..., out], in the dtype of the base's answer."""
        result: torch.Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name not in self.lora_A:
                continue
            probabilities = self.lora_router[name](x).softmax(-1)
            g = gates(probabilities, self.moe.top_k)
            self.routing.record(self.name, probabilities, g)
            a: Any = self.lora_A[name]
            b: Any = self.lora_B[name]
            inner = x if torch.is_autocast_enabled(x.device.type) else x.to(a.weight.dtype)
            h = a(self.lora_dropout[name](inner)).unflatten(-1, (self.moe.experts, self.moe.rank))
            h = h * g.unsqueeze(-1).to(h.dtype)
            result = result + (b(h.flatten(-2)) * self.scaling[name]).to(result.dtype)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> NoReturn:
        """Raises: MergeRefusedError."""
        raise MergeRefusedError(NO_MERGE)

    def unmerge(self) -> NoReturn:
        """Raises: MergeRefusedError."""
        raise MergeRefusedError(NO_MERGE)

    def get_delta_weight(self, adapter: str) -> NoReturn:
        """Raises: MergeRefusedError."""
        raise MergeRefusedError(NO_MERGE)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """No plain LoRA equals it either."""
        return False
