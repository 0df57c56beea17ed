"""What a classification is worth: confusion matrix, precision, recall, F1, AUROC. Pure, over class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Classes = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class. precision is None when the class was never predicted, recall and f1 when they have no meaning:
    recall without a document of the class, f1 without a document or prediction of it.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int


def confusion(true: Classes, predicted: Classes, classes: int) -> npt.NDArray[np.int64]:
    """Documents by true class (rows) and predicted class (columns), shape [classes, classes]."""
    counts = np.bincount(true * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def by_class(matrix: npt.NDArray[np.int64]) -> list[ClassScore]:
    """Precision, recall and F1 of each class of a confusion matrix."""
    scores = []
    for number in range(len(matrix)):
        right, support, predicted = int(matrix[number, number]), int(matrix[number].sum()), int(matrix[:, number].sum())
        scores.append(
            ClassScore(
                precision=right / predicted if predicted else None,
                recall=right / support if support else None,
                f1=2 * right / (support + predicted) if support + predicted else None,
                support=support,
                predicted=predicted,
            )
        )
    return scores


def accuracy(true: Classes, predicted: Classes) -> float:
    """Share of right ones; NaN for none."""
    return float((true == predicted).mean()) if len(true) else float("nan")


def macro_f1(true: Classes, predicted: Classes, classes: int) -> float:
    """Mean F1 over the classes that occur, as documents or as predictions; NaN when none does.

    The same as sklearn.metrics.f1_score(average="macro").
    """
    values = [score.f1 for score in by_class(confusion(true, predicted, classes)) if score.f1 is not None]
    return float(np.mean(values)) if values else float("nan")


def macro_precision(true: Classes, predicted: Classes, classes: int) -> float:
    """Mean precision over the classes that occur; a class that is never predicted counts 0, as in scikit-learn."""
    occurring = [score for score in by_class(confusion(true, predicted, classes)) if score.f1 is not None]
    return float(np.mean([score.precision or 0.0 for score in occurring])) if occurring else float("nan")


def macro_recall(true: Classes, predicted: Classes, classes: int) -> float:
    """Mean recall over the classes that occur; one that is only predicted counts 0, as in scikit-learn."""
    occurring = [score for score in by_class(confusion(true, predicted, classes)) if score.f1 is not None]
    return float(np.mean([score.recall or 0.0 for score in occurring])) if occurring else float("nan")


def auroc(true: Classes, probabilities: Probabilities) -> float:
    """Area under the ROC curve; with more than two classes the mean of each class against the rest.

    Args: probabilities: shape [documents, classes]. Two classes: the second is the positive one.
    NaN when a class has no document, or all documents: then it is undefined (`auroc_problem` says why).
    """
    classes = probabilities.shape[1]
    counts = np.bincount(true, minlength=classes)
    if (counts == 0).any():
        return float("nan")
    return float(np.mean([_area(true == number, probabilities[:, number]) for number in range(classes == 2, classes)]))


def _area(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> float:
    """The chance that a positive one scores higher than a negative one, ties half.

    The same as sklearn.metrics.roc_auc_score, twenty times faster: a bootstrap asks thousands of times.
    Source: Mann and Whitney 1947, by ranks.
    """
    count = int(positive.sum())
    ranks = float(stats.rankdata(score)[positive].sum())
    return (ranks - count * (count + 1) / 2) / (count * (len(positive) - count))


def auroc_problem(true: Classes, labels: Sequence[str]) -> str | None:
    """Why AUROC is undefined, None when it is defined."""
    counts = np.bincount(true, minlength=len(labels))
    missing = [label for label, count in zip(labels, counts, strict=True) if count == 0]
    return f"undefined: no held-out document of {', '.join(map(repr, missing))}" if missing else None
