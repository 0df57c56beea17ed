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
from tollgate.contract import ANNOTATION_PRICE
from tollgate.limits.forecast import StepSeen
from tollgate_operator.children import JOB_INDEX, JobCondition, JobFacts, PodFacts
from tollgate_operator.reading import instant, mapping, mappings, number, problem_text, strings, text
from tollgate_operator.runs.names import output_label

__all__ = [
    "JOB_INDEX",
    "ClaimFacts",
    "JobCondition",
    "JobFacts",
    "Key",
    "NodeFacts",
    "PodFacts",
    "PolicyFacts",
    "ProfileFacts",
    "ProgressFacts",
    "RunFacts",
]


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
