"""The plan in real trainings: preflight changes nothing, the laptop's plan is the trainer's, memory is told early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tollgate.contract import Env, FailureReason
from trainer_fixtures import gang

pytestmark = pytest.mark.e2e

FAULTS = Path(__file__).parents[2] / "trainer_faults.py"
SHORT = {"max_steps": 16, "eval_steps": 8, "save_steps": 100, "logging_steps": 1, "learning_rate": 0.003}


def plan_on_a_laptop(document: dict[str, Any], root: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """`tollgate plan -o json`: (exit code, what it said)."""
    file = root / "data" / "manifest.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tollgate_cli.main", "plan", str(file), "-o", "json", *options],
        env={**os.environ, "TOLLGATE_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def test_runs_with_and_without_preflight_are_equal_bit_by_bit_and_a_profile_is_the_same_everywhere(
    tmp_path: Path,
) -> None:
    """Dropout is on, so a random generator that was touched would show in every loss after it."""
    changes: dict[str, Any] = {"hyperparameters": SHORT, "optimization_priority": "balanced"}
    checked = gang(tmp_path / "checked", **changes)
    plain = gang(tmp_path / "plain", preflight=False, **changes)
    for run in (checked, plain):
        code, output = run.run(1, **{Env.USD_PER_NODE_HOUR: "2"})
        assert code == 0, output
    assert checked.losses(1) == plain.losses(1)
    first, second = (run.words(1).model for run in (checked, plain))
    assert first is not None
    assert second is not None
    assert first.digest == second.digest

    checks = {event["check"]: event for event in checked.events("preflight")}
    assert set(checks) == {"device", "memory", "disk", "longest_step"}
    assert all(event["ok"] and event["message"] for event in checks.values())
    assert plain.events("preflight") == []
    assert not list(checked.output.glob(".preflight*"))

    written = json.loads((checked.output / "plan.json").read_text(encoding="utf-8"))
    code, told = plan_on_a_laptop(checked.document, checked.root, "--usd-per-hour", "2")
    assert code == 0, told
    assert told["settings"] == written["settings"]
    assert told["model"] == written["model"]
    assert told["work"] == written["work"]
    assert written["settings"]["accumulation"] == 2  # not the manifest's default: the profile's samples per step
    plan = checked.events("plan")[0]
    assert plan["accumulation"] == 2
    assert plan["total_steps"] == written["work"]["steps"] == 16

    end = checked.events("forecast")[-1]
    assert end["finished"]
    assert end["actual_hours"] > 0
    assert end["actual_usd"] == pytest.approx(2 * end["actual_hours"])
    assert end["forecast_seconds"] > 0
    info = json.loads((checked.output / "model" / "model_info.json").read_text(encoding="utf-8"))
    assert info["plan"]["error"] == end["error"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"hyperparameters": {"packing": True}}, id="packed"),
        pytest.param(
            {"hyperparameters": {"group_by_length": True}, "dataset": {"weight": 0.5}}, id="grouped, by halves"
        ),
    ],
)
def test_as_many_steps_are_trained_as_were_planned(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The plan is made of the manifest alone, by the process that `tollgate plan` asks; then it is really trained."""
    hyper = {**SHORT, "max_steps": None, "num_train_epochs": 1.5, **changes.get("hyperparameters", {})}
    run = gang(tmp_path, preflight=False, **{**changes, "hyperparameters": hyper})
    code, told = plan_on_a_laptop(run.document, tmp_path, "--gpu", "H100")
    assert code == 0, told
    code, output = run.run(1)
    assert code == 0, output
    event = run.events("plan")[0]
    planned = told["work"]
    assert planned["steps"] == event["total_steps"] == run.words(1).step == len(run.losses(1))
    assert planned["steps_per_epoch"] == event["steps_per_epoch"]
    assert planned["row_tokens"] == (48 if "packing" in hyper else None)
    assert told["model"]["trainable"] == event["trainable_parameters"]
    written = json.loads((run.output / "plan.json").read_text(encoding="utf-8"))["work"]
    same = ("steps", "samples_per_step", "tokens_per_step", "tokens", "computed", "evaluations", "held_out_tokens")
    assert {name: written[name] for name in same} == {name: planned[name] for name in same}


def test_memory_that_is_too_small_for_the_longest_step_is_told_before_the_first_and_halves_the_plan(
    tmp_path: Path,
) -> None:
    run = gang(tmp_path, hyperparameters=SHORT | {"max_steps": 2}, optimization_priority="fast")
    code, output = run.run(1, script=str(FAULTS), TOLLGATE_TEST_FAULT="memory:0:1")
    assert code == 70, output
    assert run.failures(1)[0].reason == FailureReason.OUT_OF_MEMORY
    assert run.events("step") == []
    record = json.loads((run.output / "logs" / "oom.json").read_text(encoding="utf-8"))
    assert record["state"] == "preflight"
    assert run.document["hyperparameters"]["per_device_train_batch_size"] == record["topology"]["micro_batch"] == 4
    code, output = run.run(2, **{Env.REPLAN: "1"})
    assert code == 0, output
    again = run.events("plan")[-1]
    assert (again["micro_batch"], again["samples_per_step"]) == (2, record["topology"]["accumulation"] * 4)


@pytest.mark.full
def test_several_processes_measure_their_network_and_resume_by_the_first_plan(tmp_path: Path) -> None:
    run = gang(tmp_path, hyperparameters=SHORT | {"save_steps": 4}, optimization_priority="quality")
    code, output = run.run(1, processes=2, script=str(FAULTS), TOLLGATE_TEST_FAULT="raise:1:6")
    assert code != 0
    first = (run.output / "plan.json").read_bytes()
    code, output = run.run(2, processes=2)
    assert code == 0, output
    assert any(event["check"] == "all_reduce" and event["value"] > 0 for event in run.events("preflight"))
    assert (run.output / "plan.json").read_bytes() == first
    assert run.events("plan")[-1]["kept_plan"]
    assert run.events("restore")[0]["equality"] == "bit-equal"


@pytest.mark.parametrize("impatient", [0, 1])
def test_processes_that_time_the_longest_step_differently_measure_it_equally_often(
    tmp_path: Path, impatient: int
) -> None:
    run = gang(tmp_path, hyperparameters={"max_steps": 2, "save_steps": 2, "eval_steps": 2})
    code, output = run.run(1, processes=2, script=str(FAULTS), TOLLGATE_TEST_FAULT=f"clock:{impatient}:0")
    assert code == 0, output
    assert [event["step"] for event in run.events("step")][-1] == 2


@pytest.mark.full
def test_a_plan_that_does_not_fit_says_so_by_its_exit_code_and_one_with_mistakes_tells_all_of_them(
    tmp_path: Path,
) -> None:
    run = gang(tmp_path, hyperparameters=SHORT)
    code, told = plan_on_a_laptop(run.document, tmp_path, "--gpu", "L4", "--window", "1s")
    assert (code, told["limits"]["fits"]) == (1, False)
    code, told = plan_on_a_laptop(run.document, tmp_path, "--gpu", "L4", "--window", "soon", "--max-cost", "x")
    assert code == 64
    assert "--window" in told["error"]
    assert "--max-cost" in told["error"]
