"""What the real API server says to good and bad objects of our kinds: the CRDs as they are applied by a person."""

from __future__ import annotations

import copy
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tollgate.contract import API_VERSION
from tollgate.crd import KINDS
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document, load_file
from tollgate.manifest.normal import normalise
from tollgate.manifest.reading import read_yaml
from tollgate.manifest.scalars import plain
from tollgate_local.api import ApiError
from tollgate_local.cluster import Cluster
from tollgate_local.testing import eventually

pytestmark = pytest.mark.integration

CRDS = Path(__file__).parents[2] / "crds"
GROUP_PATH = f"/apis/{API_VERSION}"
_numbers = itertools.count(1)

Object = dict[str, Any]


@pytest.fixture(scope="module")
def kinds(cluster: Cluster) -> Cluster:
    """The cluster with our CRDs applied the way the docs say, and without a word of warning."""
    applied = cluster.kubectl("apply", "--server-side", "-f", str(CRDS))
    assert applied.stderr == ""
    for kind in KINDS:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.name}"
        eventually(
            lambda path=path: conditions(cluster, path).get("Established") == "True", 30, f"{kind.name} is served"
        )
    return cluster


def conditions(cluster: Cluster, path: str) -> dict[str, str]:
    found = cluster.api.get(path).get("status", {}).get("conditions")
    return {c["type"]: c["status"] for c in found or []}


def test_every_schema_is_structural(kinds: Cluster) -> None:
    for kind in KINDS:
        found = conditions(kinds, f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.name}")
        assert "NonStructuralSchema" not in found
        assert found["NamesAccepted"] == "True"


# --- objects ----------------------------------------------------------------------------------------------------------

RUN: Object = {
    "apiVersion": API_VERSION,
    "kind": "TrainingRun",
    "metadata": {"name": "good"},
    "spec": {
        "manifest": {"name": "counsel", "dataset": {"path": "train.jsonl"}, "hyperparameters": {"learning_rate": 1e-4}},
        "compute": {"profile": "cpu-small"},
        "storage": {
            "dataset": {"claimName": "datasets", "path": "care/v2"},
            "output": {"claimName": "models", "path": "counsel"},
        },
        "limits": {"maxCostUSD": "1.50", "maxRuntime": "1h30m", "stopMargin": "10m"},
    },
}
PROFILE: Object = {
    "apiVersion": API_VERSION,
    "kind": "ComputeProfile",
    "metadata": {"name": "good"},
    "spec": {"image": "registry.test/trainer:1", "cpu": 2, "memory": "4Gi", "pricePerNodeHourUSD": "0.25"},
}
POLICY: Object = {
    "apiVersion": API_VERSION,
    "kind": "PromotionPolicy",
    "metadata": {"name": "good"},
    "spec": {
        "stages": [
            {"name": "staging", "checks": [{"metric": "perplexity", "op": "<", "threshold": 20.5}], "maxAge": "24h"},
            {
                "name": "production",
                "requires": ["staging"],
                "checks": [{"metric": "accuracy", "op": ">=", "threshold": 1}],
            },
        ]
    },
}
ABSENT = object()
PATHS = {
    "TrainingRun": "trainingruns",
    "ComputeProfile": "computeprofiles",
    "PromotionPolicy": "promotionpolicies",
}


def changed(base: Object, path: str, value: object) -> Object:
    """A copy with one field set (or removed); list items by number."""
    document = copy.deepcopy(base)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at: Any = document
    for part in parents:
        at = at[part] if isinstance(part, int) else at.setdefault(part, {})
    if value is ABSENT:
        del at[last]
    else:
        at[last] = value
    return document


def collection(document: Object, namespace: str) -> str:
    plural = PATHS[document["kind"]]
    return f"{GROUP_PATH}/{plural}" if plural == "computeprofiles" else f"{GROUP_PATH}/namespaces/{namespace}/{plural}"


def create(cluster: Cluster, namespace: str, document: Object) -> Any:
    """Create for good under a name of its own, refusing what would be pruned."""
    document = copy.deepcopy(document)
    if document["metadata"]["name"] == "good":
        document["metadata"]["name"] = f"good-{next(_numbers)}"
    return cluster.api.create(f"{collection(document, namespace)}?fieldValidation=Strict", document)


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


