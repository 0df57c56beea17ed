"""The status of a TrainingRun: what its operator observed, decided and booked."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from tollgate.api.meta import Condition, Observed, Timestamp
from tollgate.api.quantities import Money
from tollgate.contract import FailureClass, StopReason


class Phase(StrEnum):
    """For people; machines use conditions."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    EVALUATING = "Evaluating"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"
    SUSPENDED = "Suspended"


class ConditionType(StrEnum):
    """Conditions of a TrainingRun. `Finished` is what a script waits for: True at every end, whatever it was."""

    ACCEPTED = "Accepted"
    PRICE_KNOWN = "PriceKnown"
    ADMITTED = "Admitted"
    RUNNING = "Running"
    WITHIN_BUDGET = "WithinBudget"
    PROGRESSING = "Progressing"
    EVALUATED = "Evaluated"
    COMPLETE = "Complete"
    FAILED = "Failed"
    STOPPED = "Stopped"
    FINISHED = "Finished"


class Progress(Observed):
    """What rank 0 said last, at most once a minute."""

    step: int = 0
    total_steps: int | None = None
    epoch: float | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    updated_at: Timestamp | None = None
    estimated_completion: Timestamp | None = Field(
        default=None, description="When training will be done at its pace; absent while nothing trains."
    )


class Forecast(Observed):
    """Where spend is heading."""

    p50: Money | None = None
    p90: Money | None = None


class Price(Observed):
    """Price of one node's hour for this run's share of it."""

    per_node_hour_usd: Money
    source: Literal["profile", "node", "priceBook", "ceiling", "unknown"]
    as_of: Timestamp


class Cost(Observed):
    """Money, as allocated node time x price."""

    spent_usd: Money = 0
    spent: str | None = Field(
        default=None,
        description="spentUSD as the column shows it: rounded up to cents, below one cent to two digits; `>` before it "
        "when pods without a price are not in it, `unknown` when none has one.",
    )
    reserved_usd: Money | None = None
    evaluation_reserve_usd: Money | None = None
    rate_per_hour_usd: Money | None = None
    limit_usd: Money | None = None
    forecast_usd: Forecast | None = None
    exhausted_at: Timestamp | None = None
    price: Price | None = None
    updated_at: Timestamp | None = None
    by_category: dict[str, Money] | None = Field(default=None, description="startup, productive, lost, evaluation")
    notified: list[float] | None = None


class CheckpointStatus(Observed):
    """The newest committed checkpoint that anybody reported."""

    step: int
    path: str
    digest: str
    saved_at: Timestamp


class ModelStatus(Observed):
    """The finished model; path relative to the output folder."""

    path: str
    digest: str


class PodCharge(Observed):
    """One pod's share of the ledger; with an `end` it is never recomputed. Folded when its attempt is closed."""

    uid: str
    name: str
    node: str | None = None
    index: int = 0
    start: Timestamp | None = Field(default=None, description="PodScheduled; absent: never bound, costs nothing.")
    end: Timestamp | None = None
    per_hour_usd: Money | None = Field(default=None, description="Price of this pod's hour; absent: unknown.")
    charge_usd: Money | None = None


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "Completed"
    STOPPED = "Stopped"
    FAILED = "Failed"
    LOST = "Lost"


class Failure(Observed):
    """The cause of an attempt's end: which class, where, and its last words."""

    class_: FailureClass = Field(alias="class")
    reason: str
    exit_code: int | None = None
    pod: str | None = None
    node: str | None = None
    rank: int | None = None
    message: str = Field(default="", max_length=4096)


