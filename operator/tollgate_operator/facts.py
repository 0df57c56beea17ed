"""What was observed: slim, frozen views of runs, Jobs, pods, nodes, profiles and policies.

A watch delivers whole objects; only these views are kept, so that ten thousand runs fit into memory. Every parser is
total: an odd object (a field of another type, a label that is no number) gives a view with that part unknown, never an
exception, because a watch handler that raises loses the event. A run whose spec or status cannot be read says so in
`spec_problem` or `status_problem`, and decide acts on that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from tollgate.api.compute_profile import ComputeProfileSpec
from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.api.training_run import KIND as TRAINING_RUN
from tollgate.api.training_run import TrainingRunSpec, TrainingRunStatus
from tollgate.contract import (
    ANNOTATION_GRACE_SECONDS,
    ANNOTATION_PRICE,
    ANNOTATION_RESERVED_SECONDS,
    ANNOTATION_STOP_REASON,
    CONTAINER,
    LABEL_ATTEMPT,
    LABEL_OUTPUT,
    LABEL_ROLE,
    LABEL_RUN,
    LABEL_RUN_UID,
    Role,
    StopReason,
)
from tollgate.limits.forecast import StepSeen
from tollgate_operator.reading import controller, instant, mapping, mappings, number, problem_text, strings, text
from tollgate_operator.runs.names import output_label

JOB_INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What a queue holds: one object that is to be reconciled. `namespace` is empty for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A TrainingRun. `spec` is None when it cannot be read, and `spec_problem` says why; so does `status_problem`.

    `output`: the same for all runs of a namespace that name one output folder (names.output_label).
    """

    key: Key
    uid: str
    generation: int
    resource_version: str
    created: datetime | None
    deleting: datetime | None
    labels: Mapping[str, str]
    spec: TrainingRunSpec | None
    status: TrainingRunStatus
    output: str = ""
    spec_problem: str = ""
    status_problem: str = ""

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> RunFacts:
        """The view of a TrainingRun as the API server sent it."""
        meta = mapping(body.get("metadata"))
        spec: TrainingRunSpec | None = None
        spec_problem = status_problem = ""
        status = TrainingRunStatus()
        try:
            spec = TrainingRunSpec.model_validate(mapping(body.get("spec")))
        except ValidationError as error:
            spec_problem = problem_text("spec", error)
        try:
            status = TrainingRunStatus.model_validate(mapping(body.get("status")))
        except ValidationError as error:
            status_problem = problem_text("status", error)
        return cls(
            key=Key(TRAINING_RUN, text(meta.get("namespace")), text(meta.get("name"))),
            uid=text(meta.get("uid")),
            generation=number(meta.get("generation")) or 0,
            resource_version=text(meta.get("resourceVersion")),
            created=instant(meta.get("creationTimestamp")),
            deleting=instant(meta.get("deletionTimestamp")),
            labels=strings(meta.get("labels")),
            spec=spec,
            status=status,
            output=output_label(spec.storage.output) if spec is not None else "",
            spec_problem=spec_problem,
            status_problem=status_problem,
        )


