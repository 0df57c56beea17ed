"""Rendered Jobs: golden files for the shapes that people run, and the rules that every one of them keeps."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tollgate.api.compute_profile import ComputeProfileSpec
from tollgate.api.training_run import Storage
from tollgate.contract import MAX_NAME, Role, StopReason
from tollgate.limits.stop import Reservation
from tollgate_operator.runs import render
from tollgate_operator.runs.names import folder_path, job_name, master_port, output_label
from tollgate_operator.runs.render import Order

GOLDEN = Path(__file__).parent / "golden"

STORAGE = Storage.model_validate(
    {
        "dataset": {"claimName": "datasets", "path": "care/v2"},
        "output": {"claimName": "models", "path": "counsel-lora"},
        "credentialsSecret": {"name": "s3-writer"},
    }
)
CPU = ComputeProfileSpec.model_validate(
    {"image": "registry.example/tollgate-trainer:0.1", "cpu": "2", "memory": "4Gi", "pricePerNodeHourUSD": "0.10"}
)
H100 = ComputeProfileSpec.model_validate(
    {
        "image": "registry.example/tollgate-trainer:0.1-gpu",
        "resource": {"name": "nvidia.com/gpu", "perNode": 8},
        "cpu": 96,
        "memory": "900Gi",
        "shmSize": "64Gi",
        "nodeSelector": {"node.kubernetes.io/instance-type": "p5.48xlarge"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "pricePerNodeHourUSD": "98.32",
        "fabric": {"rdmaResource": "vpc.amazonaws.com/efa", "env": {"NCCL_DEBUG": "WARN", "FI_PROVIDER": "efa"}},
        "security": {"uid": 1000, "gid": 1000, "supplementalGroups": [2000]},
        "priorityClassName": "training",
        "env": {"HF_HUB_OFFLINE": "1", "TOLLGATE_UID": "never"},
    }
)
L4 = ComputeProfileSpec.model_validate(
    {
        "image": "registry.example/tollgate-trainer:0.1-gpu",
        "resource": {"perNode": 1},
        "cpu": 8,
        "memory": "30Gi",
        "environment": {"claimName": "python", "path": "site-packages"},
    }
)
ONE = Order(
    namespace="research",
    run="counsel-lora",
    uid="0123abcd-4567-89ab-cdef-0123456789ab",
    role=Role.TRAIN,
    number=1,
    manifest='{"dataset":{"path":"train.jsonl"},"name":"counsel"}',
    manifest_digest="sha256:" + "0" * 64,
    storage=STORAGE,
    profile=CPU,
    nodes=1,
    gpus=0,
    processes=1,
    reservation=Reservation(3600, 100_000, StopReason.BUDGET, 120),
    scheduling_timeout=1800,
)
ORDERS = {
    "job-1-cpu": ONE,
    "job-1-h100": replace(ONE, profile=H100, gpus=1),
    "job-8-h100-2-nodes": replace(
        ONE,
        profile=H100,
        nodes=2,
        gpus=8,
        processes=8,
        number=3,
        queue="research",
        take_over=True,
        replans=1,
        reservation=Reservation(43_200, 2_359_680_000, StopReason.RUNTIME, 120, 1800),
        per_hour_usd=98_320_000,
    ),
    "job-evaluation": replace(
        ONE,
        role=Role.EVALUATE,
        profile=L4,
        gpus=1,
        suites=("standard", "care"),
        confidence=0.95,
        gated=("perplexity", "quality_score", "quality_score_delta"),
        model_digest="sha256:" + "a" * 64,
        baseline="older",
        reservation=Reservation(1800, 400_000, StopReason.EVALUATION_TIMEOUT, 120),
    ),
    "service-rendezvous": None,
}


def rendered(name: str) -> dict[str, Any]:
    order = ORDERS[name]
    return render.rendezvous_service("research") if order is None else render.job(order)


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_the_rendered_object_is_the_golden_one(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    text = yaml.safe_dump(rendered(name), sort_keys=False, width=120)
    if os.environ.get("TOLLGATE_WRITE_GOLDEN"):
        path.write_text(text)
    assert yaml.safe_load(path.read_text()) == rendered(name)


JOBS = [name for name, order in ORDERS.items() if order is not None]


@pytest.mark.parametrize("name", JOBS)
def test_every_pod_keeps_the_rules_of_the_restricted_profile(name: str) -> None:
    pod = rendered(name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    allowed = {
        "configMap",
        "downwardAPI",
        "emptyDir",
        "persistentVolumeClaim",
        "projected",
        "secret",
        "csi",
        "ephemeral",
    }
    assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])
    (container,) = pod["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in container["securityContext"]
    assert all("hostPort" not in port for port in container["ports"])


@pytest.mark.parametrize("name", JOBS)
def test_the_volumes_and_mounts_fit_together(name: str) -> None:
    pod = rendered(name)["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounts = pod["containers"][0]["volumeMounts"]
    assert {mount["name"] for mount in mounts} == volumes
    assert len({mount["mountPath"] for mount in mounts}) == len(mounts)


@pytest.mark.parametrize("name", JOBS)
def test_no_variable_is_named_twice_and_the_contract_wins_over_the_profile(name: str) -> None:
    env = rendered(name)["spec"]["template"]["spec"]["containers"][0]["env"]
    names = [variable["name"] for variable in env]
    assert len(names) == len(set(names))
    assert next(v["value"] for v in env if v["name"] == "TOLLGATE_UID") == ONE.uid


def test_the_layers_of_the_cap_stand_one_behind_the_other() -> None:
    job = rendered("job-1-cpu")
    pod = job["spec"]["template"]["spec"]
    env = {v["name"]: v.get("value") for v in pod["containers"][0]["env"]}
    assert env["TOLLGATE_STOP_AFTER_SECONDS"] == "3600"
    assert pod["activeDeadlineSeconds"] == 3600 - 120
    assert pod["terminationGracePeriodSeconds"] == 120
    assert job["spec"]["activeDeadlineSeconds"] == 3600 + 1800 + 120


def test_an_unlimited_attempt_has_no_deadline_at_all() -> None:
    job = render.job(replace(ONE, reservation=Reservation(None, None, None, 120)))
    assert "activeDeadlineSeconds" not in job["spec"]
    assert "activeDeadlineSeconds" not in job["spec"]["template"]["spec"]
    names = [v["name"] for v in job["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert "TOLLGATE_STOP_AFTER_SECONDS" not in names


def test_one_claim_for_data_and_models_is_one_volume() -> None:
    same = STORAGE.model_copy(update={"dataset": STORAGE.output})
    pod = render.job(replace(ONE, storage=same))["spec"]["template"]["spec"]
    claims = [v for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert len(claims) == 1
    assert "readOnly" not in claims[0]["persistentVolumeClaim"]
    reads = next(m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == "/data")
    assert reads["readOnly"] is True


def test_the_evaluation_can_write_only_its_evidence_and_its_report() -> None:
    mounts = rendered("job-evaluation")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    writable = {m["mountPath"] for m in mounts if not m.get("readOnly") and m["name"] not in ("tmp", "shm")}
    assert writable == {"/output/counsel-lora/evaluation", "/output/counsel-lora/report"}


def test_names_fit_into_host_names_for_the_longest_run_and_the_largest_gang() -> None:
    for role in Role:
        name = job_name("r" * MAX_NAME, ONE.uid, role, 1100)
        assert len(f"{name}-1023") <= 63
    assert job_name("a", ONE.uid, Role.TRAIN, 1) != job_name("a", ONE.uid, Role.EVALUATE, 1)


def test_ports_stay_clear_of_node_ports_and_ephemeral_ports() -> None:
    ports = {master_port(f"{n:08x}", attempt) for n in range(500) for attempt in range(3)}
    assert min(ports) >= 10_000
    assert max(ports) < 30_000
    assert len(ports) > 1000


@pytest.mark.parametrize("path", ["counsel-lora", "/counsel-lora", "counsel-lora/", "./counsel-lora", "a/../b"])
def test_all_spellings_of_one_folder_have_one_label(path: str) -> None:
    spelled = STORAGE.output.model_copy(update={"path": path})
    same = folder_path(spelled) == "counsel-lora"
    assert (output_label(spelled) == output_label(STORAGE.output)) is same
