"""`span` and `joint`: what only one task asks for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tollgate.manifest.sections.section import Section


class Span(Section):
    """How a text is searched for the answer; for the tasks span and joint."""

    doc_stride: int = Field(default=128, ge=0, description="Tokens that two neighbouring windows of a long text share.")
    max_answer_tokens: int = Field(default=64, ge=1, description="No longer answer is given.")


class Joint(Section):
    """How a class and a span are learned together; for the task joint."""

    encoders: Literal["shared", "two"] = Field(
        default="shared", description="One encoder for both, or one for each (twice the weights)."
    )
    classification_weight: float = Field(default=1.0, ge=0, description="Of the class's loss.")
    span_weight: float = Field(default=1.0, ge=0, description="Of the span's loss.")