class Attempt(Observed):
    """One Job of the run. Numbers count from 1; the intent (no jobUID yet) is written before the Job is made."""

    number: int = Field(ge=1)
    role: Literal["train", "evaluate"] = "train"
    job_uid: str | None = None
    intent_time: Timestamp | None = None
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    reserved_usd: Money | None = None
    reserved_seconds: int | None = Field(default=None, description="Per pod, from binding to death.")
    grace_seconds: int | None = None
    margin_seconds: int | None = Field(default=None, description="The trainer leaves so long before the end by itself.")
    reserved_by: StopReason | None = Field(
        default=None,
        description="The limit that set the reservation: why the attempt stops when it has used all of it.",
    )
    per_hour_usd: Money | None = Field(default=None, description="Of one pod, as reserved; absent: unknown.")
    stop_reason: StopReason | None = None
    outcome: AttemptOutcome | None = None
    cost_usd: Money | None = Field(default=None, description="Sum of closed charges; absent while none is closed.")
    pod_seconds: float | None = None
    run_seconds: float | None = Field(default=None, description="Wall time in which pods ran; what maxRuntime counts.")
    lost_seconds: float | None = None
    unknown_pods: int | None = Field(
        default=None, description="Pods of the closed attempt whose price nobody knew; costUSD is without them."
    )
    by_category: dict[str, Money] | None = Field(
        default=None, description="costUSD by ledger category, once the attempt is closed."
    )
    first_step_time: Timestamp | None = Field(
        default=None, description="When progress was first seen; startup ends here."
    )
    limit_usd: Money | None = Field(
        default=None,
        description="The cost limit in force at the reservation or, if a limit stopped the attempt, at the stop.",
    )
    limit_seconds: int | None = Field(default=None, description="The runtime limit in force, as limitUSD.")
    pods: list[PodCharge] | None = None
    failure: Failure | None = None


class EvaluationState(StrEnum):
    """Of status.evaluation."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class MetricStatus(Observed):
    """A metric with its bounds at the confidence that the evaluation used."""

    name: str
    value: float
    lower: float | None = None
    upper: float | None = None
    confidence: float
    samples: int
    advisory: str | None = Field(default=None, description="Why no gate may rest on it; absent when one may.")


class EvaluationStatus(Observed):
    """The operator's own copy of the evidence's summary; the only thing that verdicts are made from."""

    state: EvaluationState
    message: str = ""
    evidence_path: str | None = None
    evidence_digest: str | None = None
    model_digest: str | None = None
    baseline_digest: str | None = Field(
        default=None, description="The model that `<metric>_delta` compares with, on the same prompts."
    )
    manifest_digest: str | None = None
    suite_digest: str | None = None
    dataset_digest: str | None = None
    evaluated_at: Timestamp | None = None
    metrics: list[MetricStatus] = Field(default_factory=list)
    left_out: int | None = Field(
        default=None,
        description="Metrics that had no room in the evaluation's last words; they stand in the evidence alone. Those "
        "that the policy asks for have room first.",
    )


class CheckStatus(Observed):
    """One check of one stage."""

    metric: str
    op: str
    threshold: float
    bound: str
    value: float | None = None
    bound_value: float | None = None
    samples: int | None = None
    verdict: Literal["Passed", "Failed", "Inconclusive"]
    reason: str = ""


class GateStatus(Observed):
    """One stage's verdict and what it was made from."""

    stage: str
    verdict: Literal["Passed", "Failed", "Inconclusive"]
    policy_digest: str
    evidence_digest: str | None = None
    reason: str = ""
    checks: list[CheckStatus] = Field(default_factory=list)


class TrainingRunStatus(Observed):
    """Written by the operator only."""

    observed_generation: int | None = None
    manifest_digest: str | None = None
    phase: Phase | None = None
    message: str = Field(default="", description="What is happening, since when, and what to do about it, if anything.")
    start_time: Timestamp | None = None
    completion_time: Timestamp | None = None
    attempt: int = 0
    progress: Progress | None = None
    cost: Cost | None = None
    checkpoint: CheckpointStatus | None = None
    model: ModelStatus | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    folded_attempts: int = Field(
        default=0, description="Older attempts that were folded away; their cost is in cost.spentUSD."
    )
    folded_cost_usd: Money = 0
    folded_run_seconds: float = 0
    folded_by_category: dict[str, Money] = Field(default_factory=dict)
    folded_unknown_pods: int = 0
    folded_counts: dict[str, int] = Field(
        default_factory=dict, description="Folded attempts by what the restart rules count."
    )
    evaluation: EvaluationStatus | None = None
    gates: list[GateStatus] = Field(default_factory=list)
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Accepted, PriceKnown, Admitted, Running, WithinBudget, Progressing, Evaluated; of the ends "
        "Complete, Failed, Stopped; and Finished, which is True at every end, with Succeeded, Failed or the limit "
        "(BudgetExceeded, RuntimeExceeded) as reason, and False while the run is under way: "
        "`kubectl wait --for=condition=Finished trainingrun/NAME`.",
    )
