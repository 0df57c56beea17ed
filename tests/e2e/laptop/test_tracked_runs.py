"""Real trainings told to real trackers: MLflow in a database file and behind a server process, W&B in its files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tollgate.contract import Outcome
from trainer_fixtures import Gang, ended, free_port, gang, wait_for

pytestmark = pytest.mark.e2e

CANARY = "canary-5d1f0c9a7b"
SECRETS = {"WANDB_API_KEY": CANARY, "MLFLOW_TRACKING_PASSWORD": CANARY, "MLFLOW_TRACKING_USERNAME": "someone"}
STEPS = {"max_steps": 60, "save_steps": 20, "eval_steps": 30}


def stopped_after(run: Gang, step: int) -> int:
    """Attempt 1 until that step was logged, then asked to stop; answers the step of its checkpoint."""
    with ended(run.start(1)) as process:
        wait_for(lambda: any(event["step"] >= step for event in run.events("step")) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=200)
    words = run.words(1)
    assert words.outcome is Outcome.STOPPED, output
    assert words.checkpoint is not None
    return words.checkpoint.step


def evaluate(run: Gang) -> str:
    environ = run.environment(1, 1)
    command = [sys.executable, "-m", "tollgate_trainer", "evaluate"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def mlflow_facts(uri: str, experiment: str) -> dict[str, Any]:
    """What MLflow knows, asked in a process of its own: its library changes the one that imports it."""
    script = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1], registry_uri=sys.argv[1])
found = client.get_experiment_by_name(sys.argv[2])
runs = client.search_runs([found.experiment_id]) if found else []
def one(run):
    id = run.info.run_id
    def files(path=None):
        for item in client.list_artifacts(id, path):
            yield from files(item.path) if item.is_dir else [item.path]
    return {"id": id, "status": run.info.status, "params": run.data.params, "metrics": run.data.metrics,
        "losses": [[m.step, m.value] for m in client.get_metric_history(id, "loss")], "files": list(files()),
        "digests": [tag.value for i in run.inputs.dataset_inputs for tag in i.tags]}
models = [{"name": v.name, "version": v.version, "run": v.run_id, "digest": v.tags.get("tollgate.digest"),
    "aliases": client.get_registered_model(v.name).aliases} for v in client.search_model_versions()]
print(json.dumps({"runs": [one(run) for run in runs], "models": models}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, uri, experiment],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def told_everything(run: Gang, facts: dict[str, Any]) -> None:
    (only,) = facts["runs"]
    assert only["status"] == "FINISHED"
    expected = {event["step"]: event["loss"] for event in run.events("step")}
    assert sorted(expected) == list(range(1, 61))
    assert only["losses"] == [[step, expected[step]] for step in sorted(expected)]
    assert only["params"]["hyperparameters.max_steps"] == "60"
    assert only["params"]["plan.total_steps"] == "60"
    (data, *_) = run.events("data")
    assert data["digest"] in only["digests"]
    assert {"eval_loss", "goodput.step_seconds", "tokens_per_second", "grad_norm"} <= set(only["metrics"])
    assert "model/model_info.json" in only["files"]
    info = json.loads((run.output / "model" / "model_info.json").read_text())
    (version,) = facts["models"]
    assert (version["name"], version["run"], version["digest"]) == ("toy", only["id"], info["digest"])
    assert version["aliases"] == {"candidate": version["version"]}


def test_a_run_that_is_stopped_resumed_and_evaluated_is_one_tracking_run(tmp_path: Path) -> None:
    tracking = {"mlflow": {"registered_model": "toy", "alias": "candidate"}}
    run = gang(tmp_path, SECRETS, hyperparameters=STEPS, tracking=tracking)
    stopped_after(run, 25)
    code, output = run.run(2)
    assert code == 0, output
    output += evaluate(run)
    facts = mlflow_facts(f"sqlite:///{run.output}/tracking/mlflow.db", "tiny")
    told_everything(run, facts)
    (only,) = facts["runs"]
    assert {"evaluation/evidence.json", "report/index.html"} <= set(only["files"])
    assert {"final.perplexity", "final.perplexity.upper", "final.perplexity.samples"} <= set(only["metrics"])
    kept = json.loads((run.output / "checkpoints" / "checkpoint-60" / "lifecycle.json").read_text())
    assert kept["trackers"] == {"mlflow": only["id"]}
    assert CANARY not in output
    assert [
        str(path) for path in run.output.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()
    ] == []


def test_a_dead_server_does_not_touch_the_training_and_is_said_once(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    tracking = {"mlflow": {"tracking_uri": dead}}
    run = gang(tmp_path, SECRETS, tracking=tracking, hyperparameters={"max_steps": 10})
    code, output = run.run(1)
    assert code == 0, output
    assert run.words().outcome is Outcome.COMPLETED
    assert len(run.events("step")) == 10
    note = json.loads((run.output / "logs" / "tracking.json").read_text())["mlflow"]
    assert (note["id"], note["told"]) == (None, 0)
    assert note["failures"] >= 1
    said = [event["message"] for event in run.events("warning") if "mlflow could not be told" in event["message"]]
    assert len(said) == 1
    assert CANARY not in output + json.dumps(run.events()) + json.dumps(note)


@contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "files")]
    around = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    log = (folder / "log").open("w")
    process = subprocess.Popen(command, env=around, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for(lambda: _answers(f"http://127.0.0.1:{port}/health"), 200)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.full
def test_a_server_that_comes_late_learns_everything_with_the_next_attempt_and_the_model_files(tmp_path: Path) -> None:
    port = free_port()
    tracking: dict[str, Any] = {
        "tracking_uri": f"http://127.0.0.1:{port}",
        "registered_model": "toy",
        "alias": "candidate",
    }
    run = gang(tmp_path, hyperparameters=STEPS, tracking={"mlflow": tracking | {"log_model": True}})
    stopped_after(run, 25)
    with server(tmp_path / "server", port) as uri:
        code, output = run.run(2)
        assert code == 0, output
        evaluate(run)
        facts = mlflow_facts(uri, "tiny")
    told_everything(run, facts)
    assert "model/model.safetensors" in facts["runs"][0]["files"]


@pytest.mark.full
def test_wandb_offline_leaves_folders_of_one_run_for_sync_without_a_word_about_the_machine(tmp_path: Path) -> None:
    tracking = {"wandb": {"mode": "offline", "project": "p", "tags": ["t"]}}
    run = gang(tmp_path, SECRETS, hyperparameters=STEPS, tracking=tracking)
    stopped_after(run, 25)
    code, output = run.run(2)
    assert code == 0, output
    folders = sorted((run.output / "tracking" / "wandb").glob("offline-run-*"))
    name = json.loads((run.output / "logs" / "tracking.json").read_text())["wandb"]["id"]
    assert len(folders) == 2
    assert {folder.name.rsplit("-", 1)[1] for folder in folders} == {name}
    assert all(list(folder.glob("run-*.wandb")) for folder in folders)
    assert [
        str(path) for path in run.output.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()
    ] == []
