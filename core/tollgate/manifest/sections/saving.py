"""`checkpoint` and `early_stopping`: what is kept while training, and when it ends before its last step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tollgate.manifest.sections.section import Section


class EarlyStopping(Section):
    """Stop when the metric has not improved by min_delta for `patience` evaluations."""

    metric: str = Field(default="eval_loss", description="Of those that the task measures on held-out documents.")
    mode: Literal["min", "max"] = Field(default="min", description="Which end is better.")
    patience: int = Field(default=3, ge=1, description="Evaluations without a better value, after which it stops.")
    min_delta: float = Field(default=0.0, ge=0, description="Less than this is no improvement.")


class Checkpoint(Section):
    """When to save besides save_steps, and what to keep."""

    every_minutes: float | None = Field(default=None, gt=0, description="Default: 10 unless save_steps is given.")
    keep_last: int = Field(default=2, ge=1, description="So many newest stay.")
    keep_best: int = Field(
        default=0, ge=0, description="So many best stay, too; from 1 on the finished model has the best one's weights."
    )
    metric: str = Field(default="eval_loss", description="What is best by keep_best.")
    uri: str | None = Field(
        default=None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/=+-]*)?$",
        description="s3://bucket/prefix: checkpoints go there instead of the output folder, uploaded beside the steps; "
        "one prefix a run. Credentials and endpoint come from the environment.",
    )
