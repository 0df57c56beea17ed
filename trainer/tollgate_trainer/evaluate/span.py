"""Exact match, token F1 and no-answer accuracy of a model that marks spans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from tollgate_trainer.evaluate.classification import EXCERPT, SHOWN, mean, names_of, share
from tollgate_trainer.evaluate.intervals import UnmeasuredError
from tollgate_trainer.evaluate.predicting import Predictions, predictions
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.samples import Detail, Measured
from tollgate_trainer.refusal import DatasetRefused
from tollgate_trainer.tasks.answers import calibrates
from tollgate_trainer.tasks.span import Judged, judge


class Span:
    """Of the spans, at the threshold that the model carries; judged on documents that did not set it."""

    name = "span"
    version = "1"

    def measure(self, subject: Subject) -> Sequence[Measured]:
        """exact_match, token_f1, no_answer_accuracy where it exists, and evaluation/span.json."""
        found = predictions(subject, self.name, ("span", "joint"))
        document = described(found, subject.quotes)
        return of_spans(found, self, Detail("span", document, tuple(lines(document)), subject.quotes))


def judged(found: Predictions) -> list[Judged]:
    """Every document that did not set the threshold. Raises: UnmeasuredError, DatasetRefused."""
    if not all(math.isfinite(one.null) and math.isfinite(one.best) for one in found.spans):
        raise UnmeasuredError("the model gives no finite scores")
    made = [
        judge(document, span, found.threshold)
        for document, span in zip(found.documents, found.spans, strict=True)
        if not (found.calibrated and calibrates(document))
    ]
    if not made:
        raise DatasetRefused(
            "every drawn document has set the threshold of no answer, none is left to judge; hold out more documents",
            "dataset.splits.validation",
        )
    return made


def of_spans(found: Predictions, evaluator: Any, detail: Detail | None) -> list[Measured]:
    """The metrics of the spans; questions about the same text are one unit."""
    made = judged(found)
    whole = partial(Measured, prompts_digest=found.digest, scorer=evaluator.name, scorer_version=evaluator.version)
    documents = [one.document for one in made]
    measured = [
        whole("exact_match", share([one.exact for one in made], documents), units=names_of(documents), detail=detail),
        whole("token_f1", mean([one.f1 for one in made], documents), units=names_of(documents)),
    ]
    if silent := [one for one in made if not one.document.answers]:
        owners = [one.document for one in silent]
        measured.append(
            whole("no_answer_accuracy", share([one.exact for one in silent], owners), units=names_of(owners))
        )
    return measured


def described(found: Predictions, quotes: bool = True) -> dict[str, Any]:
    """What stands in evaluation/span.json: the figures, the threshold, and the worst answers.

    quotes: with their text, questions and answers.
    """
    made = judged(found)
    silent = [one.exact for one in made if not one.document.answers]
    answered = [one for one in made if one.document.answers]
    worst = sorted((one for one in made if not one.exact), key=lambda one: (one.f1, -abs(one.found.doubt)))[:SHOWN]
    return {
        "schema": 1,
        "task": "span",
        "documents": len(made),
        "without_answer": len(silent),
        "exact_match": float(np.mean([one.exact for one in made])),
        "token_f1": float(np.mean([one.f1 for one in made])),
        "token_f1_of_answered": float(np.mean([one.f1 for one in answered])) if answered else None,
        "no_answer_accuracy": float(np.mean(silent)) if silent else None,
        "threshold": found.threshold,
        "calibrated_on": len(found.documents) - len(made) if found.calibrated else None,
        "worst": [
            {
                "id": one.document.id,
                "origin": one.document.origin,
                "token_f1": one.f1,
                "doubt": one.found.doubt,
                **(_quoted(one) if quotes else {}),
            }
            for one in worst
        ],
    }


def lines(document: dict[str, Any]) -> list[str]:
    """The same as Markdown."""
    if document["threshold"] is None:
        threshold = "A span is always given: no training document is without an answer."
    else:
        how = (
            f"chosen on {document['calibrated_on']} other held-out documents"
            if document["calibrated_on"] is not None
            else "not chosen: too few held-out documents with and without an answer"
        )
        threshold = f"No answer is given when it scores more than {document['threshold']:.3f} above the span ({how})."
    silent = document["no_answer_accuracy"]
    return [
        f"# Spans in {document['documents']} held-out documents",
        "",
        f"exact match {document['exact_match']:.3f}, token F1 {document['token_f1']:.3f}"
        + ("" if silent is None else f", right about {silent:.3f} of {document['without_answer']} without an answer"),
        "",
        threshold,
        "",
        "Worst:" if document["worst"] else "Every answer is exact.",
        "",
        *(_line(one) for one in document["worst"]),
    ]


def _quoted(one: Judged) -> dict[str, Any]:
    return {
        "question": one.document.question,
        "text": one.document.text[:EXCERPT],
        "right": [answer.text for answer in one.document.answers or ()],
        "given": one.answer,
    }


def _line(one: dict[str, Any]) -> str:
    if "right" not in one:
        return f"- {one['origin']} (F1 {one['token_f1']:.2f})"
    right = " / ".join(map(_told, one["right"])) or "none"
    given = _told(one["given"]) or "none"
    return f"- {one['origin']}: {_told(one['question'] or '')} right {right}, given {given} (F1 {one['token_f1']:.2f})"


def _told(text: str) -> str:
    return f'"{" ".join(text.split())[:EXCERPT]}"' if text else ""
