"""`adapter`: which weights are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from tollgate.manifest.sections.section import Section

DEFAULT_EXPERTS = 4
DEFAULT_TOP_K = 2
DEFAULT_BALANCE = 0.01


@dataclass(frozen=True, slots=True)
class Mixture:
    """Experts per layer, how many of them serve a token, and the weight of the balance loss."""

    experts: int
    top_k: int
    balance: float


class Adapter(Section):
    """Which weights are trained."""

    type: Literal["none", "lora", "moe-lora"] = Field(
        default="none", description="none trains all weights; the others freeze the base (docs/how-to/adapters.md)."
    )
    rank: int = Field(default=16, ge=1, le=1024, description="Of the LoRA; with `moe-lora` of each expert.")
    alpha: float = Field(default=32, gt=0, description="What the adapter adds is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Of the adapter's inputs, while it trains.")
    target_modules: list[str] | None = Field(default=None, description="Default: all linear layers but the head.")
    rslora: bool = Field(default=False, description="Scale by alpha / sqrt(rank), for high ranks; `lora` only.")
    dora: bool = Field(default=False, description="LoRA with a trained magnitude per output; `lora` only.")
    experts: int | None = Field(default=None, ge=2, le=64, description="`moe-lora`: LoRAs per layer. Default 4.")
    top_k: int | None = Field(
        default=None,
        ge=2,
        description="`moe-lora`: experts per token. Default 2; the gate of a single one is always 1, its router would "
        "learn nothing.",
    )
    balance: float | None = Field(
        default=None,
        ge=0,
        description="`moe-lora`: weight of the loss that spreads tokens over experts (1.0 when even). Default 0.01.",
    )

    @property
    def mixture(self) -> Mixture:
        """The experts that are asked for, with their defaults."""
        experts, top_k = self.experts or DEFAULT_EXPERTS, self.top_k or DEFAULT_TOP_K
        even = 0.0 if top_k >= experts else DEFAULT_BALANCE
        return Mixture(experts, top_k, even if self.balance is None else self.balance)
