"""What all sections of a TrainingManifest share: how strict they are, and the kinds of values they have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")]
Ratio = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0, le=100)]


class Section(BaseModel):
    """Unknown keys are errors; values are not coerced between types (an int is accepted where a float is asked for)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
