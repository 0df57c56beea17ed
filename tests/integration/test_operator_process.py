"""The operator as a process, with the chart's rights, on the real API server: it leads alone, stays quiet, survives."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import installed
import pytest
import yaml
from installed import LEASE, SYSTEM, USER, Asking, Process

from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.contract import API_VERSION, LABEL_PROMOTE_TO, LABEL_RUN
from tollgate.gates.evidence import policy_digest
from tollgate_local.cluster import Cluster, LoopbackShape, down, up
from tollgate_local.testing import eventually

pytestmark = pytest.mark.integration

QUICK = ("--lease-duration=4", "--lease-deadline=3", "--lease-retry=0.5")

Start = Callable[..., Process]


@pytest.fixture(scope="module")
def chart(cluster: Cluster) -> Iterator[Cluster]:
    installed.install(cluster)
    yield cluster
    installed.remove_admission(cluster)


@pytest.fixture
def start(chart: Cluster, tmp_path: Path) -> Iterator[Start]:
    """Starts operators; whatever is left of them at the end is killed, and the Lease goes."""
    # The test before may have restarted the API server.
    token = eventually(lambda: installed.token(chart), 60, "a token from an API server that may just have come back")
    config = installed.kubeconfig(chart, tmp_path, token)
    started: list[Process] = []

    def begin(*arguments: str, identity: str = "operator-0") -> Process:
        process = Process(tmp_path, config, arguments, identity).start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
    chart.api.delete(LEASE)


def policy(namespace: str, name: str = "care", **spec: Any) -> dict[str, Any]:
    stages = [{"name": "staging", "checks": [{"metric": "perplexity", "op": "<", "threshold": 20}]}]
    return {
        "apiVersion": API_VERSION,
        "kind": "PromotionPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"stages": stages, **spec},
    }


def policies(namespace: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{namespace}/promotionpolicies"


def condition(body: dict[str, Any], kind: str) -> dict[str, Any]:
    found = [c for c in body.get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def accepted(cluster: Cluster, namespace: str, name: str = "care", seconds: float = 30) -> dict[str, Any]:
    """Waits until the operator has said something about the policy: the proof that it is at work."""

    def answered() -> dict[str, Any]:
        return condition(cluster.api.get(f"{policies(namespace)}/{name}"), "Accepted")

    return eventually(answered, seconds, f"policy {name} is answered")


def holder(cluster: Cluster) -> str:
    return str((installed.there(cluster, LEASE) or {"spec": {}})["spec"].get("holderIdentity", ""))


def test_an_idle_operator_writes_nothing_but_its_lease(chart: Cluster, start: Start, namespace: str) -> None:
    runs = f"/apis/{API_VERSION}/trainingruns"
    eventually(lambda: not chart.api.get(runs)["items"], 400, "the runs of earlier tests went with their namespaces")
    chart.api.create(policies(namespace), policy(namespace))
    process = start("--resync=10").ready()
    accepted(chart, namespace)
    time.sleep(1)  # what the status write itself set off
    since = installed.last_audit(chart.audit_log)
    listings = process.metric("tollgate_api_requests_total")
    eventually(
        lambda: (
            process.metric("tollgate_reconcile_total") >= 4
            and process.metric("tollgate_api_requests_total") > listings + 12
        ),
        60,
        "two full listings went by",
    )
    assert set(installed.writes(chart.audit_log, USER, since)) == {("update", "leases")}
    assert process.metric("tollgate_watch_errors_total") == 0
    assert process.page("/healthz") == (200, "ok\n")
    for resource in ("pods", "jobs"):
        assert watched(chart.audit_log, resource) == {LABEL_RUN}, "the server filters by label"


def watched(log: Path, resource: str) -> set[str]:
    """The label selectors of the operator's watches of a resource."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return {
        urllib.parse.parse_qs(urllib.parse.urlsplit(event["requestURI"]).query).get("labelSelector", [""])[0]
        for event in events
        if event["verb"] == "watch"
        and event["user"].get("username") == USER
        and event["objectRef"]["resource"] == resource
    }


