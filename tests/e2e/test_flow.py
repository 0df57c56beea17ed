"""The whole way of one run on a real node, as a person sees it: applied, trained, judged, promoted, and gone again."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import runs
from runs import NAMESPACE, Run, Tollgate

from tollgate.contract import API_VERSION, LABEL_PROMOTE_TO, Files
from tollgate_local.demo.install import SYSTEM
from tollgate_local.testing import eventually

pytestmark = pytest.mark.e2e

NAME, POLICY = "flow", "flow-models"
STEPS = 60
PATIENCE = 240.0


def policy() -> dict[str, Any]:
    """A stage whose bound any model meets, and one that no model of this size can."""
    stages = [
        {"name": name, "checks": [{"metric": "perplexity", "op": "<=", "threshold": bound, "minSamples": 4}]}
        for name, bound in (("staging", 100_000), ("production", 1.000001))
    ]
    return {
        "apiVersion": API_VERSION,
        "kind": "PromotionPolicy",
        "metadata": {"name": POLICY},
        "spec": {"stages": stages},
    }


@pytest.fixture(scope="module")
def applied(tollgate: Tollgate) -> Iterator[str]:
    """The policy and the run, applied together; removed at the end."""
    tollgate.apply(runs.profile("flow", tollgate.installed.trainer, cpu="1600m"), policy())
    run = runs.run(
        NAME,
        steps=STEPS,
        save_steps=20,
        manifest={"hyperparameters": {"eval_steps": 30}},
        compute={"profile": "flow"},
        limits={"maxCostUSD": "100"},
        evaluation={"enabled": True, "timeout": "5m"},
        policyRef={"name": POLICY},
    )
    run["metadata"]["labels"] = {LABEL_PROMOTE_TO: "staging"}
    tollgate.apply(run)
    yield NAME
    tollgate.delete(NAME)
    tollgate.installed.kubectl.run("delete", "promotionpolicy", POLICY)


@pytest.fixture(scope="module")
def finished(tollgate: Tollgate, applied: str) -> Run:
    """The run at its end: `kubectl wait` returned and the gates were judged."""
    wait = ("wait", f"trainingrun/{applied}", "--for=condition=Finished", f"--timeout={PATIENCE:.0f}s")
    said = tollgate.installed.kubectl.run(*wait)
    assert "condition met" in said
    run = tollgate.wait_for(applied, "its gates are judged", lambda r: r["status"].get("gates"), PATIENCE)
    return tollgate.wait_for_phase(applied, "Succeeded", seconds=30) if runs.phase(run) != "Succeeded" else run


def conditions(run: Run) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in run["status"]["conditions"]}


def test_a_run_tells_its_step_its_spend_and_its_checkpoint(tollgate: Tollgate, finished: Run) -> None:
    status = finished["status"]
    assert status["phase"] == "Succeeded"
    assert status["observedGeneration"] == finished["metadata"]["generation"]
    assert (status["progress"]["step"], status["progress"]["totalSteps"]) == (STEPS, STEPS)
    assert status["checkpoint"]["step"] == STEPS
    assert (tollgate.output(NAME) / status["checkpoint"]["path"] / Files.COMMIT).is_file()
    assert {"Complete": "True", "Accepted": "True", "WithinBudget": "True", "Running": "False"}.items() <= conditions(
        finished
    ).items()

    cost = status["cost"]
    assert 0 < runs.spent(finished) < runs.Decimal(cost["limitUSD"])
    parts = {name: runs.Decimal(usd) for name, usd in cost["byCategory"].items()}
    assert sum(parts.values()) == runs.spent(finished)
    assert parts["evaluation"] > 0
    assert runs.spent(finished) == sum(runs.Decimal(a["costUSD"]) for a in status["attempts"])


def test_the_model_on_the_volume_is_the_one_that_the_status_names(tollgate: Tollgate, finished: Run) -> None:
    status, output = finished["status"], tollgate.output(NAME)
    info = json.loads((output / status["model"]["path"] / Files.MODEL_INFO).read_text())
    assert (info["uid"], info["step"]) == (finished["metadata"]["uid"], STEPS)
    assert info["manifest_digest"] == status["manifestDigest"]
    told = json.loads((output / Files.RESULT).read_text())
    assert told["model"]["digest"] == status["model"]["digest"]
    assert (output / "model/model.safetensors").stat().st_size > 0


def test_report_and_evidence_lie_on_the_volume(tollgate: Tollgate, finished: Run) -> None:
    evaluation, output = finished["status"]["evaluation"], tollgate.output(NAME)
    assert evaluation["state"] == "Succeeded"
    assert evaluation["modelDigest"] == finished["status"]["model"]["digest"]
    evidence = output / evaluation["evidencePath"]
    assert "sha256:" + hashlib.sha256(evidence.read_bytes()).hexdigest() == evaluation["evidenceDigest"]
    report = (output / Files.REPORT).read_text()
    assert NAME in report
    assert finished["status"]["model"]["digest"] in report
    perplexity = {metric["name"]: metric for metric in evaluation["metrics"]}["perplexity"]
    assert perplexity["lower"] < perplexity["value"] < perplexity["upper"]


def test_a_stage_whose_bound_is_met_is_promoted_and_one_whose_bound_is_not_met_stays_empty(
    tollgate: Tollgate, finished: Run
) -> None:
    verdicts = {gate["stage"]: gate["verdict"] for gate in finished["status"]["gates"]}
    assert verdicts == {"staging": "Passed", "production": "Failed"}

    holder = eventually(lambda: stage(tollgate, "staging").get("holder"), 30, "staging has a model")
    assert holder["run"] == NAME
    assert holder["modelDigest"] == finished["status"]["model"]["digest"]
    data = tollgate.installed.kubectl.object("configmap", f"model-{POLICY}-staging")["data"]
    assert data["modelDigest"] == finished["status"]["model"]["digest"]
    assert data["evidenceDigest"] == finished["status"]["evaluation"]["evidenceDigest"]

    tollgate.installed.kubectl.run("label", "trainingrun", NAME, f"{LABEL_PROMOTE_TO}=production", "--overwrite")

    def told() -> bool:
        return NAME in stage(tollgate, "production").get("message", "")

    eventually(told, 30, "production says why not")
    assert "holder" not in stage(tollgate, "production")
    maps = tollgate.installed.kubectl.run("get", "configmaps", "-o", "name").split()
    assert f"configmap/model-{POLICY}-production" not in maps


def stage(tollgate: Tollgate, name: str) -> dict[str, Any]:
    """What the policy's status says of a stage; {} while it says nothing."""
    status = tollgate.installed.kubectl.object("promotionpolicy", POLICY).get("status", {})
    found: list[dict[str, Any]] = [one for one in status.get("stages", []) if one["name"] == name]
    return found[0] if found else {}


