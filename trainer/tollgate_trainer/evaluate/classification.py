"""Accuracy, macro-F1, macro precision and recall, and AUROC of a model that gives classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tollgate_trainer.data.document import Document
from tollgate_trainer.evaluate.intervals import UnmeasuredError
from tollgate_trainer.evaluate.predicting import Predictions, predictions
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.samples import Detail, Indices, Mean, Measured, Rate, Statistic
from tollgate_trainer.tasks import scores

SHOWN = 20
EXCERPT = 200
TASKS = ("classification", "joint")


class Classification:
    """Of the classes; `Auroc` is its own evaluator, because it is not always defined."""

    name = "classification"
    version = "1"

    def measure(self, subject: Subject) -> Sequence[Measured]:
        """accuracy, macro_f1, macro_precision, macro_recall, and evaluation/classification.json."""
        found = predictions(subject, self.name, TASKS)
        document = described(found, subject.quotes)
        return of_classes(found, self, Detail("classification", document, tuple(lines(document)), subject.quotes))


class Auroc:
    """How well the probabilities order the documents, without regard to a threshold."""

    name = "auroc"
    version = "1"

    def measure(self, subject: Subject) -> Measured:
        """Raises: UnmeasuredError when a class has no held-out document."""
        found = predictions(subject, self.name, TASKS)
        true, probabilities = arrays(found)
        if problem := scores.auroc_problem(true, found.labels):
            raise UnmeasuredError(f"auroc is {problem}; hold out more documents, or leave the suite auroc out")
        units = clusters(found.documents)

        def compute(chosen: Indices) -> float:
            picked = np.concatenate([units[unit] for unit in chosen])
            return scores.auroc(true[picked], probabilities[picked])

        return Measured(
            self.name,
            Statistic(len(units), compute),
            found.digest,
            self.name,
            self.version,
            units=names_of(found.documents),
        )


def of_classes(found: Predictions, evaluator: Any, detail: Detail | None) -> list[Measured]:
    """The metrics of the classes; documents with the same text are one unit."""
    true, probabilities = arrays(found)
    predicted, classes = probabilities.argmax(axis=1), len(found.labels)
    units = clusters(found.documents)
    whole = partial(
        Measured,
        prompts_digest=found.digest,
        scorer=evaluator.name,
        scorer_version=evaluator.version,
        units=names_of(found.documents),
    )

    def pooled(score: Callable[[Any, Any, int], float]) -> Statistic:
        def compute(chosen: Indices) -> float:
            picked = np.concatenate([units[unit] for unit in chosen])
            return score(true[picked], predicted[picked], classes)

        return Statistic(len(units), compute)

    return [
        whole("accuracy", share([bool(right) for right in true == predicted], found.documents), detail=detail),
        whole("macro_f1", pooled(scores.macro_f1)),
        whole("macro_precision", pooled(scores.macro_precision)),
        whole("macro_recall", pooled(scores.macro_recall)),
    ]


def arrays(found: Predictions) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(true classes, probabilities), shapes [documents] and [documents, classes].

    Raises: UnmeasuredError when the model gives no finite probabilities.
    """
    true = np.asarray([row[0] for row in found.classes], dtype=np.int64)
    probabilities = np.asarray([row[1] for row in found.classes], dtype=np.float64)
    if not np.isfinite(probabilities).all():
        raise UnmeasuredError("the model gives no finite probabilities")
    return true, probabilities


# --- units ------------------------------------------------------------------------------------------------------------


def clusters(documents: Sequence[Document]) -> list[npt.NDArray[np.int64]]:
    """The places of the documents of each different text: questions about one text are not independent."""
    places: dict[str, list[int]] = {}
    for place, document in enumerate(documents):
        places.setdefault(document.hash, []).append(place)
    return [np.asarray(own, dtype=np.int64) for own in places.values()]


def names_of(documents: Sequence[Document]) -> tuple[str, ...]:
    """A name for each different text, in the order of `clusters`."""
    return tuple(dict.fromkeys(document.hash for document in documents))


