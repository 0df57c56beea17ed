"""What an evaluator returns: samples, never a finished number. Value and interval are made in intervals.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rate:
    """Successes among independent trials. `chance`: the rate of guessing, which the metric's value is corrected for.

    `outcomes`: what each trial gave, in the order of Measured.units; without it no paired comparison can be made.
    """

    successes: int
    trials: int
    chance: float = 0.0
    outcomes: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.trials:
            raise ValueError(f"{self.successes} successes in {self.trials} trials are impossible")
        if not 0 <= self.chance < 1:
            raise ValueError(f"a chance of {self.chance} is not in [0, 1)")
        if self.outcomes and (len(self.outcomes), sum(self.outcomes)) != (self.trials, self.successes):
            raise ValueError(f"the outcomes do not add up to {self.successes} of {self.trials}")

    @classmethod
    def of(cls, outcomes: Sequence[bool], chance: float = 0.0) -> Rate:
        """The rate of trials that are known one by one."""
        return cls(sum(map(bool, outcomes)), len(outcomes), chance, tuple(map(bool, outcomes)))


@dataclass(frozen=True, slots=True)
class Weighted:
    """A weighted mean of rates, each corrected for its own chance (a mean over tasks). Weights are above 0."""

    rates: tuple[Rate, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.rates or len(self.rates) != len(self.weights) or min(self.weights) <= 0:
            raise ValueError(f"{len(self.rates)} rates need as many weights above 0, not {self.weights}")


@dataclass(frozen=True, slots=True)
class Mean:
    """A weighted mean over documents: sum(totals) / sum(weights), both of shape [documents].

    Several completions of one prompt are one document: their sum, with their number as weight.
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

    @classmethod
    def clustered(cls, clusters: Sequence[int], values: Sequence[float]) -> Mean:
        """The mean of values that are independent only between clusters: value i belongs to cluster clusters[i]."""
        names, place = np.unique(np.asarray(clusters), return_inverse=True)
        totals = np.zeros(len(names))
        np.add.at(totals, place, np.asarray(values, dtype=np.float64))
        return cls(totals, np.bincount(place, minlength=len(names)).astype(np.float64))


@dataclass(frozen=True)
class Statistic:
    """Any number that is computed from a set of units (F1, AUROC, corpus BLEU): its bounds come from resampled units.

    compute: from the indices of the units (shape [any number], some more than once) to the number; NaN where such a
    set has none (one class only).
    """

    units: int
    compute: Callable[[Indices], float]


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest difference between the rates of two groups on the same scenarios.

    outcomes: shape [groups, scenarios]; each scenario was asked once for each group, so a column belongs together.
    """

    groups: tuple[str, ...]
    outcomes: Booleans

    def __post_init__(self) -> None:
        if self.outcomes.ndim != 2 or self.outcomes.shape[0] != len(self.groups) or len(self.groups) < 2:
            raise ValueError(f"outcomes {self.outcomes.shape} must have a row for each of at least two groups")

    @property
    def rates(self) -> Vector:
        """The rate of each group."""
        return np.asarray(self.outcomes.mean(axis=1), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Point:
    """A number without an interval, for display or for policies that look at points only."""

    value: float
    samples: int


Samples = Rate | Weighted | Mean | Statistic | Gap | Point


@dataclass(frozen=True, slots=True)
class ScorerFacts:
    """What is known about a scorer: the digest of its files, its properties (sensitivity, ...) and its held-out ROC.

    roc: (threshold, sensitivity, share of false alarms), in the order of the threshold.
    """

    properties: Mapping[str, float] = field(default_factory=dict)
    digest: str | None = None
    roc: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How completions were made. form: `chat` or `plain`, how a prompt was put to the model."""

    form: str
    max_new_tokens: int
    temperature: float
    completions: int
    batch: int
    seed: int


@dataclass(frozen=True, slots=True)
class Detail:
    """What people read beside a number: written as evaluation/<name>.json and, as Markdown, evaluation/<name>.md.

    quotes: whether text of documents may stand in it; it is then written only where the manifest allows that.
    """

    name: str
    document: Mapping[str, Any]
    lines: tuple[str, ...]
    quotes: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric's samples, the digest of the prompts that were asked, and what scored them.

    units: the names of the prompts or documents in the order of the samples, so that two models can be paired.
    advisory: why no gate may rest on this metric, None when one may.
    """

    metric: str
    samples: Samples
    prompts_digest: str
    scorer: str
    scorer_version: str
    units: tuple[str, ...] = ()
    advisory: str | None = None
    facts: ScorerFacts = ScorerFacts()
    decoding: Decoding | None = None
    detail: Detail | None = None
