"""`parallelism_options`: how several processes share a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tollgate.manifest.sections.section import Section


class ParallelismOptions(Section):
    """More about zero1, zero2, zero3 and fsdp2."""

    offload: Literal["none", "cpu"] = Field(
        default="none",
        description="`cpu` keeps the optimizer (with zero3 and fsdp2 also the weights) in host memory: slower, for "
        "models that do not fit otherwise.",
    )
