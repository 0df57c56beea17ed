"""The trainer's container: command, environment, resources, mounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tollgate.api.quantities import format_usd
from tollgate.contract import (
    ALLOWED_EXTENSIONS,
    CODE_PATH,
    CONTAINER,
    DATASET_MOUNT,
    ENVIRONMENT_MOUNT,
    MANIFEST_FILE,
    MANIFEST_MOUNT,
    METRICS_PORT,
    OUTPUT_MOUNT,
    RENDEZVOUS_SERVICE,
    Env,
    Role,
)
from tollgate_operator.runs.names import folder_path, job_name, master_port
from tollgate_operator.runs.render_volumes import mounts

if TYPE_CHECKING:
    from tollgate_operator.runs.render import Order

JOB_COMPLETION_INDEX: Final = "JOB_COMPLETION_INDEX"  # the Job controller sets it in every container of an Indexed Job


def container(order: Order) -> dict[str, Any]:
    """The only container of the pod."""
    body: dict[str, Any] = {
        "name": CONTAINER,
        "image": order.profile.image,
        "imagePullPolicy": order.profile.image_pull_policy,
        "command": ["tollgate-launch", "--", *command(order)],
        "env": environment(order),
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "resources": resources(order),
        "volumeMounts": mounts(order),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if order.storage.credentials_secret is not None:
        body["envFrom"] = [{"secretRef": {"name": order.storage.credentials_secret.name}}]
    return body


def command(order: Order) -> list[str]:
    """What the launcher is the parent of. One node and one process use the same command as many."""
    if order.role is Role.EVALUATE:
        return ["python3", "-m", "tollgate_trainer", "evaluate"]
    host = "127.0.0.1"
    if order.nodes > 1:
        first = f"{job_name(order.run, order.uid, order.role, order.number)}-0"
        host = f"{first}.{RENDEZVOUS_SERVICE}.{order.namespace}.svc"
    return [
        "python3",
        "-m",
        "torch.distributed.run",
        f"--nnodes={order.nodes}",
        f"--node-rank=$({JOB_COMPLETION_INDEX})",
        f"--nproc-per-node={order.processes}",
        f"--master-addr={host}",
        f"--master-port={master_port(order.uid, order.number)}",
        "--max-restarts=0",
        # below the grace, so that torchrun has time to reap its workers and the launcher to write the last words
        f"--shutdown-timeout={shutdown_timeout(order.reservation.grace_seconds)}",
        "-m",
        "tollgate_trainer",
        "train",
    ]


def shutdown_timeout(grace: int) -> int:
    """Seconds that torchrun gives its workers after SIGTERM: three quarters of the grace, at least one."""
    return max(grace * 3 // 4, 1)


def environment(order: Order) -> list[dict[str, Any]]:
    """The profile's environment, then the contract's, which wins where both name a variable."""
    reservation = order.reservation
    ours: dict[str, str] = {
        "HOME": "/tmp",
        Env.RUN: order.run,
        Env.NAMESPACE: order.namespace,
        Env.UID: order.uid,
        Env.ATTEMPT: str(order.number),
        Env.ROLE: order.role.value,
        Env.MANIFEST: f"{MANIFEST_MOUNT}/{MANIFEST_FILE}",
        Env.MANIFEST_SHA256: order.manifest_digest,
        Env.DATASET_ROOT: below(DATASET_MOUNT, folder_path(order.storage.dataset)),
        Env.OUTPUT_ROOT: below(OUTPUT_MOUNT, folder_path(order.storage.output)),
        Env.GRACE_SECONDS: str(reservation.grace_seconds),
        Env.METRICS_PORT: str(METRICS_PORT),
        Env.TAKE_OVER: _flag(order.take_over),
        Env.FRESH: _flag(order.fresh),
        Env.REPLAN: str(order.replans),
        # Also when it is empty: a run's secret comes in as environment too, and may not allow itself what the admin did
        # not.
        ALLOWED_EXTENSIONS: order.profile.env.get(ALLOWED_EXTENSIONS, ""),
    }
    if reservation.stop_after_seconds is not None:
        ours[Env.STOP_AFTER_SECONDS] = str(reservation.stop_after_seconds)
    if reservation.reason is not None:
        ours[Env.STOP_REASON] = reservation.reason.value
    if reservation.margin_seconds:
        ours[Env.STOP_MARGIN_SECONDS] = str(reservation.margin_seconds)
    if order.per_hour_usd is not None:
        ours[Env.USD_PER_NODE_HOUR] = format_usd(order.per_hour_usd)
    if order.profile.environment is not None:
        ours["PYTHONPATH"] = f"{CODE_PATH}:{ENVIRONMENT_MOUNT}"
    if order.role is Role.EVALUATE:
        ours |= _judging(order)
    theirs = dict(order.profile.env)
    if order.nodes > 1:
        theirs |= order.profile.fabric.env
    fields = {
        Env.POD_IP: "status.podIP",
        Env.POD_NAME: "metadata.name",
        Env.NODE_NAME: "spec.nodeName",
    }
    return [
        *(
            {"name": name, "value": value}
            for name, value in sorted(theirs.items())
            if name not in ours and name not in {f.value for f in fields} and name != JOB_COMPLETION_INDEX
        ),
        *({"name": str(name), "value": value} for name, value in ours.items()),
        *({"name": name.value, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
    ]


def _judging(order: Order) -> dict[str, str]:
    """What only an evaluation is told."""
    ours: dict[str, str] = {Env.SUITES: ",".join(order.suites)}
    if order.confidence is not None:
        ours[Env.CONFIDENCE] = str(order.confidence)
    if order.gated:
        ours[Env.GATED] = ",".join(order.gated)
    if order.model_digest is not None:
        ours[Env.MODEL_DIGEST] = order.model_digest
    if order.baseline is not None:
        ours[Env.BASELINE] = below(OUTPUT_MOUNT, order.baseline)
    return ours


def resources(order: Order) -> dict[str, Any]:
    """Requests equal limits: what the run pays for is what it has, and it is the last to be evicted."""
    profile = order.profile
    amounts: dict[str, str] = {"cpu": str(profile.cpu), "memory": str(profile.memory)}
    if profile.resource is not None and order.gpus:
        amounts[profile.resource.name] = str(order.gpus)
    if profile.fabric.rdma_resource and order.nodes > 1:
        amounts[profile.fabric.rdma_resource] = "1"
    return {"requests": dict(amounts), "limits": dict(amounts)}


def below(mount: str, path: str) -> str:
    """The folder `path` below a mount."""
    return f"{mount}/{path}" if path else mount


def _flag(value: bool) -> str:
    return "true" if value else "false"