def test_sigterm_ends_it_in_time_and_hands_the_lease_to_the_next(chart: Cluster, start: Start, namespace: str) -> None:
    first = start(identity="first").ready()
    second = start(identity="second")
    eventually(lambda: second.page("/healthz")[0] == 200, 30, "the second one is up")
    assert second.page("/readyz") == (503, "another process holds the lease\nthe first listing is not through\n")
    assert second.metric("tollgate_leader") == 0
    assert holder(chart) == "first"
    assert first.stop(15) == 0
    second.ready(20)  # less than the lease's duration: it was released
    assert holder(chart) == "second"
    assert second.metric("tollgate_leader") == 1
    chart.api.create(policies(namespace), policy(namespace))
    accepted(chart, namespace)


def test_a_killed_operator_is_followed_by_the_next_when_its_lease_has_run_out(
    chart: Cluster, start: Start, namespace: str
) -> None:
    first = start(*QUICK, identity="first").ready()
    second = start(*QUICK, identity="second")
    eventually(lambda: second.page("/healthz")[0] == 200, 30, "the second one is up")
    first.kill()
    second.ready(30)
    assert holder(chart) == "second"
    assert installed.there(chart, LEASE)["spec"]["leaseTransitions"] == 1  # type: ignore[index]
    chart.api.create(policies(namespace), policy(namespace))
    accepted(chart, namespace)


def test_a_restarted_container_takes_up_its_own_lease(chart: Cluster, start: Start) -> None:
    start(identity="pod-a").ready().kill()
    start(identity="pod-a").ready(20)  # the lease would last longer than that


def test_who_loses_the_lease_stops(chart: Cluster, start: Start) -> None:
    process = start(*QUICK).ready()
    eventually(
        lambda: chart.api.merge(LEASE, {"spec": {"holderIdentity": "thief"}}), 10, "somebody else took the lease"
    )
    assert process.ended(15) == 1
    assert "is held by thief now" in process.log.read_text()
    assert holder(chart) == "thief"


def test_a_short_outage_of_the_api_server_is_survived(chart: Cluster, start: Start, namespace: str) -> None:
    process = start().ready()
    chart.stop_server("kube-apiserver")
    time.sleep(3)
    chart.start_server("kube-apiserver")
    chart.api.create(policies(namespace), policy(namespace))
    accepted(chart, namespace, seconds=60)
    assert process.running is not None
    assert process.running.poll() is None
    assert process.page("/healthz") == (200, "ok\n")


def test_a_long_outage_ends_it_and_its_next_start_waits_for_the_api_server(
    chart: Cluster, start: Start, namespace: str
) -> None:
    process = start(*QUICK).ready()
    chart.stop_server("kube-apiserver")
    try:
        assert process.ended(30) == 1
        assert "was not renewed" in process.log.read_text()
        again = start(*QUICK, identity="operator-1")
        eventually(lambda: again.page("/healthz")[0] == 200, 30, "it waits, and does not crash")
    finally:
        chart.start_server("kube-apiserver")
    again.ready()
    chart.api.create(policies(namespace), policy(namespace))
    accepted(chart, namespace)


def test_a_token_that_was_replaced_on_disk_is_taken_up(
    chart: Cluster, start: Start, tmp_path: Path, namespace: str
) -> None:
    secret = chart.api.create(f"/api/v1/namespaces/{SYSTEM}/secrets", {"metadata": {"generateName": "bound-"}})
    bound = {"name": secret["metadata"]["name"], "uid": secret["metadata"]["uid"]}
    process = start(*QUICK)  # the fixture's token; the kubeconfig's file is replaced before it is used again
    process.ready()
    (tmp_path / "token").write_text(installed.token(chart, bound_to=bound))
    process.stop()
    process = start(*QUICK).ready()
    (tmp_path / "token").write_text(installed.token(chart))
    chart.api.delete(f"/api/v1/namespaces/{SYSTEM}/secrets/{bound['name']}")  # the old token dies with it
    time.sleep(12)  # the API server remembers a token that it has checked for ten seconds
    chart.api.create(policies(namespace), policy(namespace))
    accepted(chart, namespace)
    assert process.running is not None
    assert process.running.poll() is None
    assert "401" in refused_codes(chart.audit_log), "the old token was never refused, so this test shows nothing"


