"""A loss: tokens that are already predicted well count less."""

from __future__ import annotations

import torch
from torch.nn import functional

IGNORED = -100


class Focal:
    """Sum of -(1 - p)^gamma log p; gamma 0 is the plain loss. Source: Lin et al. 2017, arXiv 1708.02002, eq. 4."""

    gamma = 1.0

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Args: logits: [rows, tokens, vocabulary]; targets: [rows, tokens], -100 where nothing is predicted."""
        losses = functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=IGNORED, reduction="none"
        )
        return ((1 - torch.exp(-losses)) ** self.gamma * losses).sum()
