"""The loopback shape: a control plane that can be trusted by every other integration test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tollgate_local import processes
from tollgate_local.cluster import Cluster, LoopbackShape, down, leftovers_of, status, up
from tollgate_local.testing import audit_counts, eventually

pytestmark = pytest.mark.integration


def job(name: str, annotations: dict[str, str] | None = None) -> dict[str, object]:
    container = {"name": "main", "image": "any.test/image:1"}
    return {
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {"annotations": annotations or {}},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            },
        },
    }


def conditions(cluster: Cluster, namespace: str, name: str) -> dict[str, str]:
    found = cluster.api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
    return {c["type"]: c["status"] for c in found["status"].get("conditions", [])}


def only_pod(cluster: Cluster, namespace: str) -> Any:
    items = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return items[0] if items else None


def test_a_job_completes_on_a_fake_node(cluster: Cluster, namespace: str) -> None:
    cluster.api.create(f"/apis/batch/v1/namespaces/{namespace}/jobs", job("quick"))
    eventually(lambda: conditions(cluster, namespace, "quick").get("Complete") == "True", 60, "the Job is complete")


def test_a_second_up_answers_with_what_runs(cluster: Cluster) -> None:
    before = {name: record.pid for name, record in processes.read_records(cluster.state).items()}
    again = up(cluster.settings)
    assert again.server == cluster.server
    assert {name: record.pid for name, record in processes.read_records(cluster.state).items()} == before


def test_the_api_server_can_be_stopped_and_started(cluster: Cluster, namespace: str) -> None:
    cluster.stop_server("kube-apiserver")
    assert not cluster.api.ready()
    assert not status(cluster.settings).running
    cluster.start_server("kube-apiserver")
    assert cluster.api.ready()
    assert cluster.api.get(f"/api/v1/namespaces/{namespace}")["metadata"]["name"] == namespace


def test_the_audit_log_counts_what_a_user_wrote(cluster: Cluster, namespace: str) -> None:
    before = audit_counts(cluster.audit_log, "admin").get(("create", "configmaps"), 0)
    for number in range(3):
        body = {"metadata": {"name": f"c{number}"}}
        cluster.api.create(f"/api/v1/namespaces/{namespace}/configmaps", body)
    assert audit_counts(cluster.audit_log, "admin")["create", "configmaps"] == before + 3


@pytest.fixture
def scripted(cluster: Cluster) -> Iterator[Cluster]:
    cluster.set_stages("scripted")
    yield cluster
    cluster.set_stages("fast")


def test_a_scripted_pod_ends_as_its_annotation_says(scripted: Cluster, namespace: str) -> None:
    notes = {"kwok.tollgate.dev/exit-code": "64", "kwok.tollgate.dev/message": '{"reason": "BadManifest"}'}
    scripted.api.create(f"/apis/batch/v1/namespaces/{namespace}/jobs", job("wrong", notes))
    eventually(lambda: conditions(scripted, namespace, "wrong").get("Failed") == "True", 60, "the Job failed")
    pod = only_pod(scripted, namespace)
    assert pod is not None
    assert pod["status"]["phase"] == "Failed"
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (64, '{"reason": "BadManifest"}')


def test_a_scripted_pod_that_is_deleted_ends_and_goes(scripted: Cluster, namespace: str) -> None:
    scripted.api.create(f"/apis/batch/v1/namespaces/{namespace}/jobs", job("long"))

    def running() -> bool:
        pod = only_pod(scripted, namespace)
        return pod is not None and pod["status"].get("phase") == "Running"

    eventually(running, 60, "the pod runs")
    scripted.api.delete(f"/apis/batch/v1/namespaces/{namespace}/jobs/long?propagationPolicy=Foreground")
    eventually(lambda: only_pod(scripted, namespace) is None, 60, "the pod is gone")


def test_without_pod_stages_the_test_writes_the_status(cluster: Cluster, namespace: str) -> None:
    cluster.set_stages("none")
    try:
        cluster.api.create(f"/apis/batch/v1/namespaces/{namespace}/jobs", job("mine"))
        pod = eventually(
            lambda: (p := only_pod(cluster, namespace)) and p["spec"].get("nodeName") and p, 60, "the pod is bound"
        )
        path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}"
        cluster.api.merge(f"{path}/status", {"status": {"phase": "Succeeded"}})
        eventually(lambda: conditions(cluster, namespace, "mine").get("Complete") == "True", 60, "the Job is complete")
    finally:
        cluster.set_stages("fast")


def test_down_leaves_nothing_and_what_was_there_comes_back(tmp_path: Path) -> None:
    settings = LoopbackShape(state=tmp_path / "other", nodes=1)
    first = up(settings)  # beside the session's cluster: other ports, other folder
    first.api.create("/api/v1/namespaces", {"metadata": {"name": "kept"}})
    assert down(settings)
    assert leftovers_of(settings) == []
    assert not status(settings).running
    second = up(settings)
    assert second.api.get("/api/v1/namespaces/kept")["metadata"]["name"] == "kept"
    assert down(settings, purge=True)
    assert not settings.state.exists()
    assert leftovers_of(settings) == []


def test_what_a_killed_up_left_is_cleaned_by_the_next(tmp_path: Path) -> None:
    settings = LoopbackShape(state=tmp_path / "killed", nodes=1)
    up(settings)
    # as if `up` had been killed between starting a server and writing it down
    orphan = processes.read_records(settings.state)["etcd"]
    (settings.state / "run/etcd.json").unlink()
    os.kill(processes.read_records(settings.state)["kube-scheduler"].pid, 9)
    again = up(settings)
    assert again.api.ready()
    assert not processes.alive(orphan)
    assert down(settings, purge=True)
    assert leftovers_of(settings) == []
