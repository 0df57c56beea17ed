"""The status of a TrainingRun: what its operator observed, decided and booked."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from tollgate.api.meta import GENERATION, Condition, Observed, Timestamp
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

    step: int = Field(default=0, description="Optimizer steps that are done.")
    total_steps: int | None = Field(default=None, description="Of the whole run; absent while unknown.")
    epoch: float | None = Field(
        default=None, description="Passes over the training data, with the part of the one under way."
    )
    loss: float | None = Field(default=None, description="Training loss as logged last.")
    tokens_per_second: float | None = Field(default=None, description="Real tokens of all ranks, without padding.")
    updated_at: Timestamp | None = Field(default=None, description="When rank 0 said so.")
    estimated_completion: Timestamp | None = Field(
        default=None, description="When training will be done at its pace; absent while nothing trains."
    )


class Forecast(Observed):
    """Where spend is heading."""

    p50: Money | None = Field(default=None, description="As likely more as less; over all attempts.")
    p90: Money | None = Field(default=None, description="More than this in one of ten cases.")


class Price(Observed):
    """Price of one node's hour for this run's share of it."""

    per_node_hour_usd: Money = Field(description="Of the share of a node that one pod takes.")
    source: Literal["profile", "node", "priceBook", "ceiling", "unknown"] = Field(
        description="Who named it: the profile, the node's annotation, the price book, the ceiling, or nobody."
    )
    as_of: Timestamp = Field(description="When it was looked up.")


class Cost(Observed):
    """Money, as allocated node time x price."""

    spent_usd: Money = Field(default=0, description="By all attempts, the one under way up to updatedAt.")
    spent: str | None = Field(
        default=None,
        description="spentUSD as the column shows it: rounded up to cents, below one cent to two digits; `>` before it "
        "when pods without a price are not in it, `unknown` when none has one.",
    )
    reserved_usd: Money | None = Field(
        default=None,
        description="The most that the attempts under way can cost; admitted because it is left of the limit.",
    )
    evaluation_reserve_usd: Money | None = Field(
        default=None, description="What training leaves of the limit, so that the model can be evaluated."
    )
    rate_per_hour_usd: Money | None = Field(default=None, description="Of all pods that are bound now.")
    limit_usd: Money | None = Field(
        default=None, description="In force: spec.limits.maxCostUSD, or the manifest's resources.max_budget_usd."
    )
    forecast_usd: Forecast | None = Field(
        default=None, description="What the run will have cost at its end; absent while nothing trains."
    )
    exhausted_at: Timestamp | None = Field(
        default=None,
        description="When the pods that are bound now meet the nearer limit; the stop begins a grace earlier.",
    )
    price: Price | None = Field(default=None, description="What pods that start now are charged.")
    updated_at: Timestamp | None = Field(default=None, description="When this was counted.")
    by_category: dict[str, Money] | None = Field(default=None, description="startup, productive, lost, evaluation")
    notified: list[float] | None = Field(default=None, description="Shares of spec.limits.notifyAt that were told.")


class CheckpointStatus(Observed):
    """The newest committed checkpoint that anybody reported."""

    step: int = Field(description="Optimizer step at which a resumed run goes on.")
    path: str = Field(description="Relative to the output folder, or a URI where checkpoints lie in a store.")
    digest: str = Field(description="Of its files.")
    saved_at: Timestamp = Field(description="When it was committed.")


class ModelStatus(Observed):
    """The finished model; path relative to the output folder."""

    path: str = Field(description="Relative to the output folder.")
    digest: str = Field(description="Of its files; evidence and promotion name it.")


class PodCharge(Observed):
    """One pod's share of the ledger; with an `end` it is never recomputed. Folded when its attempt is closed."""

    uid: str = Field(description="Of the pod.")
    name: str = Field(description="Of the pod.")
    node: str | None = Field(default=None, description="Where it was bound.")
    index: int = Field(default=0, description="Its number in the gang, from 0.")
    start: Timestamp | None = Field(default=None, description="PodScheduled; absent: never bound, costs nothing.")
    end: Timestamp | None = Field(default=None, description="When its last container ended, or it was gone.")
    per_hour_usd: Money | None = Field(default=None, description="Price of this pod's hour; absent: unknown.")
    charge_usd: Money | None = Field(
        default=None, description="Its time times its price; absent while it runs or without a price."
    )


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "Completed"
    STOPPED = "Stopped"
    FAILED = "Failed"
    LOST = "Lost"


