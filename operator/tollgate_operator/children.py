"""What was observed of a run's children: its Jobs and their pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tollgate.contract import (
    ANNOTATION_GRACE_SECONDS,
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
from tollgate_operator.reading import controller, instant, mapping, mappings, number, strings, text

JOB_INDEX = "batch.kubernetes.io/job-completion-index"


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


def _role(value: str | None) -> Role | None:
    return Role(value) if value in tuple(Role) else None


def _stop_reason(value: str | None) -> StopReason | None:
    return StopReason(value) if value in tuple(StopReason) else None
