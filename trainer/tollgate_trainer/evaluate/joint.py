"""Both sides of a model that gives a class and marks a span."""

from __future__ import annotations

from collections.abc import Sequence

from tollgate_trainer.evaluate import classification, span
from tollgate_trainer.evaluate.predicting import predictions
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.samples import Detail, Measured


class Joint:
    """The metrics of `classification` and of `span`."""

    name = "joint"
    version = "1"

    def measure(self, subject: Subject) -> Sequence[Measured]:
        """All of them, and evaluation/joint.json."""
        found = predictions(subject, self.name, ("joint",))
        classes, spans = classification.described(found, subject.quotes), span.described(found, subject.quotes)
        told = [*classification.lines(classes), "", *span.lines(spans)]
        document = {"schema": 1, "task": "joint", "classification": classes, "span": spans}
        return [
            *classification.of_classes(found, self, Detail("joint", document, tuple(told), subject.quotes)),
            *span.of_spans(found, self, None),
        ]
