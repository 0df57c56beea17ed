"""What the routers of one model do in a training step: which tokens count, how they were routed, how even that was.

One `Routing` is shared by all layers of a model. It is opened around a whole training step, forward and backward:
gradient checkpointing runs the layers' forward again during backward, and must then see the same pad mask and save the
same tensors. What the second forward computes is not counted again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from tollgate_trainer.models.moe_lora.figures import LayerFigures, LayerSums


@dataclass(slots=True)
class _Pass:
    """Sums of one layer over the non-pad tokens of one forward pass.

    probability: [E], differentiable; mass, assigned: [E]; entropy, tokens: scalars.
    """

    probability: torch.Tensor
    mass: torch.Tensor
    assigned: torch.Tensor
    entropy: torch.Tensor
    tokens: torch.Tensor


class Routing:
    """The routing of one model's layers. Not a module: it has no weights and is in no state dict."""

    def __init__(self, experts: int, top_k: int, balance: float) -> None:
        self.experts, self.top_k, self.balance = experts, top_k, balance
        self.layers: list[str] = []
        self._mask: torch.Tensor | None = None
        self._open = False
        self._counting = False
        self._now: dict[str, _Pass] = {}
        self._sums: torch.Tensor | None = None  # [layers, 2E + 2] in double precision, on the model's device
        self._balance_sum: torch.Tensor | None = None
        self._passes = 0

    # --- in a step --------------------------------------------------------------------------------------------------

    @contextmanager
    def step(self, mask: torch.Tensor | None, device: torch.device | str = "cpu") -> Iterator[None]:
        """Be in a training step of one micro-batch, until its backward is over.

        Args: mask: [batch, tokens], not 0 where there is a token; None: every position is one;
        device: where the layers will look at it.
        """
        self._mask = None if mask is None else mask.to(device)
        self._open, self._counting = True, True
        self._now = {}
        try:
            yield
        finally:
            self._mask, self._open, self._counting = None, False, False
            self._now = {}

    def record(self, layer: str, probabilities: torch.Tensor, gates: torch.Tensor) -> None:
        """One layer's routing of a batch; called by the layer in each forward, does nothing outside of a step.

        Args: probabilities, gates: [..., E] in fp32: the router's softmax, and the renormalised top k of it.
        """
        if not self._open:
            return
        p, g = probabilities.reshape(-1, self.experts), gates.detach().reshape(-1, self.experts)
        weight = self._weight(probabilities)
        probability = (p * weight).sum(0)
        if not self._counting:  # a recomputation: the tensors that it saves must be there, its sums are known
            return
        with torch.no_grad():
            entropy = -(torch.xlogy(p, p).sum(-1, keepdim=True) * weight).sum()
            self._now[layer] = _Pass(
                probability=probability,
                mass=(g * weight).sum(0),
                assigned=((g > 0).to(weight.dtype) * weight).sum(0),
                entropy=entropy,
                tokens=weight.sum(),
            )

    def _weight(self, probabilities: torch.Tensor) -> torch.Tensor:
        """[tokens, 1]: 1 for what counts. A layer that sees no sequence (a pooled vector) has no padding."""
        shape = probabilities.shape[:-1]
        mask = self._mask
        if mask is None or mask.numel() != shape.numel():
            return torch.ones(shape.numel(), 1, dtype=probabilities.dtype, device=probabilities.device)
        return (mask != 0).reshape(-1, 1).to(probabilities.dtype).to(probabilities.device)

    def balanced(self, loss: torch.Tensor, share: float) -> torch.Tensor:
        """The loss with the gradient of the balance loss; its value stays the task's alone, comparable to other runs.

        balance loss = mean over layers of E * sum over experts of f_e * P_e; f_e: share of the assignments of all
        processes, P_e: mean router probability. 1.0 when either is uniform. Called once after each forward.
        Args: share: by what the loss is divided for accumulation elsewhere, so that this is as well.
        Source: Fedus et al. 2021, Switch Transformers, section 2.2, for k assignments per token.
        """
        self._counting = False
        if not self._now:
            return loss
        blank = torch.zeros(self.experts, device=loss.device)
        none = torch.zeros((), device=loss.device)
        found = [self._now.get(name) or _Pass(blank, blank, blank, none, none) for name in self.layers]
        probability = torch.stack([one.probability.to(loss.device) for one in found])  # [layers, E]
        local = torch.stack(
            [torch.cat([one.mass, one.assigned, one.entropy[None], one.tokens[None]]).to(loss.device) for one in found]
        ).double()  # [layers, 2E + 2]
        everywhere = summed(local)
        experts = self.experts
        assigned, tokens = everywhere[:, experts : 2 * experts], everywhere[:, -1:]
        shares = assigned / assigned.sum(-1, keepdim=True).clamp(min=1)
        # Gradients are averaged over processes, so a process's sum is divided by the mean count of tokens.
        mean = probability * (processes() / tokens.clamp(min=1)).to(probability.dtype)
        seen = (tokens.squeeze(-1) > 0).to(probability.dtype)
        per_layer = experts * (shares.to(probability.dtype) * mean).sum(-1) * seen
        balance = per_layer.sum() / seen.sum().clamp(min=1)
        with torch.no_grad():
            self._sums = everywhere if self._sums is None else self._sums + everywhere
            value = summed(balance.detach().double()) / processes()
            self._balance_sum = value if self._balance_sum is None else self._balance_sum + value
            self._passes += 1
        if self.balance == 0:
            return loss
        return loss + (balance - balance.detach()).to(loss.dtype) * (self.balance * share)

    # --- between steps ----------------------------------------------------------------------------------------------

    def take(self) -> Taken | None:
        """What all processes recorded since the last call, and start again; None when there was nothing."""
        if self._sums is None or self._balance_sum is None:
            return None
        experts = self.experts
        rows: Sequence[Sequence[float]] = self._sums.tolist()
        balance = float(self._balance_sum) / self._passes
        self._sums = self._balance_sum = None
        self._passes = 0
        layers = {}
        for name, row in zip(self.layers, rows, strict=True):
            if row[-1] > 0:
                sums = LayerSums(tuple(row[:experts]), tuple(row[experts : 2 * experts]), row[-2], row[-1])
                layers[name] = sums.figures(self.top_k)
        return Taken(layers, balance)


@dataclass(frozen=True, slots=True)
class Taken:
    """Figures by layer, and the mean balance loss."""

    layers: dict[str, LayerFigures]
    balance_loss: float

    @property
    def routing_entropy(self) -> float:
        """Mean over layers, in [0, 1]."""
        return _mean([figures.routing_entropy for figures in self.layers.values()])

    @property
    def routing_entropy_nats(self) -> float:
        """Mean over layers, at most ln E."""
        return _mean([figures.routing_entropy_nats for figures in self.layers.values()])

    @property
    def load_entropy(self) -> float | None:
        """Mean over layers, in [0, 1]; None where it is undefined."""
        values = [f.load_entropy for f in self.layers.values() if f.load_entropy is not None]
        return _mean(values) if values else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def processes() -> int:
    """How many processes share the training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, everywhere; the argument itself when there is one."""
    if processes() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total
