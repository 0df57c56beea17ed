"""What all kinds share: the base model, names, conditions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

Timestamp = Annotated[
    datetime,
    PlainSerializer(
        lambda t: (
            t.astimezone(UTC).isoformat(timespec="microseconds" if t.microsecond else "seconds").replace("+00:00", "Z")
        )
    ),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""An instant. Kubernetes' own times have seconds; ours keep microseconds where money is counted by them."""

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63, min_length=1)]
DnsSubdomain = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253, min_length=1)]


def camel(name: str) -> str:
    """`spent_usd` -> `spentUSD`, `job_uid` -> `jobUID`: initialisms as Kubernetes writes them."""
    text = to_camel(name)
    for short, full in (("Usd", "USD"), ("Uid", "UID"), ("Uri", "URI")):
        text = text.replace(short, full)
    return text


GENERATION = "metadata.generation that this is about; a smaller one has not seen the newest spec."


class Api(BaseModel):
    """Base of every API type: camelCase outside, unknown fields refused (the API server does so first)."""

    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, extra="forbid", frozen=True)


class Observed(Api):
    """Base of status types: fields that a newer operator wrote are ignored, so that a roll-back can still read."""

    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, extra="ignore", frozen=True)


class Condition(Observed):
    """The standard Kubernetes condition."""

    type: str = Field(max_length=64, description="What may be true of the object.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is.")
    reason: str = Field(default="", max_length=256, description="Why, in one word that scripts can compare.")
    message: str = Field(default="", max_length=4096, description="Why, for people, with what to do about it.")
    last_transition_time: Timestamp = Field(description="When status changed last.")
    observed_generation: int | None = Field(default=None, ge=0, description=GENERATION)


def find_condition(conditions: list[Condition], kind: str) -> Condition | None:
    """The condition of that type, or None."""
    return next((c for c in conditions if c.type == kind), None)


def set_condition(
    conditions: list[Condition],
    kind: str,
    status: Literal["True", "False", "Unknown"],
    reason: str,
    message: str,
    now: datetime,
    generation: int,
) -> list[Condition]:
    """A new list with that condition set; its transition time moves only when the status does."""
    old = find_condition(conditions, kind)
    since = old.last_transition_time if old and old.status == status else now
    new = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=since,
        observed_generation=generation,
    )
    return [new if c.type == kind else c for c in conditions] if old else [*conditions, new]
