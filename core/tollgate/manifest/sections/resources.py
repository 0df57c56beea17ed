"""`resources`: what the run needs and may cost."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from tollgate.api.quantities import USD_PATTERN, Money, Usd
from tollgate.manifest import canonical
from tollgate.manifest.sections.section import Section


def _budget(value: Any) -> Any:
    """A number's shortest decimal form is what its author wrote, so 180.1 is exactly 180.10 USD."""
    if isinstance(value, bool) or not isinstance(value, int | float) or isinstance(value, Usd):
        return value
    return canonical.number(value)


Budget = Annotated[
    Money,
    BeforeValidator(_budget),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": USD_PATTERN}]}),
]


class Resources(Section):
    """What the run needs and may cost; spec.limits beats it."""

    min_gpu_memory_gb: float | None = Field(
        default=None, gt=0, description="For people: the profile decides what a node has."
    )
    min_system_memory_gb: float | None = Field(
        default=None, gt=0, description="For people: the profile decides what a node has."
    )
    expected_runtime_hours: float | None = Field(
        default=None, gt=0, description="For people: spec.limits.maxRuntime is the limit."
    )
    max_budget_usd: Budget | None = Field(
        default=None, description="The cap in USD when spec.limits.maxCostUSD is absent; micro-USD inside."
    )
