"""`checkpoint` and `early_stopping`: what is kept while training, and when it ends before its last step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tollgate.manifest.sections.section import Section


class EarlyStopping(Section):
    """Stop when the metric has not improved by min_delta for `patience` evaluations."""

    metric: str = "eval_loss"
    mode: Literal["min", "max"] = "min"
    patience: int = Field(default=3, ge=1)
    min_delta: float = Field(default=0.0, ge=0)


class Checkpoint(Section):
    """When to save besides save_steps, and what to keep."""

    every_minutes: float | None = Field(default=None, gt=0, description="Default: 10 unless save_steps is given.")
    keep_last: int = Field(default=2, ge=1)
    keep_best: int = Field(default=0, ge=0)
    metric: str = "eval_loss"
    uri: str | None = Field(
        default=None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/=+-]*)?$",
        description="s3://bucket/prefix: checkpoints go there instead of the output folder, uploaded beside the steps; "
        "one prefix a run. Credentials and endpoint come from the environment.",
    )