def refused_codes(log: Path) -> set[str]:
    return {str(json.loads(line).get("responseStatus", {}).get("code")) for line in log.read_text().splitlines()}


def test_a_promotion_from_hand_written_verdicts_to_the_config_map_and_back(
    chart: Cluster, start: Start, namespace: str
) -> None:
    operator = Asking(chart, USER, "system:serviceaccounts", "system:authenticated")
    rules = policy(namespace)
    chart.api.create(policies(namespace), rules)
    digest = policy_digest(PromotionPolicySpec.model_validate(rules["spec"]))
    for name in ("old", "new"):
        finished_run(chart, operator, namespace, name, digest)
        time.sleep(1.1)  # creation times have seconds
    process = start().ready()
    projection = f"/api/v1/namespaces/{namespace}/configmaps/model-care-staging"

    def held_by(name: str) -> dict[str, Any]:
        def seen() -> dict[str, Any] | None:
            body = installed.there(chart, projection)
            return body if body is not None and body["data"]["run"] == name else None

        return eventually(
            seen, 30, f"staging is projected to {name}; the operator says\n{process.log.read_text()[-3000:]}"
        )

    body = held_by("new")
    assert body["data"]["modelURI"] == "pvc://models/new/model"
    assert body["data"]["modelDigest"] == f"sha256:{'new':0>64}"
    assert body["data"]["evidenceDigest"] == f"sha256:{'new':e>64}"
    runs = f"/apis/{API_VERSION}/namespaces/{namespace}/trainingruns"
    chart.api.merge(f"{runs}/new", {"metadata": {"labels": {LABEL_PROMOTE_TO: None}}})
    held_by("old")
    found = chart.api.get(f"{policies(namespace)}/care")
    (stage,) = found["status"]["stages"]
    assert (stage["holder"]["run"], stage["previous"]["run"]) == ("old", "new")
    chart.api.delete(projection)
    process.stop()
    start().ready()
    held_by("old")
    events = chart.api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    told = [e["note"] for e in events if e["reason"] == "Promoted"]
    assert len(told) == 2
    assert any("instead of new" in note for note in told)


