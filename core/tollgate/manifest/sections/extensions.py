"""`extensions`: code of the user's own."""

from __future__ import annotations

from pydantic import Field

from tollgate.manifest.sections.section import Section


class Extensions(Section):
    """Code of your own, without a fork: entry points of installed packages, or `module:Class` where whoever runs the
    machine allows the module (TOLLGATE_ALLOWED_EXTENSIONS); docs/how-to/extend.md.
    """

    loss: str | None = Field(default=None, description="causal-lm: what is minimised (group tollgate.losses).")
    trainer_step: str | None = Field(
        default=None, description="Around forward and backward of a micro-batch (group tollgate.trainer_steps)."
    )
    dataset_source: str | None = Field(
        default=None, description="Reads the files of the dataset (group tollgate.dataset_sources)."
    )
