"""The shapes of what a run tells about itself: events and details. What does not have its shape is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Told(BaseModel):
    """Something that was read from a file: more fields than these are no error."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Check(Told):
    """A `preflight` event."""

    check: str
    ok: bool
    message: str


class Experts(Told):
    """An `experts` event. usage: share of the tokens' choices by layer, then by expert, which sums to 1 in a layer."""

    step: int
    routing_entropy: float | None = None
    load_entropy: float | None = None
    balance_loss: float | None = None
    top_k: int | None = None
    usage: dict[str, list[float]]


class Packing(Told):
    """A `packing` event; shares of computed tokens."""

    on: bool
    because: str = ""
    documents: int | None = None
    rows: int | None = None
    row_tokens: int | None = None
    fill: float | None = None
    padding: float | None = None
    padding_without: float | None = None


class Sample(Told):
    """What the model wrote after a prompt."""

    prompt: str
    text: str


class Samples(Told):
    """A `samples` event."""

    step: int
    samples: list[Sample]


class Outlook(Told):
    """The `forecast` event of the end: hours and USD as planned [from, to] and as they came."""

    finished: bool
    planned_hours: tuple[float, float] | None = None
    actual_hours: float | None = None
    planned_usd: tuple[float, float] | None = None
    actual_usd: float | None = None
    forecast_at_step: int | None = None
    forecast_seconds: float | None = None
    forecast_low: float | None = None
    forecast_high: float | None = None
    actual_seconds: float | None = None
    covered: bool | None = None


class Compiled(Told):
    """A `compile` event."""

    on: bool
    seconds: float | None = None
    because: str | None = None


class Reading(Told):
    """A `data_loader` event."""

    workers: int
    because: str | None = None


class ClassRow(Told):
    """One class of a classification."""

    label: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


class WrongClass(Told):
    """A document that was given another class. text: None where documents are not quoted."""

    origin: str
    text: str | None = None
    label: str
    predicted: str
    probability_of_label: float


class Classes(Told):
    """evaluation/classification.json. confusion: rows are true classes, columns predicted ones."""

    documents: int
    labels: list[str]
    confusion: list[list[int]]
    classes: list[ClassRow]
    worst: list[WrongClass] = Field(default_factory=list)
    auroc_note: str | None = None

    @model_validator(mode="after")
    def _square(self) -> Classes:
        count = len(self.labels)
        if len(self.confusion) != count or any(len(row) != count for row in self.confusion):
            raise ValueError("the confusion matrix does not fit the labels")
        return self


class WrongSpan(Told):
    """A document with another answer than the right one. right, given: None where documents are not quoted."""

    origin: str
    question: str | None = None
    right: list[str] | None = None
    given: str | None = None
    token_f1: float


class Spans(Told):
    """evaluation/span.json. threshold: of the score of no answer, None when a span is always given."""

    documents: int
    without_answer: int
    threshold: float | None
    calibrated_on: int | None = None
    worst: list[WrongSpan] = Field(default_factory=list)


Shape = TypeVar("Shape", bound=Told)


def one(shape: type[Shape], document: Mapping[str, Any]) -> Shape | None:
    """The document in its shape, None when it has another."""
    try:
        return shape.model_validate(document)
    except ValidationError:
        return None


def each(shape: type[Shape], events: Iterable[Mapping[str, Any]], name: str) -> list[Shape]:
    """The events of that name which have the shape, in their order."""
    found = (one(shape, event) for event in events if event.get("event") == name)
    return [event for event in found if event is not None]
