"""TrainingRun: one model from one manifest, with limits and gates."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from tollgate.api.meta import Api, DnsLabel, DnsSubdomain
from tollgate.api.quantities import Duration, Money
from tollgate.api.training_run_status import (
    Attempt,
    AttemptOutcome,
    CheckpointStatus,
    CheckStatus,
    ConditionType,
    Cost,
    EvaluationState,
    EvaluationStatus,
    Failure,
    Forecast,
    GateStatus,
    MetricStatus,
    ModelStatus,
    Phase,
    PodCharge,
    Price,
    Progress,
    TrainingRunStatus,
)

__all__ = [
    "KIND",
    "PLURAL",
    "Attempt",
    "AttemptOutcome",
    "CheckStatus",
    "CheckpointStatus",
    "ClaimFolder",
    "Compute",
    "ConditionType",
    "Cost",
    "Evaluation",
    "EvaluationState",
    "EvaluationStatus",
    "Failure",
    "Forecast",
    "GateStatus",
    "Limits",
    "Manifest",
    "MetricStatus",
    "ModelStatus",
    "Phase",
    "PodCharge",
    "PolicyRef",
    "Price",
    "Progress",
    "Restart",
    "RunRef",
    "SecretRef",
    "Storage",
    "TrainingRunSpec",
    "TrainingRunStatus",
    "UnknownPrice",
]

KIND = "TrainingRun"
PLURAL = "trainingruns"

Manifest = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "required": ["name", "dataset"],
            # Only what every manifest must have: typing more of it would prune what an older CRD does not know.
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 128},
                "dataset": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "required": ["path"],
                    "properties": {"path": {"type": "string", "minLength": 1}},
                },
            },
            "description": "The training manifest (docs/reference/manifest.md), as `tollgate run` takes it. Immutable.",
        }
    ),
]


class Compute(Api):
    """Where the run computes. Absent: the profile whose defaultFor names the manifest's compute_target."""

    profile: DnsSubdomain = Field(description="Name of a ComputeProfile.")
    nodes: int = Field(
        default=1,
        ge=1,
        le=400,
        description="Pods of the gang, one per node; at most 400, so that the status stays small.",
    )
    gpus_per_node: int | None = Field(
        default=None,
        alias="gpusPerNode",
        ge=0,
        le=64,
        description="Default: all of the profile's node; 0 on a CPU profile.",
    )


class ClaimFolder(Api):
    """A folder on a PersistentVolumeClaim of the run's namespace."""

    claim_name: DnsSubdomain = Field(description="Of the run's namespace.")
    path: str = Field(default="", max_length=512, description="Relative to the claim's root; may not leave it.")


class SecretRef(Api):
    """A Secret in the run's namespace."""

    name: DnsSubdomain = Field(description="Each of its keys becomes a variable.")


class Storage(Api):
    """The run's claims: data is mounted read-only, output writable."""

    dataset: ClaimFolder
    output: ClaimFolder
    credentials_secret: SecretRef | None = Field(
        default=None, description="Environment of the trainer from one Secret, by name."
    )


class UnknownPrice(StrEnum):
    """What to do when no price is known."""

    REFUSE = "Refuse"
    USE_CEILING = "UseCeiling"
    HOURS_ONLY = "HoursOnly"


class Limits(Api):
    """What the run may use, over all attempts. Mutable while it runs."""

    max_cost_usd: Money | None = Field(default=None, description="Absent: manifest.resources.max_budget_usd.")
    max_runtime: Duration | None = Field(
        default=None, description="Counts while pods run, over all attempts; not while queued or suspended."
    )
    notify_at: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=lambda: [0.5, 0.8],
        max_length=10,
        description="Shares of the cost limit that are told as Events.",
    )
    stop_margin: Duration | None = Field(
        default=None, description="Stop cleanly this long before maxRuntime; default min(30m, 10 % of it)."
    )
    unknown_price: UnknownPrice = UnknownPrice.REFUSE


class Restart(Api):
    """How often and when another attempt starts."""

    max_failures: int = Field(default=3, ge=0, le=100, description="So many failures are followed by an attempt.")
    max_disruptions: int = Field(
        default=20, ge=0, le=1000, description="The same of evictions, lost nodes and starts that found no room."
    )
    scheduling_timeout: Duration = Field(
        default=1800, validate_default=False, description="Until all pods have started; then nodes are given back."
    )
    first_step_timeout: Duration = Field(
        default=3600, validate_default=False, description="From there to the first step; then it is started again."
    )
    stall_timeout: Duration = Field(
        default=900, validate_default=False, description="Without a step, while the trainer answers; then as well."
    )
    fresh: bool = Field(
        default=False,
        description="Start anew where the output folder holds other work, which is moved aside.",
    )


class RunRef(Api):
    """Another TrainingRun in the same namespace."""

    run_name: DnsLabel = Field(description="Whose finished model and evidence are compared with.")


class Evaluation(Api):
    """The evaluation after training. It beats manifest.evaluation."""

    enabled: bool = Field(
        default=True, description="Who writes this section asks for one, also where manifest.evaluation does not."
    )
    profile: DnsSubdomain | None = Field(
        default=None, description="ComputeProfile of the evaluation pod; absent: the training profile, one node."
    )
    timeout: Duration = Field(
        default=1800, validate_default=False, description="Over all its attempts; the cap keeps the money for so long."
    )
    suites: list[Annotated[str, Field(min_length=1, max_length=63)]] | None = Field(
        default=None, min_length=1, max_length=16, description="Absent: the manifest's, or its task's own."
    )
    baseline: RunRef | None = None


class PolicyRef(Api):
    """A PromotionPolicy in the same namespace."""

    name: DnsSubdomain = Field(description="Whose stages judge the model.")


class TrainingRunSpec(Api):
    """What the data scientist asks for."""

    manifest: Manifest
    compute: Compute | None = None
    storage: Storage
    limits: Limits = Field(default_factory=Limits)
    restart: Restart = Field(default_factory=Restart)
    evaluation: Evaluation | None = None
    policy_ref: PolicyRef | None = None
    suspend: bool = Field(default=False, description="Rest with a checkpoint; false goes on from it.")
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, description="Then Jobs and pods of the run that ended are deleted; absent: they stay."
    )
