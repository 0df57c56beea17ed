"""What the real API server says to good and bad objects of our kinds: the CRDs as they are applied by a person."""

from __future__ import annotations

from typing import Any

import pytest
from kind_objects import ABSENT, POLICY, PROFILE, RUN, Object, changed, collection, conditions, create

from tollgate.crd import KINDS
from tollgate_local.api import ApiError
from tollgate_local.cluster import Cluster

pytestmark = pytest.mark.integration


def test_every_schema_is_structural(kinds: Cluster) -> None:
    for kind in KINDS:
        found = conditions(kinds, f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.name}")
        assert "NonStructuralSchema" not in found
        assert found["NamesAccepted"] == "True"


# --- objects ----------------------------------------------------------------------------------------------------------

GOOD = [
    pytest.param(RUN, id="run"),
    pytest.param(changed(RUN, "spec.compute", ABSENT), id="run-without-compute"),
    pytest.param(changed(RUN, "spec.limits", ABSENT), id="run-without-limits"),
    pytest.param(changed(RUN, "spec.limits.maxCostUSD", 180), id="money-as-an-integer"),
    pytest.param(changed(RUN, "spec.limits.maxCostUSD", "0.000001"), id="a-micro-dollar"),
    pytest.param(changed(RUN, "spec.limits.maxRuntime", "999999h"), id="the-longest-runtime"),
    pytest.param(changed(RUN, "metadata.name", "a" * 40), id="forty-characters"),
    pytest.param(changed(RUN, "spec.storage.dataset.path", "a/..b/c"), id="two-dots-in-a-name"),
    pytest.param(changed(RUN, "spec.manifest.anything", {"deep": [1, 2.5, {"x": None}]}), id="manifest-is-not-pruned"),
    pytest.param(changed(RUN, "spec.manifest.dataset.splits", {"validation": 0.1}), id="dataset-is-not-pruned"),
    pytest.param(PROFILE, id="profile"),
    pytest.param(changed(PROFILE, "spec.resource", {"name": "nvidia.com/gpu", "perNode": 8}), id="gpu-profile"),
    pytest.param(changed(PROFILE, "spec.nodeSelector", {"pool": "a100"}), id="node-selector"),
    pytest.param(POLICY, id="policy"),
]

