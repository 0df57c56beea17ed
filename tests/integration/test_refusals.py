"""Bad input costs nothing and says what to mend: at the API server where it can, else in a condition of the run.

None of these needs a pod. What only a pod can find (a dataset that is missing or another one) is in tests/e2e.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import installed
import pytest
import yaml
from installed import LEASE, Process

from tollgate.contract import API_VERSION
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_file
from tollgate_local.cluster import Cluster
from tollgate_local.testing import eventually

pytestmark = pytest.mark.integration

PROFILES: Mapping[str, dict[str, Any]] = {
    "refusals-priced": {"pricePerNodeHourUSD": "60"},
    "refusals-unpriced": {},
    "refusals-ceiling": {"priceCeilingUSD": "90"},
}


@pytest.fixture(scope="module")
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The chart, an operator with its rights, and three profiles: with a price, without, with a ceiling only."""
    installed.install(cluster)
    folder = tmp_path_factory.mktemp("operator")
    for name, spec in PROFILES.items():
        selector = {"nodeSelector": {"tollgate.test/nowhere": name}}
        body = {"apiVersion": API_VERSION, "kind": "ComputeProfile", "metadata": {"name": name}}
        spec = {"image": "trainer.test/image:1", **selector, **spec}
        cluster.api.apply(f"/apis/{API_VERSION}/computeprofiles/{name}", {**body, "spec": spec})
    process = Process(folder, installed.kubeconfig(cluster, folder, installed.token(cluster))).start()
    try:
        yield process.ready()
    finally:
        process.kill()
        cluster.api.delete(LEASE)
        installed.remove_admission(cluster)
        for name in PROFILES:
            cluster.api.delete(f"/apis/{API_VERSION}/computeprofiles/{name}")


@pytest.fixture
def claims(cluster: Cluster, namespace: str) -> str:
    """The namespace, with claims that many nodes may mount, and one that one node may."""
    for name, mode in (("datasets", "ReadOnlyMany"), ("models", "ReadWriteMany"), ("one-node", "ReadWriteOnce")):
        spec = {"accessModes": [mode], "storageClassName": "static", "resources": {"requests": {"storage": "1Gi"}}}
        path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
        cluster.api.create(path, {"metadata": {"name": name}, "spec": spec})
    return namespace


def a_run(name: str = "asked", **spec: Any) -> dict[str, Any]:
    """A run that is accepted as it stands; `spec` replaces fields, `manifest` in it adds to the manifest."""
    manifest = {"name": "asked", "dataset": {"path": "data.json"}, **spec.pop("manifest", {})}
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {"name": name},
        "spec": {
            "manifest": manifest,
            "compute": {"profile": "refusals-priced"},
            "storage": {"dataset": {"claimName": "datasets"}, "output": {"claimName": "models", "path": name}},
            "limits": {"maxCostUSD": "5"},
            "evaluation": {"enabled": False},
            **spec,
        },
    }


def create(cluster: Cluster, namespace: str, run: Mapping[str, Any]) -> None:
    cluster.api.create(f"/apis/{API_VERSION}/namespaces/{namespace}/trainingruns", run)


def accepted(cluster: Cluster, namespace: str, name: str = "asked") -> dict[str, Any]:
    """The operator's answer: the condition Accepted."""

    def answer() -> dict[str, Any] | None:
        run = cluster.api.get(f"/apis/{API_VERSION}/namespaces/{namespace}/trainingruns/{name}")
        found = [c for c in run.get("status", {}).get("conditions", []) if c["type"] == "Accepted"]
        return found[0] if found else None

    return eventually(answer, 30, f"{name} is answered")


def test_the_run_that_these_tests_spoil_is_accepted(operator: Process, cluster: Cluster, claims: str) -> None:
    create(cluster, claims, a_run())
    assert accepted(cluster, claims)["status"] == "True"


