"""Whether this model keeps packed documents apart: tried on the loaded model, because wrong ones give no error.

Models with attention alone do; some with recurrent layers, with attention sinks or with a cache of their own carry on
over the boundary, or ignore positions. Three random documents are computed packed and alone, and have to come out
equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tollgate_trainer.tasks.inputs import takes

FP32_BOUND = 1e-4
NOISE_FACTOR = 2.0
"""In 16 bits, packed and alone may differ by so many times what two shapes of batches differ by."""
_PARTS = (0.4, 0.25, 0.35)
_LONGEST = 96
_SEED = 20250719


@dataclass(frozen=True, slots=True)
class Probe:
    """difference: largest of all logits between packed and alone, None where it can't be tried; bound: its limit."""

    difference: float | None
    bound: float
    because: str

    @property
    def passed(self) -> bool:
        """Whether documents may share a row; a difference that is no number never passes."""
        return self.difference is not None and self.difference <= self.bound


def probe(model: Any, device: torch.device, precision: str, length: int) -> Probe:
    """Three documents in one row against each alone, with the attention and the precision of the run.

    The model, its mode and all random generators are afterwards what they were.
    Args: model: on `device`; length: tokens of a row in the run.
    """
    bound = FP32_BOUND
    if not takes(model, "position_ids"):
        return Probe(None, bound, "the model takes no position ids, so it can't be told where documents begin")
    documents = _documents(int(model.config.get_text_config().vocab_size), min(length, _LONGEST), device)
    try:
        with _still(model), _computing(device, precision):
            alone = [_logits(model, one[None])[0] for one in documents]
            packed = torch.cat(documents)[None]
            positions = torch.cat([torch.arange(len(one), device=device) for one in documents])[None]
            together = torch.split(_logits(model, packed, positions)[0], [len(one) for one in documents])
            if precision != "fp32":
                bound = NOISE_FACTOR * _noise(model, documents, alone)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        return Probe(None, bound, f"the model fails on packed documents ({type(error).__name__}: {error})")
    difference = max(_distance(left, right) for left, right in zip(together, alone, strict=True))
    if difference <= bound:
        return Probe(difference, bound, f"packed and alone differ by {difference:.2g}, at most {bound:.2g} is allowed")
    return Probe(
        difference,
        bound,
        f"packed and alone differ by {difference:.2g}, at most {bound:.2g} is allowed: "
        f"{model.config.model_type} lets one document see another",
    )


def _documents(vocabulary: int, tokens: int, device: torch.device) -> list[torch.Tensor]:
    own = torch.Generator().manual_seed(_SEED)
    lengths = [max(2, int(tokens * part)) for part in _PARTS]
    return [torch.randint(0, vocabulary, (length,), generator=own).to(device) for length in lengths]


def _logits(model: Any, ids: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
    """[rows, tokens, vocabulary] in fp32."""
    given: dict[str, Any] = {} if positions is None else {"position_ids": positions}
    if takes(model, "use_cache"):
        given["use_cache"] = False
    logits: torch.Tensor = model(input_ids=ids, **given).logits
    return logits.float()


def _noise(model: Any, documents: list[torch.Tensor], alone: list[torch.Tensor]) -> float:
    """What the shape of a batch alone changes: the same documents in one batch, filled up to the longest.

    What comes after a document can't change it, so the batch needs no mask.
    """
    width = max(len(one) for one in documents)
    ids = torch.zeros((len(documents), width), dtype=torch.long, device=documents[0].device)
    for row, one in enumerate(documents):
        ids[row, : len(one)] = one
    batch = _logits(model, ids)
    return max(_distance(batch[row, : len(one)], one) for row, one in enumerate(alone))


def _distance(left: torch.Tensor, right: torch.Tensor) -> float:
    found = float((left - right).abs().max())
    return found if found == found else float("inf")


@contextmanager
def _still(model: Any) -> Iterator[None]:
    """No dropout, no gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


@contextmanager
def _computing(device: torch.device, precision: str) -> Iterator[None]:
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    if dtype is None:
        yield
        return
    with torch.autocast(device.type, dtype=dtype):
        yield