BAD = [
    # names
    (RUN, "metadata.name", "a" * 41, "a TrainingRun's name has at most 40 characters"),
    (RUN, "metadata.name", "with.dots", "DNS label: lower-case letters, digits and -, without dots"),
    (POLICY, "metadata.name", "a" * 181, "a PromotionPolicy's name has at most 180 characters"),
    # manifest
    (RUN, "spec.manifest", ABSENT, "spec.manifest: Required value"),
    (RUN, "spec.manifest.name", ABSENT, "spec.manifest.name: Required value"),
    (RUN, "spec.manifest.name", 5, "spec.manifest.name in body must be of type string"),
    (RUN, "spec.manifest.dataset", ABSENT, "spec.manifest.dataset: Required value"),
    (RUN, "spec.manifest.dataset.path", ABSENT, "spec.manifest.dataset.path: Required value"),
    # money: every form of a negative or nonsensical amount
    (RUN, "spec.limits.maxCostUSD", -1, "should be greater than or equal to 0"),
    (RUN, "spec.limits.maxCostUSD", "-1", "should match '^[0-9]{1,9}"),
    (RUN, "spec.limits.maxCostUSD", "1e3", "should match '^[0-9]{1,9}"),
    (RUN, "spec.limits.maxCostUSD", 1.5, "must be of type integer,string"),
    (RUN, "spec.limits.maxCostUSD", 1_000_000_000, "should be less than or equal to 999999999"),
    (RUN, "spec.limits.maxCostUSD", "1000000000", "should match '^[0-9]{1,9}"),
    (PROFILE, "spec.pricePerNodeHourUSD", "-0.1", "should match '^[0-9]{1,9}"),
    (PROFILE, "spec.pricePerNodeHourUSD", -2, "should be greater than or equal to 0"),
    # limits and times
    (RUN, "spec.limits.maxRuntime", "0h", "maxRuntime must be longer than 0s"),
    (RUN, "spec.limits.maxRuntime", "1d", "should match '^([0-9]{1,6}h)?"),
    (RUN, "spec.limits.maxRuntime", "-1h", "should match '^([0-9]{1,6}h)?"),
    (RUN, "spec.limits.maxRuntime", 3600, "must be of type string"),
    (RUN, "spec.limits.stopMargin", "90m", "stopMargin must be shorter than maxRuntime"),
    (RUN, "spec.limits.maxRuntime", ABSENT, "stopMargin is counted back from maxRuntime"),
    (RUN, "spec.limits.notifyAt", [1.5], "should be less than or equal to 1"),
    (RUN, "spec.limits.notifyAt", [0], "should be greater than 0"),
    (RUN, "spec.limits.unknownPrice", "Ignore", 'supported values: "Refuse", "UseCeiling", "HoursOnly"'),
    (RUN, "spec.restart.stallTimeout", "0s", "stallTimeout must be longer than 0s"),
    (RUN, "spec.restart.maxFailures", -1, "should be greater than or equal to 0"),
    (RUN, "spec.evaluation.timeout", "0m", "timeout must be longer than 0s"),
    # paths and names of other objects
    (RUN, "spec.storage.output.path", "/etc", "path is relative to the claim's root"),
    (RUN, "spec.storage.output.path", "a/../../b", "path may not contain .."),
    (RUN, "spec.storage.dataset.path", "..", "path may not contain .."),
    (RUN, "spec.storage", ABSENT, "spec.storage: Required value"),
    (RUN, "spec.storage.output.claimName", "Models", "should match '^[a-z0-9]"),
    (RUN, "spec.compute.nodes", 0, "should be greater than or equal to 1"),
    (PROFILE, "spec.environment", {"claimName": "env", "path": "../host"}, "path may not contain .."),
    # unknown fields, which the API server would drop if nobody asked for strictness
    (RUN, "spec.limits.maxCostUsd", "5", 'unknown field "spec.limits.maxCostUsd"'),
    # profiles
    (PROFILE, "spec.memory", "4 GB", "should match '^[0-9]{1,15}"),
    (PROFILE, "spec.cpu", -1, "should be greater than or equal to 0"),
    (PROFILE, "spec.image", ABSENT, "spec.image: Required value"),
    (PROFILE, "spec.security", {"uid": 0}, "should be greater than or equal to 1"),
    (PROFILE, "spec.fabric", {"rdmaResource": "rdma/hca"}, "fabric.rdmaResource needs resource"),
    (PROFILE, "spec.env", {"K" * 129: "v"}, "a key has at most 128 characters"),
    (PROFILE, "spec.defaultFor", ["cpu", "cpu"], "Duplicate value"),
    # policies
    (POLICY, "spec.stages", [], "should have at least 1 items"),
    (POLICY, "spec.stages.1.name", "staging", "Duplicate value"),
    (POLICY, "spec.stages.1.requires", ["nowhere"], "requires names a stage that this policy does not have"),
    (POLICY, "spec.stages.0.requires", ["production"], "requires may only name earlier stages"),
    (POLICY, "spec.stages.1.requires", ["production"], "requires may only name earlier stages"),
    (POLICY, "spec.stages.0.maxAge", "0s", "maxAge must be longer than 0s"),
    (POLICY, "spec.stages.0.checks.0.op", "==", 'supported values: "<", "<=", ">", ">="'),
    (POLICY, "spec.stages.0.checks.0.confidence", 0.5, "should be greater than 0.5"),
    (POLICY, "spec.stages.0.checks.0.confidence", 1, "should be less than 1"),
    (POLICY, "spec.stages.0.approvals", {"min": -1}, "should be greater than or equal to 0"),
]


@pytest.mark.parametrize("document", GOOD)
def test_a_good_object_is_taken_and_nothing_of_it_is_dropped(kinds: Cluster, namespace: str, document: Object) -> None:
    stored = create(kinds, namespace, document)
    assert contains(stored["spec"], document["spec"])


def contains(stored: Any, asked: Any) -> bool:
    """Whether everything that was asked for is there; the API server may add defaults."""
    if isinstance(asked, dict):
        return all(key in stored and contains(stored[key], value) for key, value in asked.items())
    return bool(stored == asked)


@pytest.mark.parametrize(("base", "path", "value", "message"), BAD)
def test_a_bad_object_is_refused_with_its_reason(
    kinds: Cluster, namespace: str, base: Object, path: str, value: object, message: str
) -> None:
    with pytest.raises(ApiError) as refusal:
        create(kinds, namespace, changed(base, path, value))
    assert message in str(refusal.value).replace("\\", "")
    assert refusal.value.status in (400, 422)


