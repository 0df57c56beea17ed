"""A refusal: something that a person asked for and that is not done, why, and what would change it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """`reason`: one CamelCase word for a condition; `message`: what is wrong, where it stands, and how to mend it."""

    reason: str
    message: str
