"""`tollgate run` as a person types it: real processes, real training, Ctrl-C, limits, refusals, what is left behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import trainer_fixtures as fixtures
from tollgate.contract import Files, LastWords

pytestmark = pytest.mark.e2e
PATIENCE = 240.0
ROOT = Path(__file__).resolve().parents[3]

POLICY = """
apiVersion: tollgate.dev/v1alpha1
kind: PromotionPolicy
metadata: {name: tiny}
spec:
  stages:
    - name: staging
      checks: [{metric: perplexity, op: "<=", threshold: 400, minSamples: 4}]
    - name: production
      requires: [staging]
      checks: [{metric: perplexity, op: "<=", threshold: 1.5, minSamples: 4}]
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.05)


@dataclass
class Desk:
    """A folder with a manifest, its data and a policy, and the command `tollgate` in it."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        return self.folder / "runs/tiny"

    def write(self, **changes: Any) -> None:
        text = yaml.safe_dump(fixtures.manifest(**changes))
        (self.folder / "manifest.yaml").write_text(text)

    def start(self, *arguments: str, stderr: int = subprocess.PIPE, **environ: str) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TOLLGATE_")}
        path = os.pathsep.join(str(p) for p in (self.folder / "site", *(ROOT / p for p in ("core", "cli", "trainer"))))
        process = subprocess.Popen(
            [sys.executable, "-m", "tollgate_cli.main", *arguments],
            cwd=self.folder,
            env=inherited | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120"} | environ,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run_before_eyes(self, *arguments: str) -> tuple[int, str, str]:
        """With a terminal as standard error; answers what was drawn there instead of it."""
        ours, theirs = pty.openpty()
        process = self.start(*arguments, stderr=theirs, TERM="xterm")
        os.close(theirs)
        drawn = b""
        with suppress(OSError):  # what a terminal answers when nobody holds its other end
            while part := os.read(ours, 65536):
                drawn += part
        out, _ = process.communicate(timeout=PATIENCE)
        os.close(ours)
        return process.returncode, out, drawn.decode()

    def run(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environ)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def events(self, kind: str) -> list[dict[str, Any]]:
        try:
            lines = (self.output / Files.EVENTS).read_text().splitlines()
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in found if event["event"] == kind]

    def result(self) -> LastWords:
        words = LastWords.parse((self.output / Files.RESULT).read_text())
        assert words is not None
        return words


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.write()
    fixtures.write_conversations(tmp_path / "data.json")
    (tmp_path / "policy.yaml").write_text(POLICY)
    metadata = tmp_path / "site/tollgate_here-1.dist-info"  # the commands as an installation declares them
    metadata.mkdir(parents=True)
    places = {"run": "commands", "evaluate": "commands", "gate": "commands", "report": "report.commands"}
    names = "\n".join(f"{name} = tollgate_trainer.{place}:{name}" for name, place in places.items())
    (metadata / "entry_points.txt").write_text(f"[tollgate.commands]\n{names}\n")
    (metadata / "METADATA").write_text("Name: tollgate-here\nVersion: 1\n")
    yield desk
    for process in desk.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def descendants(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found += [int(entry.parent.name), *descendants(int(entry.parent.name))]
    return found


def test_a_manifest_becomes_a_judged_model_and_the_same_command_again_finds_it(desk: Desk) -> None:
    code, out, err = desk.run("run", "manifest.yaml", "--policy", "policy.yaml", "-o", "json")
    assert code == 0, err
    told = json.loads(out)
    assert told["result"]["outcome"] == "completed"
    assert told["result"]["step"] == 20
    assert {metric["name"] for metric in told["evaluation"]["metrics"]} == {"perplexity", "quality_score"}
    assert [gate["stage"] for gate in told["gates"]] == ["staging", "production"]
    assert told["gates"][1]["verdict"] == "Failed", "no model of this size predicts like that"
    assert "step 20/20" in err
    assert (desk.output / Files.MODEL / "model.safetensors").exists()
    html = Path(told["report"]).read_text()
    assert "production: Failed" in html
    assert told["result"]["model"]["digest"] in html

    code, out, err = desk.run("run", "manifest.yaml", "--no-evaluate")
    assert code == 0, err
    assert "Nothing to train" in out
    assert len(desk.events("step")) == 20

    code, out, _ = desk.run("gate", "runs/tiny", "--policy", "policy.yaml")
    assert code == 1
    assert "production" in out
    code, out, drawn = desk.run_before_eyes("evaluate", "manifest.yaml", "--policy", "policy.yaml", "-o", "json")
    assert code == 0, drawn
    assert "evaluating" in drawn
    assert "Traceback" not in drawn
    again = json.loads(out)
    assert again["evaluation"]["metrics"] == told["evaluation"]["metrics"]
    assert 0 < again["evaluationSeconds"] < again["seconds"]
    assert "evaluationUSD" not in again, "nobody said what this machine costs"
    code, out, err = desk.run("evaluate", "runs/tiny", "--usd-per-hour", "36", "--policy", "policy.yaml")
    assert code == 0, err
    assert re.search(r"This evaluation took \d+s, \d+\.\d\d USD at 36\.00 USD an hour", out), out
    assert re.search(r"^  perplexity .* upper <= 400 +Passed$", out, re.MULTILINE), out
    assert not [line for line in out.splitlines() if "\x1b" in line]
    code, out, _ = desk.run("report", "runs/tiny")
    assert (code, Path(out.strip()).name) == (0, "index.html")


@pytest.mark.full
def test_a_run_s_folder_is_evaluated_again_with_another_suite_and_a_baseline_and_any_model_folder_is_measured(
    desk: Desk,
) -> None:
    code, _, err = desk.run("run", "manifest.yaml", "--no-evaluate")
    assert code == 0, err
    code, _, _ = desk.run("gate", "runs/tiny", "--policy", "policy.yaml")
    assert code == 3, "without an evaluation nothing passed and nothing failed"
    arguments = ("--suite", "perplexity", "--suite", "bits_per_byte", "--baseline", "runs/tiny", "-o", "json")
    code, out, err = desk.run("evaluate", "runs/tiny", *arguments)
    assert code == 0, err
    found = {metric["name"]: metric for metric in json.loads(out)["evaluation"]["metrics"]}
    assert set(found) == {"perplexity", "perplexity_delta", "bits_per_byte", "bits_per_byte_delta"}
    assert found["perplexity_delta"]["value"] == 0
    code, out, err = desk.run("evaluate", "runs/tiny", "--suite", "toxicity")
    assert code == 64
    assert "evaluation.prompt_sets.toxicity" in out + err
    (desk.folder / "asks.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    (desk.folder / "rules.json").write_text('{"name": "r", "version": "1", "patterns": ["gate"]}')
    (desk.folder / "how.yaml").write_text("evaluation: {scorer: {toxicity: rules.json}, max_new_tokens: 8}\n")
    arguments = ("--suite", "toxicity", "--prompts", "asks.jsonl", "--settings", "how.yaml", "-o", "json")
    code, out, err = desk.run("evaluate", "runs/tiny/model", *arguments)
    assert code == 0, err
    (metric,) = json.loads(out)["metrics"]
    assert (metric["name"], metric["samples"]) == ("toxicity_ratio", 2)
    assert "labelled" in metric["advisory"]
    code, _, err = desk.run("evaluate", "runs/tiny/model", *arguments, "--policy", "policy.yaml")
    assert code == 64
    assert "can't be judged" in err


def test_ctrl_c_stops_with_a_checkpoint_and_the_same_command_goes_on_from_it(desk: Desk) -> None:
    desk.write(hyperparameters={"max_steps": 200, "save_steps": 1000, "eval_steps": 1000})
    process = desk.start("run", "manifest.yaml", "--no-evaluate")
    wait_for(lambda: len(desk.events("step")) >= 5 or process.poll() is not None, "five steps")
    below = descendants(process.pid)
    assert len(below) >= 3, "launcher, torchrun and worker"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, out + err
    assert "with a checkpoint" in out
    assert "tollgate run manifest.yaml" in out
    stopped = desk.result()
    assert stopped.reason == "Signal"
    assert stopped.checkpoint is not None
    assert 5 <= stopped.checkpoint.step < 200
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)

    code, out, err = desk.run("run", "manifest.yaml", "--no-evaluate")
    assert code == 0, err
    assert f"going on from the checkpoint of step {stopped.checkpoint.step}" in out
    assert desk.result().resumed_from_step == stopped.checkpoint.step
    steps = [event["step"] for event in desk.events("step")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 200

    code, out, err = desk.run(
        "run", "manifest.yaml", "--no-evaluate", "--resume", "none", "--max-steps", "2", "--output", "runs/tiny"
    )
    assert code == 0, err
    assert desk.result().step == 2
    assert list(desk.output.glob("previous-*/model")), "earlier work is moved aside, not lost"


def test_the_cap_in_money_holds_and_the_refusal_afterwards_says_to_what_to_raise_it(desk: Desk) -> None:
    desk.write(
        hyperparameters={"max_steps": 1_000_000, "save_steps": 100_000, "eval_steps": 100_000, "logging_steps": 50}
    )
    code, out, err = desk.run("run", "manifest.yaml", "--usd-per-hour", "60", "--max-cost", "0.6", "-o", "json")
    assert code == 75, err
    told = json.loads(out)
    assert told["result"]["reason"] == "BudgetExceeded"
    assert told["result"]["checkpoint"]["step"] > 0
    assert 0 < float(told["spentUSD"]) <= 0.6
    code, _, err = desk.run("run", "manifest.yaml", "--usd-per-hour", "60", "--max-cost", "0.6")
    assert code == 64
    assert "--max-cost is 0.60 USD" in err
    assert "Raise it to" in err


@pytest.mark.parametrize("late", [False, True], ids=["at-once", "after-its-peer"])
def test_a_worker_that_is_killed_is_told_with_its_rank(desk: Desk, late: bool) -> None:
    desk.write(hyperparameters={"max_steps": 100_000, "save_steps": 100_000, "eval_steps": 100_000})
    process = desk.start("run", "manifest.yaml", "--no-evaluate", "--nproc", "2", "-o", "json")
    wait_for(lambda: len(desk.events("step")) >= 3 or process.poll() is not None, "three steps")
    workers = [p for p in descendants(process.pid) if "RANK=1" in _environ(p)]
    assert workers
    if late:  # torchrun looks only when the other one has failed as well, and can't tell who was the first
        torchrun = int(_status(workers[0], "PPid"))
        other = next(p for p in descendants(process.pid) if "RANK=0" in _environ(p))
        os.kill(torchrun, signal.SIGSTOP)
        os.kill(workers[0], signal.SIGKILL)
        wait_for(lambda: _status(other, "State").startswith("Z"), "the other worker to lose its peer")
        os.kill(torchrun, signal.SIGCONT)
    else:
        os.kill(workers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 137, err
    error = json.loads(out)["result"]["error"]
    assert "signal 9" in error["message"]
    assert error["rank"] == 1


def _status(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{field}:")).partition(":")[2].strip()


def _environ(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def test_two_commands_in_one_folder_do_not_fence_each_other(desk: Desk) -> None:
    desk.write(hyperparameters={"max_steps": 100_000})
    first = desk.start("run", "manifest.yaml")
    wait_for(lambda: (desk.output / ".run.lock").exists(), "the first to hold the folder")
    code, _, err = desk.run("run", "manifest.yaml")
    assert code == 64
    assert "another tollgate command works in" in err
    first.send_signal(signal.SIGINT)
    first.send_signal(signal.SIGINT)
    first.wait(PATIENCE)


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({"hyperparametres": {}}, (), "did you mean hyperparameters"),
        ({"dataset": {"path": "nowhere.json"}}, (), "nowhere.json does not exist"),
        ({"dataset": {"path": "data.json", "sha256": "0" * 64}}, (), "dataset.sha256"),
        ({}, ("--max-cost", "5"), "--usd-per-hour"),
        ({}, ("--usd-per-hour", "-1"), "--usd-per-hour"),
        ({}, ("--max-runtime", "5 minutes"), "--max-runtime"),
        ({}, ("--max-runtime", "3s"), "--max-runtime"),
        ({}, ("--nproc", "0"), "--nproc"),
        ({}, ("--name", "My Run"), "--name 'My Run'"),
        ({}, ("--policy", "manifest.yaml"), "must hold one PromotionPolicy"),
        ({"evaluation": {"suites": ["unheard-of"]}}, (), "there is no suite 'unheard-of'; known are standard"),
    ],
)
def test_bad_input_is_refused_with_64_and_words_that_help(
    desk: Desk, changes: dict[str, Any], arguments: tuple[str, ...], words: str
) -> None:
    desk.write(**changes)
    code, out, err = desk.run("run", "manifest.yaml", *arguments)
    assert code == 64, out + err
    assert words.lower() in (out + err).lower()
    assert "Traceback" not in out + err


def test_a_budget_without_a_price_is_said_not_to_be_held(desk: Desk) -> None:
    desk.write(resources={"max_budget_usd": 5})
    code, out, err = desk.run("run", "manifest.yaml", "--max-steps", "1", "--no-evaluate")
    assert code == 0, err
    assert "is not held: give a price with --usd-per-hour" in out