UPDATES = [
    ("spec.compute.nodes", 2, "compute cannot be changed, added or removed"),
    ("spec.compute", ABSENT, "compute cannot be changed, added or removed"),
    ("spec.storage.output.path", "elsewhere", "storage cannot be changed, added or removed"),
    ("spec.storage.credentialsSecret", {"name": "s3"}, "storage cannot be changed, added or removed"),
    ("spec.limits.maxCostUSD", "99", None),
    ("spec.limits", ABSENT, None),
    ("spec.suspend", True, None),
    ("spec.policyRef", {"name": "care"}, None),
]


@pytest.mark.parametrize(("path", "value", "message"), UPDATES)
def test_what_a_running_run_may_change(
    kinds: Cluster, namespace: str, path: str, value: object, message: str | None
) -> None:
    stored = create(kinds, namespace, RUN)
    update(kinds, namespace, changed(stored, path, value), message)


def test_compute_cannot_be_added_later(kinds: Cluster, namespace: str) -> None:
    stored = create(kinds, namespace, changed(RUN, "spec.compute", ABSENT))
    message = "compute cannot be changed, added or removed"
    update(kinds, namespace, changed(stored, "spec.compute", {"profile": "h100"}), message)


def update(cluster: Cluster, namespace: str, document: Object, message: str | None) -> None:
    status, answer = cluster.api.call(
        "PUT", f"{collection(document, namespace)}/{document['metadata']['name']}", document
    )
    if message is None:
        assert status == 200, answer
    else:
        assert status == 422
        assert message in str(answer)


# --- status -----------------------------------------------------------------------------------------------------------


def test_status_is_written_apart_and_holds_what_the_operator_says(kinds: Cluster, namespace: str) -> None:
    stored = create(kinds, namespace, changed(RUN, "status", {"phase": "Succeeded"}))
    assert "status" not in stored
    status = {
        "observedGeneration": 1,
        "phase": "Running",
        "message": "step 3 of 9",
        "startTime": "2026-01-01T00:00:00.123456Z",
        "progress": {"step": 3, "totalSteps": 9, "loss": 2.31, "estimatedCompletion": "2026-01-01T01:00:00Z"},
        "cost": {"spentUSD": "0.104211", "spent": "0.11", "limitUSD": "1.50", "byCategory": {"startup": "0.01"}},
        "attempts": [{"number": 1, "role": "train"}, {"number": 1, "role": "evaluate"}],
        "gates": [{"stage": "staging", "verdict": "Inconclusive", "policyDigest": "sha256:0"}],
        "conditions": [{"type": "Accepted", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }
    path = f"{collection(stored, namespace)}/{stored['metadata']['name']}"
    written = kinds.api.merge(f"{path}/status", {"status": status})
    assert written["status"] == status
    shown = kinds.kubectl("-n", namespace, "get", "trun", stored["metadata"]["name"], "--no-headers", "-o", "wide")
    assert shown.stdout.split()[1:7] == ["Running", "3", "0.11", "1.50", "2026-01-01T01:00:00Z", "Inconclusive"]
    found = kinds.api.get(f"{collection(stored, namespace)}?fieldSelector=status.phase%3DRunning")["items"]
    assert [item["metadata"]["name"] for item in found] == [stored["metadata"]["name"]]


def test_one_condition_type_cannot_stand_twice(kinds: Cluster, namespace: str) -> None:
    stored = create(kinds, namespace, RUN)
    one = {"type": "Accepted", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    path = f"{collection(stored, namespace)}/{stored['metadata']['name']}/status"
    with pytest.raises(ApiError, match="Duplicate value"):
        kinds.api.merge(path, {"status": {"conditions": [one, one]}})


@pytest.mark.parametrize("name", ["trun", "tprof", "tpol", "tollgate"])
def test_short_names_and_the_category_work(kinds: Cluster, namespace: str, name: str) -> None:
    answer = kinds.kubectl("-n", namespace, "get", name)
    assert "NAME" in answer.stdout or "No resources found" in answer.stderr


def test_explain_tells_what_a_field_is(kinds: Cluster) -> None:
    answer = kinds.kubectl("explain", "trun.spec.limits.maxRuntime")
    assert "Counts while pods run" in answer.stdout, answer.stderr
