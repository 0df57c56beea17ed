"""PromotionPolicy: the stages of a model and the checks each demands. Its status is the truth of what is promoted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tollgate.api.meta import GENERATION, Api, Condition, DnsLabel, Observed, Timestamp
from tollgate.api.quantities import Duration

KIND = "PromotionPolicy"
PLURAL = "promotionpolicies"


class Regression(Api):
    """How much worse than the baseline a metric may be, absolute, in the metric's unit."""

    max_regression: float = Field(ge=0, allow_inf_nan=False, description="0: no worse at all.")


class Check(Api):
    """One demand on one metric. The bound says which end of the interval is compared; `point` ignores the interval."""

    metric: str = Field(min_length=1, max_length=63, description="As the evidence names it: docs/how-to/evaluate.md.")
    op: Literal["<", "<=", ">", ">="] = Field(description="How the compared end has to stand to the threshold.")
    threshold: float = Field(allow_inf_nan=False, description="In the metric's unit.")
    bound: Literal["point", "lower", "upper"] | None = Field(
        default=None, description="Default: the unfavourable end (upper for < and <=, lower for > and >=)."
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Of the one-sided bound, at least.")
    min_samples: int = Field(default=1, ge=1, description="Fewer are Inconclusive.")
    baseline: Regression | None = None
    required: bool = Field(default=True, description="false: shown, and decides nothing.")


class Approvals(Api):
    """How many people must say yes."""

    min: int = Field(default=0, ge=0, le=10, description="This version refuses more than 0.")


class Stage(Api):
    """A place that consumers read models from, such as staging or production."""

    name: DnsLabel = Field(description="Part of the name of the ConfigMap that consumers read.")
    requires: list[DnsLabel] = Field(
        default_factory=list, max_length=10, description="Stages that must have passed as well."
    )
    checks: list[Check] = Field(min_length=1, max_length=64, description="All that are required have to pass.")
    max_age: Duration | None = Field(default=None, description="Evidence older than this does not promote.")
    approvals: Approvals = Field(default_factory=Approvals)


class PromotionPolicySpec(Api):
    """Stages in the order in which a model passes them."""

    stages: Annotated[list[Stage], Field(min_length=1, max_length=10)] = Field(description="The first one first.")


class Holder(Observed):
    """The run that holds a stage."""

    run: str = Field(description="Name of the TrainingRun.")
    run_uid: str = Field(description="Its uid: a run that is made again under the name is another one.")
    model_path: str = Field(description="Relative to the root of the claim.")
    model_uri: str = Field(description="pvc://CLAIM/PATH of the model.")
    model_digest: str = Field(description="Of the model's files; consumers compare it.")
    evidence_digest: str = Field(description="Of the evidence that the gate passed on.")
    since: Timestamp = Field(description="When it was promoted.")


class StageStatus(Observed):
    """What a stage holds now, and what it held before."""

    name: str = Field(description="As in spec.stages.")
    holder: Holder | None = None
    previous: Holder | None = None
    message: str = Field(default="", description="Why the stage stays as it is, or whom it refused.")


class PromotionPolicyStatus(Observed):
    """Written by the operator only."""

    observed_generation: int | None = Field(default=None, description=GENERATION)
    policy_digest: str | None = Field(default=None, description="Of this spec, as verdicts name it.")
    stages: list[StageStatus] = Field(default_factory=list, description="In the order of spec.stages.")
    conditions: list[Condition] = Field(default_factory=list, description="Of the policy as a whole.")
