"""The chart: it renders, it gives the operator what it needs and no more, and its admission policies refuse aloud."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import installed
import pytest
import yaml
from installed import SYSTEM, USER, Asking

from tollgate.contract import API_VERSION, LABEL_PROMOTE_TO
from tollgate_local.cluster import Cluster
from tollgate_local.testing import eventually

pytestmark = pytest.mark.integration

RUN: dict[str, Any] = {
    "apiVersion": API_VERSION,
    "kind": "TrainingRun",
    "metadata": {"name": "a"},
    "spec": {
        "manifest": {
            "name": "m",
            "dataset": {"path": "d"},
            "hyperparameters": {"learning_rate": 1e-4, "max_steps": 10},
            "anything": {"deep": [1, {"x": "one"}]},
        },
        "storage": {"dataset": {"claimName": "d"}, "output": {"claimName": "o"}},
        "limits": {"maxCostUSD": "1"},
    },
}


@pytest.fixture(scope="module")
def chart(cluster: Cluster) -> Iterator[Cluster]:
    installed.install(cluster)
    # The API server takes a moment to see new policies; the last one of the list tells.
    admin = Asking(cluster, "root", "system:masters")
    admin.apply(run("default"))
    other = run("default", spec={"manifest": {"name": "other", "dataset": {"path": "d"}}})
    for document, status in ((other, False), (run("default") | {"status": {"phase": "Failed"}}, True)):
        eventually(
            lambda: admin.apply(document, status=status, dry_run=True).returncode != 0,  # noqa: B023 - called at once
            30,
            "the admission policies are in force",
        )
    cluster.api.delete(f"/apis/{API_VERSION}/namespaces/default/trainingruns/a")
    yield cluster
    installed.remove_admission(cluster)


@pytest.fixture
def scientist(chart: Cluster, namespace: str) -> Asking:
    """Somebody with `edit` in the namespace; the chart's editor role aggregates to it."""
    binding = {
        "metadata": {"name": "scientist"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ada"}],
    }
    chart.api.create(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings", binding)
    ada = Asking(chart, "ada", "system:authenticated")
    eventually(
        lambda: ada.kubectl("auth", "can-i", "create", "trainingruns", "-n", namespace).returncode == 0,
        30,
        "the editor role is aggregated to edit",
    )
    return ada


def run(namespace: str, **changes: Any) -> dict[str, Any]:
    document = copy.deepcopy(RUN)
    document["metadata"] |= {"namespace": namespace, **changes.get("metadata", {})}
    document["spec"] |= changes.get("spec", {})
    return document


def refused(chart: Cluster, asking: Asking, document: dict[str, Any], policy: str, *, status: bool = False) -> str:
    """What the person is told; asked again while the API server has not seen the policy yet."""

    def answer() -> str | None:
        done = asking.apply(document, status=status)
        return done.stderr if done.returncode != 0 and policy in done.stderr else None

    return eventually(answer, 30, f"{policy} refuses it")


def test_the_manifest_of_a_run_cannot_be_changed_in_any_part(chart: Cluster, namespace: str, scientist: Asking) -> None:
    assert scientist.apply(run(namespace)).returncode == 0
    manifest = RUN["spec"]["manifest"]
    changes = [
        {**manifest, "name": "other"},
        {**manifest, "hyperparameters": {**manifest["hyperparameters"], "max_steps": 11}},
        {**manifest, "hyperparameters": {"learning_rate": 1e-4}},
        {**manifest, "anything": {"deep": [1, {"x": "two"}]}},
        {**manifest, "anything": {"deep": [1, {"x": "one"}], "new": True}},
        {**manifest, "added": 1},
    ]
    for changed in changes:
        document = run(namespace, spec={"manifest": changed})
        text = yaml.safe_dump(document)
        done = scientist.kubectl("replace", "-f", "-", stdin=text)
        assert done.returncode != 0
        assert "spec.manifest is immutable: create another TrainingRun" in done.stderr
    assert chart.api.get(f"/apis/{API_VERSION}/namespaces/{namespace}/trainingruns/a")["spec"]["manifest"] == manifest


def test_the_same_manifest_in_other_words_and_new_limits_are_let_through(
    chart: Cluster, namespace: str, scientist: Asking
) -> None:
    scientist.apply(run(namespace))
    same = json.loads(json.dumps(RUN["spec"]["manifest"], sort_keys=True))
    done = scientist.apply(run(namespace, spec={"manifest": same, "limits": {"maxCostUSD": "2"}, "suspend": True}))
    assert done.returncode == 0, done.stderr


def test_only_the_operator_writes_status(chart: Cluster, namespace: str, scientist: Asking) -> None:
    scientist.apply(run(namespace))
    admin = Asking(chart, "root", "system:masters")
    document = run(namespace) | {"status": {"phase": "Succeeded"}}
    said = refused(chart, admin, document, "tollgate-status", status=True)
    assert f"only the operator ({USER}) writes the status of a TrainingRun" in said
    assert chart.api.get(f"/apis/{API_VERSION}/namespaces/{namespace}/trainingruns/a").get("status") is None
    operator = Asking(chart, USER, "system:serviceaccounts", "system:authenticated")
    done = operator.apply(run(namespace) | {"status": {"phase": "Pending"}}, status=True)
    assert done.returncode == 0, done.stderr


def test_a_projection_is_written_by_the_operator_alone(chart: Cluster, namespace: str, scientist: Asking) -> None:
    def config_map(**labels: str) -> dict[str, Any]:
        meta = {"name": "model-care-staging", "namespace": namespace, "labels": labels}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"run": "forged"}}

    forged = config_map(**{"tollgate.dev/stage": "staging"})
    assert "only the operator" in refused(chart, scientist, forged, "tollgate-projection")
    operator = Asking(chart, USER, "system:serviceaccounts", "system:authenticated")
    assert operator.apply(forged).returncode == 0
    stripped = {"metadata": {"labels": {"tollgate.dev/stage": None}}}
    done = scientist.kubectl(
        "patch", "configmap", "model-care-staging", "-n", namespace, "--type=merge", "-p", json.dumps(stripped)
    )
    assert done.returncode != 0
    assert "Label a TrainingRun with tollgate.dev/promote-to instead" in done.stderr
    other = config_map() | {"metadata": {"name": "mine", "namespace": namespace}}
    assert scientist.apply(other).returncode == 0