REFUSED_BY_THE_OPERATOR = {
    "an unknown manifest key": (
        {"manifest": {"hyperparameters": {"learning_rat": 0.1}}},
        "ManifestRefused",
        ["hyperparameters.learning_rat", "learning_rate"],
    ),
    "a number where YAML 1.1 made one of a text": (
        {"manifest": {"version": 8}},  # `version: 010`, as kubectl sends it
        "ManifestRefused",
        ["version", "8", "quote"],
    ),
    "a truth value where YAML 1.1 made one of a text": (
        {"manifest": {"description": False}},  # `description: no`
        "ManifestRefused",
        ["description", "quote"],
    ),
    "a manifest over 32 KiB": (
        {"manifest": {"description": "x" * 33 * 1024}},
        "ManifestRefused",
        ["32768", "description", "in a file beside the dataset"],
    ),
    "a dataset path that leaves its folder": (
        {"manifest": {"dataset": {"path": "../other/data.json"}}},
        "ManifestRefused",
        ["dataset.path", "../other/data.json"],
    ),
    "no limit at all": ({"limits": {}}, "LimitRequired", ["spec.limits.maxCostUSD", "max_budget_usd"]),
    "an unknown profile": (
        {"compute": {"profile": "h1000"}},
        "ProfileUnknown",
        ["spec.compute.profile", "h1000", "refusals-priced"],
    ),
    "an unknown profile for the evaluation": (
        {"evaluation": {"enabled": True, "profile": "h1000"}},
        "ProfileUnknown",
        ["spec.evaluation.profile", "h1000", "refusals-priced"],
    ),
    "a claim of one node for two nodes": (
        {
            "compute": {"profile": "refusals-priced", "nodes": 2},
            "storage": {"dataset": {"claimName": "datasets"}, "output": {"claimName": "one-node", "path": "x"}},
        },
        "ClaimNotShared",
        ["spec.compute.nodes", "one-node", "ReadWriteMany", "nodes: 1"],
    ),
    "a claim that is not there": (
        {"storage": {"dataset": {"claimName": "datasets"}, "output": {"claimName": "modles", "path": "x"}}},
        "ClaimMissing",
        ["spec.storage.output.claimName", "modles", "create it"],
    ),
    "an unknown price": (
        {"compute": {"profile": "refusals-unpriced"}},
        "PriceUnknown",
        ["refusals-unpriced", "pricePerNodeHourUSD", "unknownPrice"],
    ),
    "an unknown price and no ceiling": (
        {"compute": {"profile": "refusals-unpriced"}, "limits": {"maxCostUSD": "5", "unknownPrice": "UseCeiling"}},
        "PriceUnknown",
        ["refusals-unpriced", "priceCeilingUSD"],
    ),
    "an unknown price and no time": (
        {"compute": {"profile": "refusals-unpriced"}, "limits": {"maxCostUSD": "5", "unknownPrice": "HoursOnly"}},
        "PriceUnknown",
        ["refusals-unpriced", "maxRuntime"],
    ),
}


@pytest.mark.parametrize("what", REFUSED_BY_THE_OPERATOR)
def test_the_operator_refuses(operator: Process, cluster: Cluster, claims: str, what: str) -> None:
    changes, reason, words = REFUSED_BY_THE_OPERATOR[what]
    create(cluster, claims, a_run(**changes))
    answer = accepted(cluster, claims)
    assert (answer["status"], answer["reason"]) == ("False", reason), answer
    assert not [word for word in words if word not in answer["message"]], answer["message"]
    assert not cluster.api.get(f"/apis/batch/v1/namespaces/{claims}/jobs")["items"], "a refused run costs nothing"


@pytest.mark.parametrize(
    ("profile", "limits", "source"),
    [
        ("refusals-ceiling", {"maxCostUSD": "5", "unknownPrice": "UseCeiling"}, "ceiling"),
        ("refusals-unpriced", {"unknownPrice": "HoursOnly", "maxRuntime": "1h", "maxCostUSD": "5"}, None),
    ],
)
def test_a_run_without_a_price_is_admitted_by_a_ceiling_or_by_hours(
    operator: Process, cluster: Cluster, claims: str, profile: str, limits: dict[str, str], source: str | None
) -> None:
    create(cluster, claims, a_run(compute={"profile": profile}, limits=limits))
    assert accepted(cluster, claims)["status"] == "True"
    path = f"/apis/{API_VERSION}/namespaces/{claims}/trainingruns/asked"
    cost = eventually(lambda: cluster.api.get(path)["status"].get("cost"), 30, "the cost is told")
    assert cost.get("price", {}).get("source") == source, "what is unknown has no price, not a price of zero"