def test_kubectl_shows_what_one_asks_first(tollgate: Tollgate, finished: Run) -> None:
    head, line = tollgate.installed.kubectl.run("get", "trainingruns", NAME).rstrip().splitlines()
    assert head.split() == ["NAME", "PHASE", "STEP", "SPENT", "LIMIT", "ETA", "GATE", "AGE"]
    over = [name for name in head.split() if name != "ETA"]  # nothing is to come, so its cell is empty
    cells = dict(zip(over, line.split(), strict=True))
    del cells["AGE"]
    spent = finished["status"]["cost"]["spent"]
    assert 0 <= Decimal(spent) - Decimal(finished["status"]["cost"]["spentUSD"]) < Decimal("0.01")
    wanted = {"NAME": NAME, "PHASE": "Succeeded", "STEP": str(STEPS), "SPENT": spent, "LIMIT": "100.00"}
    assert cells == wanted | {"GATE": "Passed"}
    wide = tollgate.installed.kubectl.run("get", "trun", NAME, "-o", "wide")
    assert f"trained to step {STEPS}" in wide or "Succeeded" in wide


def test_its_events_tell_the_story_once(tollgate: Tollgate, finished: Run) -> None:
    selector = f"involvedObject.uid={finished['metadata']['uid']}"

    def reasons() -> list[str]:
        listed = tollgate.cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/events?fieldSelector={selector}")
        return [event["reason"] for event in listed["items"]]

    # "Running" is told when the first step was seen; a run as short as this one may be over before.
    eventually(lambda: "Succeeded" in reasons(), 30, "events of the run")
    assert len(reasons()) == len(set(reasons())), "one for each transition"


def scraped(tollgate: Tollgate) -> dict[str, float]:
    """`series{labels}` -> value of the flow's run, as Prometheus reads it from the operator's pod."""
    pods = tollgate.cluster.api.get(f"/api/v1/namespaces/{SYSTEM}/pods")["items"]
    address = next(pod["status"]["podIP"] for pod in pods if pod["status"]["phase"] == "Running")
    with urllib.request.urlopen(f"http://{address}:8080/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r"^(tollgate_run_\w+\{.*\}) (\S+)$", text, re.MULTILINE)
    return {series: float(value) for series, value in found if f'run="{NAME}"' in series}


def value(series: dict[str, float], name: str, *labels: str) -> float | None:
    """The value of one series; None when it is not there."""
    found = [v for s, v in series.items() if s.startswith(name + "{") and all(label in s for label in labels)]
    assert len(found) <= 1, (name, series)
    return found[0] if found else None


def test_prometheus_sees_the_run_for_as_long_as_it_is_there(tollgate: Tollgate, finished: Run) -> None:
    series = scraped(tollgate)
    cost = finished["status"]["cost"]
    assert value(series, "tollgate_run_phase", 'phase="Succeeded"') == 1
    assert value(series, "tollgate_run_step") == STEPS
    assert value(series, "tollgate_run_spent_usd") == pytest.approx(float(cost["spentUSD"]))
    assert value(series, "tollgate_run_budget_limit_usd") == float(cost["limitUSD"])
    assert value(series, "tollgate_run_cost_usd", 'category="evaluation"') == pytest.approx(
        float(cost["byCategory"]["evaluation"])
    )
    assert value(series, "tollgate_run_gate_verdict", 'stage="production"', 'verdict="Failed"') == 1
    assert value(series, "tollgate_run_info", f'policy="{POLICY}"') == 1

    output: Path = tollgate.output(NAME)
    tollgate.delete(NAME)
    eventually(lambda: not scraped(tollgate), 30, "the series of a run that is gone are gone")
    assert (output / Files.MODEL_INFO).exists() or (output / "model").is_dir(), "its model stays"
