"""What a model with a head says about held-out documents: made once for all evaluators that ask for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tollgate_trainer.data.document import Document
from tollgate_trainer.evaluate.protocol import Subject, drawn
from tollgate_trainer.models.heads import task_known
from tollgate_trainer.refusal import DatasetRefused, ManifestRefused, ModelRefused
from tollgate_trainer.tasks.answers import Found

if TYPE_CHECKING:
    from tollgate_trainer.tasks.samples import Samples

_BATCH = 32
_TOKENS = 16_384  # of one batch, with padding


@dataclass(frozen=True, slots=True)
class Predictions:
    """On the same documents, in their order.

    classes: (true class, probabilities) where the task has classes, labels: their names; spans: the best span where it
    has spans; threshold: of doubt, None when a span is always given; calibrated: whether it was chosen on half of the
    held-out documents.
    """

    documents: tuple[Document, ...]
    labels: tuple[str, ...]
    classes: tuple[tuple[int, tuple[float, ...]], ...]
    spans: tuple[Found, ...]
    threshold: float | None
    calibrated: bool
    digest: str


_made: WeakKeyDictionary[Any, dict[tuple[int, int, int], Predictions]] = WeakKeyDictionary()


def predictions(subject: Subject, suite: str, fitting: Sequence[str]) -> Predictions:
    """The model's predictions on the drawn held-out documents.

    Args: suite: who asks, for messages; fitting: the tasks that it can measure.
    Raises: ManifestRefused for a model of another task, DatasetRefused without documents, ModelRefused for a model that
    does not know a document's class.
    """
    document = task_known(subject.model)
    if document is None or document["task"] not in fitting:
        found = "causal-lm" if document is None else document["task"]
        raise ManifestRefused(
            f"{suite} measures models of task {' or '.join(fitting)}, this one is of task {found}; remove it",
            "evaluation.suites",
        )
    known = _made.setdefault(subject.model, {})
    key = (subject.limit, subject.seed, hash(tuple((one.hash, one.question) for one in subject.held_out)))
    if key not in known:
        known[key] = _predict(subject, document)
    return known[key]


def _predict(subject: Subject, document: dict[str, Any]) -> Predictions:
    from tollgate_trainer.tasks.choose import task_of
    from tollgate_trainer.tasks.classification import Classification
    from tollgate_trainer.tasks.joint import Joint, document_classes
    from tollgate_trainer.tasks.span import Span, per_document
    from tollgate_trainer.tasks.windows import windows

    chosen = drawn(subject.held_out, subject.limit, subject.seed, "task")
    if not chosen:
        raise DatasetRefused("no document is held out, so there is nothing to judge", "dataset.splits.validation")
    task = task_of(document, subject.tokenizer)
    labels = tuple(document.get("labels", ()))
    if unknown := sorted({str(one.label) for one in chosen if one.label not in labels}) if labels else []:
        raise ModelRefused(f"the model knows the classes {', '.join(labels)}, but not {', '.join(unknown)}")
    if isinstance(task, Classification):
        samples = task.samples(chosen, subject.tokenizer)
    else:
        samples = windows(chosen, subject.tokenizer, task.windowing, labels)
    rows = list(_rows(task, subject, samples))
    classes: Sequence[tuple[int, tuple[float, ...]]] = ()
    spans: list[Found] = []
    if isinstance(task, Classification):
        classes = [row for _, row in rows]
    elif isinstance(task, Joint):
        classes = document_classes(rows, samples)
        spans = [found for _, found in per_document([(index, row[1]) for index, row in rows], samples)]
    elif isinstance(task, Span):
        spans = [found for _, found in per_document(rows, samples)]
    told = "".join(f"{one.hash}\0{one.question}\0{one.label}\0{one.answers}\n" for one in chosen)
    digest = hashlib.sha256(f"{document['max_length']}\n{told}".encode()).hexdigest()
    return Predictions(
        tuple(chosen),
        labels,
        tuple(classes),
        tuple(spans),
        document.get("null_threshold"),
        bool(document.get("calibrated")),
        f"sha256:{digest}",
    )


def _rows(task: Any, subject: Subject, samples: Samples) -> Iterator[tuple[int, Any]]:
    """(sample, row) in the order of the samples."""
    import torch

    order = sorted(range(len(samples)), key=lambda i: (-int(samples.lengths[i]), i))
    rows: list[tuple[int, Any]] = []
    with torch.inference_mode():
        first = 0
        while first < len(order):
            size = max(1, min(_BATCH, _TOKENS // int(samples.lengths[order[first]])))
            numbers = order[first : first + size]
            first += size
            batch = [samples[number] for number in numbers]
            inputs = {name: tensor.to(subject.device) for name, tensor in task.collate(batch).items()}
            rows.extend(zip(numbers, task.measure(subject.model, inputs, batch).rows, strict=True))
    return iter(sorted(rows, key=lambda row: row[0]))
