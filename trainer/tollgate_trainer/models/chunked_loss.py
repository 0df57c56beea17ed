"""The loss without the logits: output head and cross-entropy in one, a chunk of tokens at a time.

Logits are the largest thing that a training with a large vocabulary holds: 4 rows of 4096 tokens over 128k entries are
8 GB per copy in fp32. Torch's `linear_cross_entropy` never holds them all. It is put in place of the output head, so
that it works wherever the head does: under DDP, DeepSpeed's and FSDP2's shards alike. Some models change logits after
the head (scale or cap them); for these it would be silently wrong, so the way from hidden states to the loss is tried
first, with random numbers and without the model's weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tollgate_trainer.data.tokens import IGNORED

TOLERANCE = 1e-4
"""Relative difference of the two losses in the trial, in fp32."""
_TRIED_ROWS, _TRIED_TOKENS, _TRIED_VOCABULARY = 2, 12, 48
_SEED = 20261121


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether this model's loss can be computed in chunks, and why."""

    fits: bool
    because: str


class ChunkedLoss:
    """Stands in for a model's output head while targets are set; else the head is what it was."""

    def __init__(self, model: Any) -> None:
        """Put it into the model. Args: model: one for which `fit` said yes."""
        causal = _causal(model)
        self._head: nn.Linear = causal.get_output_embeddings()
        self._logits, self._loss = self._head.forward, causal.loss_function
        self._targets: torch.Tensor | None = None
        head: Any = self._head
        head.forward = self._forward
        causal.loss_function = self._divided

    @contextmanager
    def over(self, labels: torch.Tensor) -> Iterator[None]:
        """Within it the model's logits are one number: the summed loss of the tokens that `labels` asks for, in nats.

        Args: labels: [rows, tokens], as the model takes them: not yet shifted, -100 where nothing is to be predicted.
        """
        self._targets = functional.pad(labels, (0, 1), value=IGNORED)[:, 1:]
        try:
            yield
        finally:
            self._targets = None

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self._targets is None:
            usual: torch.Tensor = self._logits(hidden)
            return usual
        return summed(hidden, self._head.weight, self._head.bias, self._targets)

    def _divided(self, logits: torch.Tensor, labels: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The library's loss: a mean over the tokens of this batch, or of the whole optimizer step."""
        if self._targets is None:
            usual: torch.Tensor = self._loss(logits, labels, *args, **kwargs)
            return usual
        items = kwargs.get("num_items_in_batch")
        return logits / ((self._targets != IGNORED).sum().clamp(min=1) if items is None else items)


def summed(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> torch.Tensor:
    """The summed cross-entropy in nats, a number in fp32; computed in the precision of autocast if that is on.

    In bf16 torch answers in bf16, and a sum of three digits would make evaluations equal that are not. So there each
    token's loss is asked for and added up here; for that backward computes the chunks once more.
    Args: hidden: [rows, tokens, width]; weight: [vocabulary, width]; targets: [rows, tokens], -100 is not counted.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    by_token = dtype is torch.bfloat16
    with torch.autocast(device, enabled=False):
        found = functional.linear_cross_entropy(
            hidden.reshape(-1, hidden.shape[-1]).to(dtype),
            weight.to(dtype),
            targets.reshape(-1),
            linear_bias=None if bias is None else bias.to(dtype),
            reduction="none" if by_token else "sum",
            ignore_index=IGNORED,
            options=nn.LinearCrossEntropyOptions(),
        )
        return found.float().sum() if by_token else found


def fit(model: Any) -> Fit:
    """Whether the model has a plain output head and nothing after it that changes the loss. Touches no weight."""
    causal = _causal(model)
    head = causal.get_output_embeddings() if hasattr(causal, "get_output_embeddings") else None
    if type(head) is not nn.Linear:
        found = "none" if head is None else f"a {type(head).__name__}"
        return Fit(False, f"the model's output head is {found}, not a plain linear layer")
    own = torch.Generator().manual_seed(_SEED)
    hidden = torch.randn(_TRIED_ROWS, _TRIED_TOKENS, head.in_features, generator=own)
    weight = torch.randn(_TRIED_VOCABULARY, head.in_features, generator=own) * head.in_features**-0.5 * 3
    labels = torch.randint(0, _TRIED_VOCABULARY, (_TRIED_ROWS, _TRIED_TOKENS), generator=own)
    labels[0, :3] = IGNORED
    targets = functional.pad(labels, (0, 1), value=IGNORED)[:, 1:]
    try:
        whole = _after_the_head(causal, head, hidden, labels, lambda given: functional.linear(given, weight))
        chunked = _after_the_head(causal, head, hidden, labels, lambda given: summed(given, weight, None, targets))
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        return Fit(False, f"{type(causal).__name__} can't be tried ({type(error).__name__}: {error})")
    if whole is None or chunked is None:
        return Fit(False, f"{type(causal).__name__} computes its loss by itself")
    expected = float(
        functional.cross_entropy(
            whole.float().reshape(-1, whole.shape[-1]), targets.reshape(-1), ignore_index=IGNORED, reduction="sum"
        )
    )
    off = abs(float(chunked) - expected) / expected if chunked.numel() == 1 else float("inf")
    if not off <= TOLERANCE:  # a difference that is no number never passes
        return Fit(False, f"{type(causal).__name__} changes the logits after its head")
    return Fit(True, f"tried: the loss is the same (relative difference {off:.1g})")


class _Hidden(tuple[torch.Tensor]):
    """What the inner model answers, however the outer one asks for it; all but the hidden states is absent."""

    __slots__ = ()

    def __getattr__(self, name: str) -> torch.Tensor | None:
        return self[0] if name == "last_hidden_state" else None


def _after_the_head(
    causal: Any, head: nn.Linear, hidden: torch.Tensor, labels: torch.Tensor, computed: Any
) -> torch.Tensor | None:
    """What the model hands to its loss, for these hidden states and this head; None when it hands nothing over."""
    seen: list[torch.Tensor] = []

    def loss(logits: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        seen.append(logits)
        return logits.sum()

    inner, plain_head = causal.base_model, head.__dict__.get("forward")
    plain_inner, plain_loss = inner.__dict__.get("forward"), causal.__dict__.get("_loss_function")
    try:
        inner.forward = lambda *_, **__: _Hidden((hidden,))
        stand_in: Any = head
        stand_in.forward = computed
        causal.loss_function = loss
        with torch.no_grad():
            type(causal).forward(causal, input_ids=labels.clamp(min=0), labels=labels, use_cache=False)
    finally:
        _put_back(inner, "forward", plain_inner)
        _put_back(head, "forward", plain_head)
        _put_back(causal, "_loss_function", plain_loss)
    return seen[0] if seen else None


def _put_back(module: nn.Module, name: str, value: Any) -> None:
    if value is None:
        module.__dict__.pop(name, None)
    else:
        module.__dict__[name] = value


def _causal(model: Any) -> Any:
    """The causal model itself, without an adapter's wrappers."""
    while hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model