@dataclass(frozen=True, slots=True)
class JobCondition:
    """One condition of a Job that is True."""

    type: str
    reason: str
    message: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A Job of a run. Only conditions whose status is True are kept."""

    uid: str
    namespace: str
    name: str
    run: str
    run_uid: str
    attempt: int | None
    role: Role | None
    resource_version: str
    created: datetime | None
    suspend: bool
    start_time: datetime | None
    completion_time: datetime | None
    conditions: tuple[JobCondition, ...]
    stop_reason: StopReason | None
    reserved_seconds: int | None
    grace_seconds: int | None
    deleting: datetime | None
    active_deadline: int | None
    active: int
    terminating: int | None
    failed: int
    succeeded: int
    controller_uid: str

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> JobFacts:
        """The view of a batch/v1 Job."""
        meta, spec, status = mapping(body.get("metadata")), mapping(body.get("spec")), mapping(body.get("status"))
        labels, annotations = strings(meta.get("labels")), strings(meta.get("annotations"))
        return cls(
            uid=text(meta.get("uid")),
            namespace=text(meta.get("namespace")),
            name=text(meta.get("name")),
            run=labels.get(LABEL_RUN, ""),
            run_uid=labels.get(LABEL_RUN_UID, ""),
            attempt=number(labels.get(LABEL_ATTEMPT)),
            role=_role(labels.get(LABEL_ROLE)),
            resource_version=text(meta.get("resourceVersion")),
            created=instant(meta.get("creationTimestamp")),
            suspend=spec.get("suspend") is True,
            start_time=instant(status.get("startTime")),
            completion_time=instant(status.get("completionTime")),
            conditions=tuple(
                JobCondition(
                    text(c.get("type")),
                    text(c.get("reason")),
                    text(c.get("message")),
                    instant(c.get("lastTransitionTime")),
                )
                for c in mappings(status.get("conditions"))
                if c.get("status") == "True"
            ),
            stop_reason=_stop_reason(annotations.get(ANNOTATION_STOP_REASON)),
            reserved_seconds=number(annotations.get(ANNOTATION_RESERVED_SECONDS)),
            grace_seconds=number(annotations.get(ANNOTATION_GRACE_SECONDS)),
            deleting=instant(meta.get("deletionTimestamp")),
            active_deadline=number(spec.get("activeDeadlineSeconds")),
            active=number(status.get("active")) or 0,
            terminating=number(status.get("terminating")),
            failed=number(status.get("failed")) or 0,
            succeeded=number(status.get("succeeded")) or 0,
            controller_uid=controller(meta)[1],
        )

    def condition(self, kind: str) -> JobCondition | None:
        """The True condition of that type, or None."""
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def decided(self) -> JobCondition | None:
        """What settled the Job's outcome, when something did; its pods may still be terminating."""
        for kind in ("FailureTarget", "Failed", "SuccessCriteriaMet", "Complete"):
            if found := self.condition(kind):
                return found
        return None

    @property
    def finished(self) -> JobCondition | None:
        """`Failed` or `Complete`: proof that no pod of the Job lives any more, as far as the API server knows."""
        return self.condition("Failed") or self.condition("Complete")


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod of a run. `gone`: its DELETED event was seen; the view is its last state.

    `written_at`: the API server's own time of the last status write, which bounds what a node's wrong clock says.
    """

    uid: str
    namespace: str
    name: str
    run: str
    run_uid: str
    job_uid: str
    attempt: int | None
    role: Role | None
    index: int
    resource_version: str
    node: str
    phase: str
    ip: str
    reason: str
    message: str
    created: datetime | None
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    exit_code: int | None
    oom_killed: bool
    waiting_reason: str
    waiting_message: str
    unschedulable: str
    disruption_reason: str
    disruption_message: str
    disruption_at: datetime | None
    deleting_at: datetime | None
    deletion_grace: int | None
    last_words: str
    written_at: datetime | None = None
    output: str = ""
    gone: bool = False

    @classmethod
    def from_object(cls, body: Mapping[str, Any], *, gone: bool = False) -> PodFacts:
        """The view of a pod. `gone` for the object that a DELETED event carried."""
        meta, spec, status = mapping(body.get("metadata")), mapping(body.get("spec")), mapping(body.get("status"))
        labels, annotations = strings(meta.get("labels")), strings(meta.get("annotations"))
        conditions = {text(c.get("type")): c for c in mappings(status.get("conditions"))}
        container = next((c for c in mappings(status.get("containerStatuses")) if c.get("name") == CONTAINER), {})
        state = mapping(container.get("state"))
        terminated = mapping(state.get("terminated")) or mapping(mapping(container.get("lastState")).get("terminated"))
        waiting = mapping(state.get("waiting"))
        scheduled = conditions.get("PodScheduled", {})
        disruption = conditions.get("DisruptionTarget", {})
        disrupted = disruption.get("status") == "True"
        return cls(
            uid=text(meta.get("uid")),
            namespace=text(meta.get("namespace")),
            name=text(meta.get("name")),
            run=labels.get(LABEL_RUN, ""),
            run_uid=labels.get(LABEL_RUN_UID, ""),
            job_uid=controller(meta)[1],
            attempt=number(labels.get(LABEL_ATTEMPT)),
            role=_role(labels.get(LABEL_ROLE)),
            index=number(labels.get(JOB_INDEX, annotations.get(JOB_INDEX))) or 0,
            resource_version=text(meta.get("resourceVersion")),
            node=text(spec.get("nodeName")),
            phase=text(status.get("phase")),
            ip=text(status.get("podIP")),
            reason=text(status.get("reason")),
            message=text(status.get("message")),
            created=instant(meta.get("creationTimestamp")),
            scheduled_at=instant(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None,
            started_at=instant(mapping(state.get("running")).get("startedAt")) or instant(terminated.get("startedAt")),
            finished_at=instant(terminated.get("finishedAt")),
            exit_code=number(terminated.get("exitCode")),
            oom_killed=terminated.get("reason") == "OOMKilled",
            waiting_reason=text(waiting.get("reason")),
            waiting_message=text(waiting.get("message")),
            unschedulable=text(scheduled.get("message")) if scheduled.get("status") == "False" else "",
            disruption_reason=text(disruption.get("reason")) if disrupted else "",
            disruption_message=text(disruption.get("message")) if disrupted else "",
            disruption_at=instant(disruption.get("lastTransitionTime")) if disrupted else None,
            deleting_at=instant(meta.get("deletionTimestamp")),
            deletion_grace=number(meta.get("deletionGracePeriodSeconds")),
            last_words=text(terminated.get("message")),
            written_at=max(
                (
                    at
                    for entry in mappings(meta.get("managedFields"))
                    if entry.get("subresource") == "status" and (at := instant(entry.get("time")))
                ),
                default=None,
            ),
            output=labels.get(LABEL_OUTPUT, ""),
            gone=gone,
        )

    @property
    def disrupted(self) -> bool:
        """Somebody said that this pod has to go for no fault of its own."""
        return self.disruption_at is not None or bool(self.disruption_reason)

    @property
    def over(self) -> bool:
        """No process of it runs any more, as far as the API server knows."""
        return self.gone or self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class ProgressFacts:
    """What rank 0's /metrics said. `ok` False: the last scrape failed, and the values are those of the last good one.

    `seen`: what the forecast rests on, the newest last; at most a few dozen points of the present attempt.
    """

    scraped_at: datetime
    ok: bool
    error: str = ""
    pod_uid: str = ""
    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    last_progress: datetime | None = None
    checkpoint_step: int | None = None
    checkpoint_at: datetime | None = None
    goodput: Mapping[str, float] = field(default_factory=dict)
    seen: tuple[StepSeen, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node: what it costs and whether it answers. `price` is the annotation's text, unparsed."""

    name: str
    labels: Mapping[str, str]
    price: str | None
    ready: bool | None
    ready_since: datetime | None
    instance_type: str = ""

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> NodeFacts:
        """The view of a v1 Node. `ready_since`: when `ready` took its present value."""
        meta, status = mapping(body.get("metadata")), mapping(body.get("status"))
        labels = strings(meta.get("labels"))
        ready: Mapping[str, Any] = next((c for c in mappings(status.get("conditions")) if c.get("type") == "Ready"), {})
        return cls(
            name=text(meta.get("name")),
            labels=labels,
            price=strings(meta.get("annotations")).get(ANNOTATION_PRICE),
            ready=ready.get("status") == "True" if ready else None,
            ready_since=instant(ready.get("lastTransitionTime")),
            instance_type=labels.get("node.kubernetes.io/instance-type", ""),
        )


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """A ComputeProfile."""

    name: str
    generation: int
    spec: ComputeProfileSpec | None
    problem: str = ""

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> ProfileFacts:
        """The view of a ComputeProfile."""
        meta = mapping(body.get("metadata"))
        name, generation = text(meta.get("name")), number(meta.get("generation")) or 0
        try:
            return cls(name, generation, ComputeProfileSpec.model_validate(mapping(body.get("spec"))))
        except ValidationError as error:
            return cls(name, generation, None, problem_text("spec", error))


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """A PromotionPolicy's spec; what promotion/ makes of its status is not of interest to a run."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: PromotionPolicySpec | None
    problem: str = ""

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> PolicyFacts:
        """The view of a PromotionPolicy."""
        meta = mapping(body.get("metadata"))
        spec: PromotionPolicySpec | None = None
        problem = ""
        try:
            spec = PromotionPolicySpec.model_validate(mapping(body.get("spec")))
        except ValidationError as error:
            problem = problem_text("spec", error)
        return cls(
            text(meta.get("namespace")),
            text(meta.get("name")),
            text(meta.get("uid")),
            number(meta.get("generation")) or 0,
            spec,
            problem,
        )


@dataclass(frozen=True, slots=True)
class ClaimFacts:
    """A PersistentVolumeClaim, asked for live."""

    name: str
    access_modes: tuple[str, ...]
    phase: str

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> ClaimFacts:
        """The view of a PersistentVolumeClaim."""
        spec = mapping(body.get("spec"))
        modes = spec.get("accessModes")
        return cls(
            text(mapping(body.get("metadata")).get("name")),
            tuple(m for m in modes if isinstance(m, str)) if isinstance(modes, list) else (),
            text(mapping(body.get("status")).get("phase")),
        )


def _role(value: str | None) -> Role | None:
    return Role(value) if value in tuple(Role) else None


def _stop_reason(value: str | None) -> StopReason | None:
    return StopReason(value) if value in tuple(StopReason) else None
