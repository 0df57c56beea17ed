"""From an order to the Job that carries it out: plain dicts, pure. Nothing rendered is ever compared with the cluster.

Kueue and admission plug-ins change Jobs; what counts is what was asked for when the Job was created.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tollgate.api.compute_profile import ComputeProfileSpec
from tollgate.api.training_run import Storage
from tollgate.contract import (
    ANNOTATION_GRACE_SECONDS,
    ANNOTATION_MANIFEST,
    ANNOTATION_RESERVED_SECONDS,
    API_VERSION,
    CONTAINER,
    LABEL_ATTEMPT,
    LABEL_OUTPUT,
    LABEL_QUEUE,
    LABEL_RENDEZVOUS,
    LABEL_ROLE,
    LABEL_RUN,
    LABEL_RUN_UID,
    RENDEZVOUS_SERVICE,
    ExitCode,
    Role,
)
from tollgate.limits.stop import Reservation
from tollgate_operator.facts import JOB_INDEX
from tollgate_operator.runs.names import job_name, output_label
from tollgate_operator.runs.render_container import container
from tollgate_operator.runs.render_volumes import volumes

LABEL_MAX_EXEC: Final = "kueue.x-k8s.io/max-exec-time-seconds"
NODE_LOSS_SECONDS: Final = 60
"""How long a pod stays on a node that does not answer."""


@dataclass(frozen=True, slots=True)
class Order:
    """One attempt, decided: everything that its Job is made from.

    `processes`: per pod, one for each GPU, or one. `manifest`: the canonical JSON. `suites`, `confidence`,
    `gated` (what its policy looks at), `model_digest` and `baseline` (the folder of the run to compare with,
    below the output claim) are of an evaluation.
    `per_hour_usd`: micro-USD of a node's hour, for the plan that the trainer writes; None is unknown.
    """

    namespace: str
    run: str
    uid: str
    role: Role
    number: int
    manifest: str
    manifest_digest: str
    storage: Storage
    profile: ComputeProfileSpec
    nodes: int
    gpus: int
    processes: int
    reservation: Reservation
    scheduling_timeout: int
    queue: str | None = None
    take_over: bool = False
    fresh: bool = False
    replans: int = 0
    suites: tuple[str, ...] = ()
    confidence: float | None = None
    gated: tuple[str, ...] = ()
    model_digest: str | None = None
    baseline: str | None = None
    per_hour_usd: int | None = None

    @property
    def name(self) -> str:
        """Of the Job."""
        return job_name(self.run, self.uid, self.role, self.number)


def job(order: Order) -> dict[str, Any]:
    """The Job of an attempt: one pod per node, no second try, the reason of a failure kept in its own conditions."""
    labels = _labels(order)
    reservation = order.reservation
    annotations = {ANNOTATION_GRACE_SECONDS: str(reservation.grace_seconds)}
    if reservation.seconds is not None:
        annotations[ANNOTATION_RESERVED_SECONDS] = str(reservation.seconds)
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": order.nodes,
        "parallelism": order.nodes,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _failure_rules()},
        "template": {
            "metadata": {"labels": _pod_labels(order, labels), "annotations": {ANNOTATION_MANIFEST: order.manifest}},
            "spec": _pod(order),
        },
    }
    if (deadline := reservation.job_deadline_seconds(order.scheduling_timeout)) is not None:
        spec["activeDeadlineSeconds"] = deadline
    job_labels = dict(labels)
    if order.queue is not None:
        job_labels[LABEL_QUEUE] = order.queue
        spec["suspend"] = True  # Kueue starts it; until then nothing is paid
        if reservation.seconds is not None:
            job_labels[LABEL_MAX_EXEC] = str(reservation.seconds)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": order.name,
            "namespace": order.namespace,
            "labels": job_labels,
            "annotations": annotations,
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "TrainingRun",
                    "name": order.run,
                    "uid": order.uid,
                    "controller": True,
                    # True would ask for rights on trainingruns/finalizers where that admission plug-in is on
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": spec,
    }


def rendezvous_service(namespace: str) -> dict[str, Any]:
    """The headless Service by which the pods of every multi-node gang of a namespace find their rank 0."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": RENDEZVOUS_SERVICE, "namespace": namespace},
        "spec": {
            "clusterIP": "None",
            "selector": {LABEL_RENDEZVOUS: "true", JOB_INDEX: "0"},
            # rank 0 must be found before it is ready, for its peers are what it waits for
            "publishNotReadyAddresses": True,
        },
    }


def _labels(order: Order) -> dict[str, str]:
    return {
        LABEL_RUN: order.run,
        LABEL_RUN_UID: order.uid,
        LABEL_ATTEMPT: str(order.number),
        LABEL_ROLE: order.role.value,
        LABEL_OUTPUT: output_label(order.storage.output),
    }


def _pod_labels(order: Order, labels: dict[str, str]) -> dict[str, str]:
    return {**labels, LABEL_RENDEZVOUS: "true"} if order.nodes > 1 else labels


def _failure_rules() -> list[dict[str, Any]]:
    # Both end the Job at once and leave class, pod and exit code in its conditions, also when no operator sees it.
    return [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": CONTAINER,
                "operator": "In",
                "values": [int(ExitCode.USER), int(ExitCode.STOPPED)],
            },
        },
    ]


def _pod(order: Order) -> dict[str, Any]:
    profile, reservation = order.profile, order.reservation
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": reservation.grace_seconds,
        "securityContext": _security(profile),
        "tolerations": _tolerations(profile),
        "containers": [container(order)],
        "volumes": volumes(order),
    }
    if reservation.pod_deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = max(reservation.pod_deadline_seconds, 1)
    if profile.node_selector:
        spec["nodeSelector"] = dict(profile.node_selector)
    if profile.priority_class_name:
        spec["priorityClassName"] = profile.priority_class_name
    if profile.runtime_class_name:
        spec["runtimeClassName"] = profile.runtime_class_name
    if order.nodes > 1:
        spec["subdomain"] = RENDEZVOUS_SERVICE
    return spec


def _security(profile: ComputeProfileSpec) -> dict[str, Any]:
    security = profile.security
    context: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": security.uid,
        "runAsGroup": security.gid,
        "fsGroup": security.gid,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if security.supplemental_groups:
        context["supplementalGroups"] = list(security.supplemental_groups)
    return context


def _tolerations(profile: ComputeProfileSpec) -> list[dict[str, Any]]:
    lost = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOSS_SECONDS}
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    ]
    return [t.model_dump(mode="json", by_alias=True, exclude_none=True) for t in profile.tolerations] + lost
