"""The frozen threshold of a classifier that is to be a scorer, with its ROC on data that did not choose it.

The held-out documents are halved by a hash of their text. One half chooses the threshold: the smallest score at which
at least 95 % of its negatives are left unmarked. The other half alone gives ROC, sensitivity and specificity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tollgate_trainer.evaluate.intervals import lower_bound
from tollgate_trainer.evaluate.samples import Booleans, ScorerFacts, Vector
from tollgate_trainer.refusal import DatasetRefused, ModelRefused

FILE = "threshold.json"
SPECIFICITY = 0.95
LEAST = 50  # positives and negatives each, without which a scorer's own quality is not known well enough to gate
_POINTS = 21


@dataclass(frozen=True, slots=True)
class Threshold:
    """What threshold.json holds. Scores from `threshold` on are marked; bounds are one-sided 95 %.

    model, dataset: digests of the classifier and of the data it was trained on and measured with; roc: as ScorerFacts.
    """

    model: str
    dataset: str
    positive_label: str
    threshold: float
    chosen_on: int
    positives: int
    negatives: int
    sensitivity: float
    sensitivity_lower: float
    specificity: float
    specificity_lower: float
    auroc: float
    roc: tuple[tuple[float, float, float], ...]

    @property
    def advisory(self) -> str | None:
        """Why no gate may rest on a scorer with it, None when one may."""
        if min(self.positives, self.negatives) < LEAST:
            return (
                f"its scorer was measured on {self.positives} positives and {self.negatives} negatives; "
                f"at least {LEAST} of each are needed"
            )
        if self.auroc <= 0.5:
            return f"its scorer tells nothing apart (AUROC {self.auroc:.3f})"
        if self.sensitivity_lower <= 1 - self.specificity_lower:
            return (
                f"its scorer finds {self.sensitivity:.0%} of what it looks for and marks {1 - self.specificity:.0%} of "
                "the rest, which is not surely better than chance"
            )
        return None

    @property
    def facts(self) -> ScorerFacts:
        """For the evidence."""
        numbers = ("threshold", "positives", "negatives", "sensitivity", "sensitivity_lower", "specificity")
        named = {name: float(getattr(self, name)) for name in (*numbers, "specificity_lower", "auroc")}
        return ScorerFacts(named, self.model, self.roc)


def freeze(
    scores: Vector, positive: Booleans, keys: Sequence[str], *, model: str, dataset: str, positive_label: str
) -> Threshold:
    """The threshold of one half and what it does on the other. Shapes: scores, positive, keys [documents].

    Raises: DatasetRefused when a half lacks positives or negatives, so that nothing can be said.
    """
    halves = np.asarray([hashlib.sha256(key.encode()).digest()[0] % 2 for key in keys], dtype=bool)
    for half in (halves, ~halves):
        if not positive[half].any() or positive[half].all():
            raise DatasetRefused(
                f"the {len(keys)} held-out documents don't give {positive_label!r} and the other label in both halves, "
                "so no threshold can be chosen and checked; hold out more documents",
                "dataset.splits.validation",
            )
    chosen = float(_choose(scores[halves], positive[halves]))
    rest, truth = scores[~halves], positive[~halves]
    marked = rest >= chosen
    positives, negatives = int(truth.sum()), int((~truth).sum())
    found, spared = int((marked & truth).sum()), int((~marked & ~truth).sum())
    return Threshold(
        model=model,
        dataset=dataset,
        positive_label=positive_label,
        threshold=chosen,
        chosen_on=int(halves.sum()),
        positives=positives,
        negatives=negatives,
        sensitivity=found / positives,
        sensitivity_lower=lower_bound(found, positives, 0.95),
        specificity=spared / negatives,
        specificity_lower=lower_bound(spared, negatives, 0.95),
        auroc=auroc(rest, truth),
        roc=_roc(rest, truth, chosen),
    )


def auroc(scores: Vector, positive: Booleans) -> float:
    """Area under the ROC: how often a positive scores above a negative, ties counted half; NaN with one class only."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, scores)) if positive.any() and not positive.all() else float("nan")


def _choose(scores: Vector, positive: Booleans) -> float:
    negatives = np.sort(scores[~positive])
    for candidate in np.unique(scores):
        if np.searchsorted(negatives, candidate) / len(negatives) >= SPECIFICITY:
            return float(candidate)
    return float(np.nextafter(scores.max(), np.inf))


def _roc(scores: Vector, positive: Booleans, chosen: float) -> tuple[tuple[float, float, float], ...]:
    levels = np.unique([*np.quantile(scores, np.linspace(0, 1, _POINTS - 1), method="nearest"), chosen])
    return tuple(
        (float(level), float((scores[positive] >= level).mean()), float((scores[~positive] >= level).mean()))
        for level in levels
    )


def to_json(threshold: Threshold) -> bytes:
    """The file's bytes."""
    return json.dumps({"schema": 1, **asdict(threshold)}, indent=1).encode() + b"\n"


def read(path: Path) -> Threshold:
    """The threshold in a file. Raises: ModelRefused when it is missing or can't be understood."""
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        said.pop("schema")
        roc = tuple((float(t), float(s), float(f)) for t, s, f in said.pop("roc"))
        return Threshold(**said, roc=roc)
    except FileNotFoundError as error:
        raise ModelRefused(
            f"{path} is missing, so nobody froze this classifier's threshold: set evaluation.positive_label in its "
            "manifest and evaluate it",
            "evaluation.scorer",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelRefused(
            f"{path} can't be understood ({error}); evaluate the classifier again", "evaluation.scorer"
        ) from error