def test_the_second_run_on_an_output_folder_waits_for_nobody(operator: Process, cluster: Cluster, claims: str) -> None:
    create(cluster, claims, a_run("first"))
    accepted(cluster, claims, "first")
    taken = {"dataset": {"claimName": "datasets"}, "output": {"claimName": "models", "path": "./first/"}}
    create(cluster, claims, a_run("second", storage=taken))
    answer = accepted(cluster, claims, "second")
    assert (answer["status"], answer["reason"]) == ("False", "OutputInUse")
    assert "TrainingRun first" in answer["message"]
    assert "choose another path" in answer["message"]


REFUSED_BY_THE_API_SERVER = {
    "a negative limit": ({"limits": {"maxCostUSD": -1}}, ["spec.limits.maxCostUSD", "greater than or equal to 0"]),
    "a negative limit as a text": ({"limits": {"maxCostUSD": "-1"}}, ["spec.limits.maxCostUSD", '"-1"']),
    "a negative runtime": ({"limits": {"maxCostUSD": "1", "maxRuntime": "-1h"}}, ["spec.limits.maxRuntime", '"-1h"']),
    "an unknown field of the spec": ({"limit": {"maxCostUSD": "1"}}, ["spec.limit"]),
    "no dataset": ({"manifest": {"dataset": {}}}, ["spec.manifest.dataset.path", "Required"]),
    "an output path that leaves its claim": (
        {"storage": {"dataset": {"claimName": "datasets"}, "output": {"claimName": "models", "path": "../x"}}},
        ["spec.storage.output", "leave its claim"],
    ),
}


@pytest.mark.parametrize("what", REFUSED_BY_THE_API_SERVER)
def test_the_api_server_refuses(operator: Process, cluster: Cluster, claims: str, what: str) -> None:
    changes, words = REFUSED_BY_THE_API_SERVER[what]
    said = refused_by_kubectl(cluster, claims, a_run(**changes))
    assert not [word for word in words if word not in said], said


@pytest.mark.parametrize(("name", "words"), [("a" * 41, "at most 40 characters"), ("care.v2", "without dots")])
def test_a_name_that_pods_and_hosts_cannot_have_is_refused(
    operator: Process, cluster: Cluster, claims: str, name: str, words: str
) -> None:
    assert words in refused_by_kubectl(cluster, claims, a_run(name))


def refused_by_kubectl(cluster: Cluster, namespace: str, run: Mapping[str, Any]) -> str:
    """What kubectl prints when it creates the run and must fail."""
    arguments = ("--namespace", namespace, "create", "--validate=strict", "-f", "-")
    done = cluster.kubectl(*arguments, stdin=yaml.safe_dump(run), check=False)
    assert done.returncode != 0, "it was admitted"
    return done.stderr


@pytest.mark.parametrize("scalar", ["no", "010", "1:30", "1_000"])
def test_a_scalar_that_would_change_on_its_way_is_refused_before_it_leaves(tmp_path: Path, scalar: str) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(f"name: asked\ndescription: {scalar}\ndataset: {{path: data.json}}\n")
    with pytest.raises(ManifestError) as refused:
        load_file(path)
    (problem,) = refused.value.problems
    assert "description" in problem.field
    assert scalar in str(problem)
    assert "Quote it" in str(problem)


@pytest.mark.parametrize("scalar", ["no", "010", "1_000"])
def test_the_same_scalar_sent_by_kubectl_is_refused_too(
    operator: Process, cluster: Cluster, claims: str, scalar: str
) -> None:
    text = yaml.safe_dump(a_run(manifest={"description": "HERE"})).replace("HERE", scalar)
    cluster.kubectl("--namespace", claims, "create", "-f", "-", stdin=text)
    answer = accepted(cluster, claims)
    assert (answer["status"], answer["reason"]) == ("False", "ManifestRefused")
    assert "description" in answer["message"]
    assert "quote" in answer["message"]