def test_the_promotion_label_needs_the_verb_promote(chart: Cluster, namespace: str, scientist: Asking) -> None:
    asks = run(namespace, metadata={"labels": {LABEL_PROMOTE_TO: "staging"}})
    said = refused(chart, scientist, asks, "tollgate-promote")
    assert "the verb promote on trainingruns" in said
    assert f'ada may not change the label {LABEL_PROMOTE_TO} of TrainingRun a ("" to "staging")' in said
    assert scientist.apply(run(namespace)).returncode == 0
    assert "tollgate-promote" in scientist.apply(asks).stderr
    promoter = {
        "metadata": {"name": "promoter"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": f"{SYSTEM}-tollgate-promoter",
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ada"}],
    }
    chart.api.create(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings", promoter)
    eventually(lambda: scientist.apply(asks).returncode == 0, 30, "a promoter may set the label")
    assert scientist.apply(run(namespace, metadata={"labels": {"team": "care"}})).returncode == 0  # and take it off


MAY = [
    "watch trainingruns", "patch trainingruns/status", "patch promotionpolicies/status", "create jobs.batch",
    "patch jobs.batch", "delete jobs.batch", "watch pods", "get persistentvolumeclaims", "create services",
    "patch configmaps", "create events.events.k8s.io", "watch nodes", "watch computeprofiles",
]  # fmt: skip
MAY_NOT = [
    "update trainingruns", "patch trainingruns", "create trainingruns", "delete trainingruns", "promote trainingruns",
    "get secrets", "list secrets", "create pods", "delete pods", "patch pods", "get pods/log", "create pods/exec",
    "update jobs.batch", "list configmaps", "delete configmaps", "delete services", "patch nodes",
    "patch computeprofiles", "update promotionpolicies", "create roles.rbac.authorization.k8s.io", "impersonate users",
    "list namespaces",
    "delete persistentvolumeclaims", "list leases.coordination.k8s.io", "create serviceaccounts/token",
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "may"), [*((w, True) for w in MAY), *((w, False) for w in MAY_NOT)])
def test_the_operator_has_the_rights_it_needs_and_no_others(chart: Cluster, wanted: str, may: bool) -> None:
    verb, _, resource = wanted.partition(" ")
    resource, _, subresource = resource.partition("/")
    flags = [f"--subresource={subresource}"] if subresource else []
    done = Asking(chart, USER, "system:serviceaccounts", "system:authenticated").kubectl(
        "auth", "can-i", verb, resource, *flags, "-n", "default"
    )
    assert (done.returncode == 0) == may, f"{wanted}: {done.stdout}{done.stderr}"


def test_with_namespaces_the_operator_has_rights_in_these_only(chart: Cluster) -> None:
    documents = installed.rendered(chart, namespaces=["research", "care"])
    cluster_wide = [
        r
        for d in documents
        if d["metadata"]["name"] == f"{SYSTEM}-tollgate"
        for r in d.get("rules", [])
        if d["kind"] == "ClusterRole"
    ]
    assert {resource for rule in cluster_wide for resource in rule["resources"]} == {"computeprofiles", "nodes"}
    roles = [d["metadata"]["namespace"] for d in documents if d["kind"] == "Role"]
    assert roles == [SYSTEM, "research", "care"]
    for document in documents:
        if document["kind"] == "ValidatingAdmissionPolicyBinding":
            (selected,) = document["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
            assert selected["values"] == ["research", "care"]
    (deployment,) = [d for d in documents if d["kind"] == "Deployment"]
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[:2] == ["--namespace=research", "--namespace=care"]


def test_the_pod_of_the_operator_passes_the_restricted_standard(chart: Cluster) -> None:
    name = "restricted-check"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    chart.api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    (deployment,) = [d for d in installed.rendered(chart) if d["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": name},
        "spec": template["spec"],
    }
    pod["spec"]["serviceAccountName"] = "default"
    eventually(
        lambda: installed.there(chart, f"/api/v1/namespaces/{name}/serviceaccounts/default"), 30, "ServiceAccount"
    )
    done = chart.kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod), check=False)
    chart.api.delete(f"/api/v1/namespaces/{name}")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image": {"repositry": "x"}}, "repositry"),
        ({"operator": {"workers": 0}}, "workers"),
        ({"namespaces": ["Not_A_Name"]}, "namespaces"),
        ({"nonsense": True}, "nonsense"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(chart: Cluster, values: dict[str, Any], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        installed.rendered(chart, **values)