def finished_run(cluster: Cluster, operator: Asking, namespace: str, name: str, digest: str) -> None:
    """A run as the operator leaves it behind at its end: trained, evaluated, judged; its children are gone."""
    meta = {"name": name, "namespace": namespace, "labels": {LABEL_PROMOTE_TO: "staging"}}
    storage = {"dataset": {"claimName": "d"}, "output": {"claimName": "models", "path": name}}
    spec = {
        "manifest": {"name": "m", "dataset": {"path": "d"}},
        "storage": storage,
        "policyRef": {"name": "care"},
        "limits": {"maxCostUSD": "1"},
    }
    document = {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": meta, "spec": spec}
    cluster.api.create(f"/apis/{API_VERSION}/namespaces/{namespace}/trainingruns", document)
    model, evidence = f"sha256:{name:0>64}", f"sha256:{name:e>64}"
    manifest = "sha256:" + "1" * 64
    at = "2026-01-01T00:00:00Z"
    check = {"metric": "perplexity", "op": "<", "threshold": 20, "bound": "upper", "value": 5, "verdict": "Passed"}
    metric = {"name": "perplexity", "value": 5, "lower": 4, "upper": 6, "confidence": 0.95, "samples": 100}
    digests = {"modelDigest": model, "manifestDigest": manifest, "suiteDigest": "sha256:s", "datasetDigest": "sha256:d"}
    status = {
        "observedGeneration": 1,
        "manifestDigest": manifest,
        "phase": "Succeeded",
        "message": "done",
        "startTime": at,
        "completionTime": at,
        "attempt": 1,
        "attempts": [{"number": 1, "outcome": "Completed", "startTime": at, "endTime": at, "costUSD": "0.5"}],
        "model": {"path": "model", "digest": model},
        "evaluation": {
            "state": "Succeeded",
            "evaluatedAt": at,
            "evidenceDigest": evidence,
            "metrics": [metric],
            **digests,
        },
        "gates": [
            {
                "stage": "staging",
                "verdict": "Passed",
                "policyDigest": digest,
                "evidenceDigest": evidence,
                "checks": [check],
            }
        ],
        "conditions": [
            {"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": at}
            for kind in ("Accepted", "Evaluated", "Complete")
        ],
    }
    path = f"/apis/{API_VERSION}/namespaces/{namespace}/trainingruns/{name}"
    done = operator.apply(
        {**document, "metadata": {"name": name, "namespace": namespace}, "spec": spec, "status": status}, status=True
    )
    assert done.returncode == 0, done.stderr
    assert cluster.api.get(path)["status"]["gates"]


def test_a_policy_with_approvals_is_refused_aloud(chart: Cluster, start: Start, namespace: str) -> None:
    check = {"metric": "perplexity", "op": "<", "threshold": 20}
    stages = [{"name": "production", "checks": [check], "approvals": {"min": 2}}]
    chart.api.create(policies(namespace), policy(namespace, stages=stages))
    start().ready()
    said = accepted(chart, namespace)
    assert (said["status"], said["reason"]) == ("False", "ApprovalsNotSupported")
    assert "stage production" in said["message"]
    assert chart.api.get(f"{policies(namespace)}/care")["status"].get("stages", []) == []


def test_a_namespaced_operator_needs_no_more_than_the_rights_of_its_namespaces(
    cluster: Cluster, start: Start, namespace: str
) -> None:
    documents = [
        d for d in installed.rendered(cluster, namespaces=[namespace], admission={"enabled": False})
        if d["kind"] in ("ClusterRole", "Role", "RoleBinding")
    ]  # fmt: skip
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(documents))
    try:
        process = start(f"--namespace={namespace}").ready()
        cluster.api.create(policies(namespace), policy(namespace))
        accepted(cluster, namespace)
        assert process.metric("tollgate_watch_errors_total") == 0
        lines = [json.loads(line) for line in process.log.read_text().splitlines()]
        assert not [line for line in lines if line["level"] in ("ERROR", "CRITICAL")]
    finally:
        installed.install(cluster)


def test_a_taken_port_is_said_in_one_line(start: Start, tmp_path: Path) -> None:
    process = start().ready()
    other = Process(tmp_path, process.config, (), "same-port", port=process.port).start()
    assert other.ended(30) == 1
    last = json.loads(other.log.read_text().splitlines()[-1])
    assert last["level"] == "ERROR"
    assert "address already in use" in last["message"]


def test_missing_crds_are_said_in_one_line(tmp_path: Path) -> None:
    settings = LoopbackShape(state=tmp_path / "bare", fresh=True)
    bare = up(settings)
    try:
        bare.api.create("/api/v1/namespaces", {"metadata": {"name": SYSTEM}})
        process = Process(tmp_path, bare.kubeconfig).start()
        assert process.ended(60) == 1
        last = json.loads(process.log.read_text().splitlines()[-1])
        assert "Are the CRDs installed?" in last["message"]
        lease = bare.api.get(LEASE)
        assert lease["spec"]["holderIdentity"] == ""  # handed back, so that the next start need not wait
    finally:
        down(settings, purge=True)


def test_the_log_is_one_json_object_a_line(start: Start) -> None:
    process = start().ready()
    process.stop()
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert lines[-1]["message"] == "stopped"
    # A connection that the API server closes is opened again; a loaded machine sees that now and then.
    odd = [line for line in lines if line["level"] in ("WARNING", "ERROR")]
    assert not [line for line in odd if "Request attempt #" not in line["message"]]