class Failure(Observed):
    """The cause of an attempt's end: which class, where, and its last words."""

    class_: FailureClass = Field(alias="class", description="Who has to act, and whether another attempt helps.")
    reason: str = Field(description="In one word.")
    exit_code: int | None = Field(default=None, description="Of the trainer's container.")
    pod: str | None = Field(default=None, description="Who failed first.")
    node: str | None = Field(default=None, description="Where it ran.")
    rank: int | None = Field(default=None, description="Of the process in the gang.")
    message: str = Field(default="", max_length=4096, description="Its last words.")


class Attempt(Observed):
    """One Job of the run. Numbers count from 1; the intent (no jobUID yet) is written before the Job is made."""

    number: int = Field(ge=1, description="From 1; training and evaluations are counted apart.")
    role: Literal["train", "evaluate"] = Field(default="train", description="What its Job does.")
    job_uid: str | None = Field(default=None, description="Absent until the Job is made.")
    intent_time: Timestamp | None = Field(default=None, description="When the attempt was decided on.")
    start_time: Timestamp | None = Field(default=None, description="When its first pod was bound.")
    end_time: Timestamp | None = Field(default=None, description="When its last pod ended.")
    reserved_usd: Money | None = Field(default=None, description="The most that it can cost: pods x hours x price.")
    reserved_seconds: int | None = Field(default=None, description="Per pod, from binding to death.")
    grace_seconds: int | None = Field(default=None, description="Between SIGTERM and SIGKILL, within reservedSeconds.")
    margin_seconds: int | None = Field(default=None, description="The trainer leaves so long before the end by itself.")
    reserved_by: StopReason | None = Field(
        default=None,
        description="The limit that set the reservation: why the attempt stops when it has used all of it.",
    )
    per_hour_usd: Money | None = Field(default=None, description="Of one pod, as reserved; absent: unknown.")
    stop_reason: StopReason | None = Field(
        default=None, description="Why it was asked to stop; absent when nobody asked."
    )
    outcome: AttemptOutcome | None = Field(default=None, description="Absent while it is under way.")
    cost_usd: Money | None = Field(default=None, description="Sum of closed charges; absent while none is closed.")
    pod_seconds: float | None = Field(default=None, description="Sum over pods, from binding to end.")
    run_seconds: float | None = Field(default=None, description="Wall time in which pods ran; what maxRuntime counts.")
    lost_seconds: float | None = Field(
        default=None, description="Wall time after the newest checkpoint, of an attempt that did not complete."
    )
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
    pods: list[PodCharge] | None = Field(
        default=None, description="Its charges while it is open; folded when it is closed."
    )
    failure: Failure | None = Field(default=None, description="The cause, when it failed.")


