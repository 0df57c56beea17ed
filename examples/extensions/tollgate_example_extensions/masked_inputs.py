"""A trainer step: a few inputs are replaced by chance, so that the model leans less on single words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class MaskedInputs:
    """Each input token but a row's first becomes the one before it with probability `share`; targets stay."""

    share = 0.05

    def __call__(self, model: Any, batch: dict[str, Any], train: Callable[[dict[str, Any]], Any]) -> torch.Tensor:
        """Change the batch, then train on it."""
        ids = batch["input_ids"]
        replaced = torch.rand(ids.shape, device=ids.device) < self.share
        replaced[:, 0] = False
        return train({**batch, "input_ids": torch.where(replaced, ids.roll(1, dims=1), ids)})