# --- one document, all ways in ----------------------------------------------------------------------------------------

MANIFEST = """\
# every kind of value that may change on its way
name: counsel
description: "no"
version: 1.2.3
created_at: "2024-01-01"
dataset:
  path: train.jsonl
  size_bytes: 9007199254740991
  commit_hash: "0123"
model:
  config: {model_type: llama, rope_theta: 1e+4, scale: 1.0, odd: -0.0, tiny: 5e-324, big: 1.5e15, hex: 0x1F, none: null,
           text: "\\u20ac \\U0001F600", list: [.5, +3, -7, 2., 1E5, True, ~text], nested: {b: 1, a: {}}}
hyperparameters:
  learning_rate: 1e-4
  num_train_epochs: 2.0
  weight_decay:
resources: {max_budget_usd: 1.10}
"""


def test_a_manifest_has_one_digest_from_the_file_from_kubectl_and_from_the_api_server(
    kinds: Cluster, namespace: str, tmp_path: Path
) -> None:
    plain = tmp_path / "manifest.yaml"
    plain.write_text(MANIFEST, encoding="utf-8")
    wanted = load_file(plain)

    run = changed(RUN, "spec.manifest", ABSENT)
    run["metadata"] = {"name": "one-digest", "namespace": namespace}
    indented = "".join(f"    {line}\n" for line in MANIFEST.splitlines())
    text = yaml.safe_dump(run, sort_keys=False).replace("spec:\n", f"spec:\n  manifest:\n{indented}", 1)
    whole = tmp_path / "run.yaml"
    whole.write_text(text, encoding="utf-8")
    assert load_file(whole).digest == wanted.digest

    applied = kinds.kubectl("apply", "-f", str(whole))
    assert "created" in applied.stdout
    path = f"{collection(run, namespace)}/one-digest"
    from_server = load_document(kinds.api.get(path)["spec"]["manifest"], "API server")
    assert from_server.digest == wanted.digest
    assert from_server.manifest == wanted.manifest

    as_json = tmp_path / "manifest.json"
    as_json.write_text(json.dumps(wanted.document), encoding="utf-8")
    assert load_file(as_json).digest == wanted.digest

    again = tmp_path / "from-server.yaml"
    again.write_text(kinds.kubectl("-n", namespace, "get", "trun", "one-digest", "-o", "yaml").stdout, encoding="utf-8")
    assert load_file(again).digest == wanted.digest


def test_kubectl_reads_every_plain_scalar_that_the_loader_accepts_as_the_loader_does(
    kinds: Cluster, namespace: str
) -> None:
    chance = random.Random(3)
    made = {"".join(chance.choices("0123456789abefnosxyEINOTXY_.:+-~", k=chance.randint(1, 9))) for _ in range(6000)}
    taken = sorted(text for text in made if readable(text))
    assert len(taken) > 1000
    run = changed(RUN, "metadata", {"name": "scalars", "namespace": namespace})
    lines = "".join(f"    - {text}\n" for text in taken)
    text = yaml.safe_dump(run, sort_keys=False).replace("  manifest:\n", f"  manifest:\n    scalars:\n{lines}", 1)
    stored = json.loads(kinds.kubectl("create", "-f", "-", "-o", "json", stdin=text).stdout)["spec"]["manifest"][
        "scalars"
    ]
    differ = [
        (text, here, there)
        for text, here, there in zip(taken, normalise({"v": list(map(plain, taken))})[0]["v"], stored, strict=True)
        if (type(here), here) != (type(there), there)
    ]
    assert differ == []


def readable(text: str) -> bool:
    """Whether this is one plain scalar that the loader takes (and not null, which it drops)."""
    try:
        reading = read_yaml(f"- {text}\n", "scalar")
    except ManifestError:
        return False
    alone = not reading.found and isinstance(reading.value, list) and isinstance(reading.value[0], str | int | float)
    return alone and not normalise({"v": reading.value[0]})[1] and reading.value[0] == plain(text)