class EvaluationState(StrEnum):
    """Of status.evaluation."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class MetricStatus(Observed):
    """A metric with its bounds at the confidence that the evaluation used."""

    name: str = Field(description="As checks of a policy name it.")
    value: float = Field(description="Of all samples.")
    lower: float | None = Field(default=None, description="One-sided bound; absent when it can't be told.")
    upper: float | None = Field(default=None, description="One-sided bound; absent when it can't be told.")
    confidence: float = Field(description="Of each bound by itself, such as 0.95.")
    samples: int = Field(description="How many it rests on.")
    advisory: str | None = Field(default=None, description="Why no gate may rest on it; absent when one may.")


class EvaluationStatus(Observed):
    """The operator's own copy of the evidence's summary; the only thing that verdicts are made from."""

    state: EvaluationState = Field(description="How far the evaluation is.")
    message: str = Field(default="", description="Why it failed or was skipped.")
    evidence_path: str | None = Field(default=None, description="Relative to the output folder.")
    evidence_digest: str | None = Field(default=None, description="Of the evidence's file; verdicts name it.")
    model_digest: str | None = Field(default=None, description="The model that was evaluated.")
    baseline_digest: str | None = Field(
        default=None, description="The model that `<metric>_delta` compares with, on the same prompts."
    )
    manifest_digest: str | None = Field(default=None, description="The manifest that it was trained from.")
    suite_digest: str | None = Field(default=None, description="What was measured and how.")
    dataset_digest: str | None = Field(default=None, description="What it was measured on.")
    evaluated_at: Timestamp | None = Field(
        default=None, description="When the evidence was written; maxAge counts from here."
    )
    metrics: list[MetricStatus] = Field(default_factory=list, description="With intervals.")
    left_out: int | None = Field(
        default=None,
        description="Metrics that had no room in the evaluation's last words; they stand in the evidence alone. Those "
        "that the policy asks for have room first.",
    )


class CheckStatus(Observed):
    """One check of one stage."""

    metric: str = Field(description="As in the policy.")
    op: str = Field(description="As in the policy.")
    threshold: float = Field(description="As in the policy.")
    bound: str = Field(description="Which end of the interval was compared.")
    value: float | None = Field(default=None, description="As measured; absent when it was not.")
    bound_value: float | None = Field(default=None, description="The end that was compared.")
    samples: int | None = Field(default=None, description="How many the value rests on.")
    verdict: Literal["Passed", "Failed", "Inconclusive"] = Field(description="Inconclusive is no pass.")
    reason: str = Field(default="", description="Why it did not pass.")


class GateStatus(Observed):
    """One stage's verdict and what it was made from."""

    stage: str = Field(description="Of the policy.")
    verdict: Literal["Passed", "Failed", "Inconclusive"] = Field(
        description="Passed only when each required check passed."
    )
    policy_digest: str = Field(description="The policy that judged.")
    evidence_digest: str | None = Field(
        default=None, description="The evidence that it judged; absent when there is none."
    )
    reason: str = Field(default="", description="What kept it from passing.")
    checks: list[CheckStatus] = Field(default_factory=list, description="In the policy's order.")


class TrainingRunStatus(Observed):
    """Written by the operator only."""

    observed_generation: int | None = Field(default=None, description=GENERATION)
    manifest_digest: str | None = Field(
        default=None, description="Of the manifest's canonical JSON; pods refuse another."
    )
    phase: Phase | None = Field(default=None, description="For people; scripts read conditions.")
    message: str = Field(default="", description="What is happening, since when, and what to do about it, if anything.")
    start_time: Timestamp | None = Field(default=None, description="When the first pod was bound.")
    completion_time: Timestamp | None = Field(default=None, description="When the run ended.")
    attempt: int = Field(default=0, description="Number of the newest training attempt.")
    progress: Progress | None = None
    cost: Cost | None = None
    checkpoint: CheckpointStatus | None = None
    model: ModelStatus | None = None
    attempts: list[Attempt] = Field(default_factory=list, description="The newest; older ones are folded.")
    folded_attempts: int = Field(
        default=0, description="Older attempts that were folded away; their cost is in cost.spentUSD."
    )
    folded_cost_usd: Money = Field(default=0, description="What they cost.")
    folded_run_seconds: float = Field(default=0, description="How long their pods ran; maxRuntime counts it.")
    folded_by_category: dict[str, Money] = Field(default_factory=dict, description="foldedCostUSD by ledger category.")
    folded_unknown_pods: int = Field(default=0, description="Their pods without a known price.")
    folded_counts: dict[str, int] = Field(
        default_factory=dict, description="Folded attempts by what the restart rules count."
    )
    evaluation: EvaluationStatus | None = None
    gates: list[GateStatus] = Field(default_factory=list, description="One verdict for each stage of the policy.")
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Accepted, PriceKnown, Admitted, Running, WithinBudget, Progressing, Evaluated; of the ends "
        "Complete, Failed, Stopped; and Finished, which is True at every end, with Succeeded, Failed or the limit "
        "(BudgetExceeded, RuntimeExceeded) as reason, and False while the run is under way: "
        "`kubectl wait --for=condition=Finished trainingrun/NAME`.",
    )
