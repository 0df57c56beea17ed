"""`report`: what the page of a run may show."""

from __future__ import annotations

from pydantic import Field

from tollgate.manifest.sections.section import Section


class Report(Section):
    """The page that every run leaves."""

    quotes: bool = Field(
        default=True,
        description="Whether the run's files may quote documents: samples of what the model writes, the worst "
        "documents of an evaluation. false: nothing of them is written in the first place.",
    )