def share(right: Sequence[bool], documents: Sequence[Document]) -> Rate | Mean:
    """How many are right: a rate of independent documents, or a mean over texts that are asked several times."""
    units = clusters(documents)
    if len(units) == len(documents):
        return Rate.of(right)
    return mean([float(one) for one in right], documents)


def mean(values: Sequence[float], documents: Sequence[Document]) -> Mean:
    """The mean of one value per document, over texts."""
    units = clusters(documents)
    totals = [float(sum(values[place] for place in own)) for own in units]
    return Mean(np.asarray(totals), np.asarray([float(len(own)) for own in units]))


# --- for people -------------------------------------------------------------------------------------------------------


def described(found: Predictions, quotes: bool = True) -> dict[str, Any]:
    """What stands in evaluation/classification.json: matrix, classes, and the documents that it is most wrong about.

    quotes: with their text.
    """
    true, probabilities = arrays(found)
    predicted = probabilities.argmax(axis=1)
    labels = found.labels
    matrix = scores.confusion(true, predicted, len(labels))
    area = scores.auroc(true, probabilities)
    worst = sorted(
        (place for place in range(len(true)) if predicted[place] != true[place]),
        key=lambda place: float(probabilities[place, true[place]]),
    )[:SHOWN]
    return {
        "schema": 1,
        "task": "classification",
        "documents": len(true),
        "labels": list(labels),
        "accuracy": scores.accuracy(true, predicted),
        "macro_f1": scores.macro_f1(true, predicted, len(labels)),
        "macro_precision": scores.macro_precision(true, predicted, len(labels)),
        "macro_recall": scores.macro_recall(true, predicted, len(labels)),
        "auroc": area if math.isfinite(area) else None,
        "auroc_note": scores.auroc_problem(true, labels),
        "confusion": matrix.tolist(),
        "classes": [
            {
                "label": label,
                "support": one.support,
                "predicted": one.predicted,
                "precision": one.precision,
                "recall": one.recall,
                "f1": one.f1,
            }
            for label, one in zip(labels, scores.by_class(matrix), strict=True)
        ],
        "worst": [
            {
                "id": found.documents[place].id,
                "origin": found.documents[place].origin,
                **({"text": found.documents[place].text[:EXCERPT]} if quotes else {}),
                "label": labels[true[place]],
                "predicted": labels[predicted[place]],
                "probability_of_label": float(probabilities[place, true[place]]),
            }
            for place in worst
        ],
    }


def lines(document: dict[str, Any]) -> list[str]:
    """The same as Markdown."""
    labels = document["labels"]
    area = document["auroc_note"] or f"{document['auroc']:.3f}"
    return [
        f"# Classification of {document['documents']} held-out documents",
        "",
        f"accuracy {document['accuracy']:.3f}, macro-F1 {document['macro_f1']:.3f}, macro precision "
        f"{document['macro_precision']:.3f}, macro recall {document['macro_recall']:.3f}, AUROC {area}",
        "",
        "| class | documents | predicted | precision | recall | F1 |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {_cell(one['label'])} | {one['support']} | {one['predicted']} | {_number(one['precision'])} | "
            f"{_number(one['recall'])} | {_number(one['f1'])} |"
            for one in document["classes"]
        ),
        "",
        "Confusion matrix (rows: true class, columns: predicted):",
        "",
        "| | " + " | ".join(map(_cell, labels)) + " |",
        "|---" + "|---:" * len(labels) + "|",
        *(
            f"| {_cell(label)} | " + " | ".join(map(str, row)) + " |"
            for label, row in zip(labels, document["confusion"], strict=True)
        ),
        "",
        "Most wrong:" if document["worst"] else "No document is wrong.",
        "",
        *(
            f"- {one['origin']}: {_cell(one['label'])} taken for {_cell(one['predicted'])} "
            f"(its own class {one['probability_of_label']:.3f})" + (f": {_cell(one['text'])}" if "text" in one else "")
            for one in document["worst"]
        ),
    ]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
