"""What an evaluator returns: samples, never a finished number. Value and interval are made in intervals.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rate:
    """Successes among independent trials. `chance`: the rate of guessing, which the metric's value is corrected for."""

    successes: int
    trials: int
    chance: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.trials:
            raise ValueError(f"{self.successes} successes in {self.trials} trials are impossible")
        if not 0 <= self.chance < 1:
            raise ValueError(f"a chance of {self.chance} is not in [0, 1)")


@dataclass(frozen=True, slots=True)
class Mean:
    """A weighted mean over documents: sum(totals) / sum(weights), both of shape [documents].

    `exponential`: the metric is e to the power of that mean (perplexity from nats per token).
    """

    totals: Vector
    weights: Vector
    exponential: bool = False

    def __post_init__(self) -> None:
        if self.totals.shape != self.weights.shape or self.totals.ndim != 1:
            raise ValueError(f"totals {self.totals.shape} and weights {self.weights.shape} must be one vector each")
        if not (self.weights > 0).all():
            raise ValueError("each document needs a weight above 0")


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric's samples, the digest of the prompts that were asked, and what scored them."""

    metric: str
    samples: Rate | Mean
    prompts_digest: str
    scorer: str
    scorer_version: str
