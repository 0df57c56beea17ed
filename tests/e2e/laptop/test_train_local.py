"""Real trainings on this machine: torch processes, files on a disk, signals. Small models, nothing simulated."""

from __future__ import annotations

import json
import shutil
import signal
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tollgate.contract import Env, FailureReason, Outcome, StopReason, TrainMetric
from tollgate_trainer.lifecycle.goodput import without_lost_steps
from tollgate_trainer.lifecycle.heartbeat import Beat, Heartbeat
from tollgate_trainer.lifecycle.lease import Holder, Lease
from trainer_fixtures import Gang, ended, free_port, gang, wait_for

pytestmark = pytest.mark.e2e

FAULTS = Path(__file__).parents[2] / "trainer_faults.py"
LONG = {"max_steps": 100_000, "save_steps": 100_000, "eval_steps": 100_000}
LORA = {"type": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}


def finished(run: Gang, attempt: int = 1, processes: int = 1, **more: str) -> str:
    """Run an attempt to its end and answer the model's digest."""
    code, output = run.run(attempt, processes, **more)
    assert code == 0, output
    words = run.words(attempt)
    assert words.outcome is Outcome.COMPLETED
    assert words.model is not None
    return words.model.digest


def interrupted(run: Gang, after: int, processes: int = 1, **more: str) -> int:
    """Run attempt 1 until step `after` was logged, ask it to stop, and answer the step of the checkpoint it left."""
    with ended(run.start(1, processes, **more)) as process:
        wait_for(lambda: any(event["step"] >= after for event in run.events("step")) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    words = run.words(1)
    assert words.outcome is Outcome.STOPPED, output
    assert words.reason == StopReason.SIGNAL
    assert words.checkpoint is not None
    assert words.checkpoint.step == words.step
    return words.checkpoint.step


def slowed(**changes: Any) -> dict[str, Any]:
    """Enough steps that a signal meets a training that still has some to go."""
    steps = changes.pop("hyperparameters", {})
    return {"hyperparameters": {"max_steps": 120, "save_steps": 50, "eval_steps": 60, **steps}, **changes}


@pytest.mark.parametrize(
    ("processes", "changes"),
    [
        pytest.param(1, {}, id="full, one process"),
        pytest.param(2, {}, id="full, two processes", marks=pytest.mark.full),
        pytest.param(1, {"adapter": LORA}, id="lora, one process", marks=pytest.mark.full),
        pytest.param(  # test_resume_matrix holds the same in every run, without importing torch anew for each attempt
            2,
            {"adapter": LORA, "hyperparameters": {"gradient_accumulation_steps": 2}},
            id="lora, two, accumulating",
            marks=pytest.mark.full,
        ),
    ],
)
def test_a_stopped_and_resumed_training_is_bit_equal_to_one_that_was_never_stopped(
    tmp_path: Path, processes: int, changes: dict[str, Any]
) -> None:
    changes = slowed(**changes)
    control, again = gang(tmp_path / "control", **changes), gang(tmp_path / "again", **changes)
    digest = finished(control, processes=processes)
    assert finished(again, processes=processes) == digest, "two uninterrupted runs differ, so nothing can be said"
    broken = gang(tmp_path / "broken", **changes)
    step = interrupted(broken, 20, processes)
    assert 20 <= step < 120
    assert finished(broken, 2, processes) == digest
    assert broken.words(2).resumed_from_step == step
    assert [event["equality"] for event in broken.events("restore")] == ["bit-equal"]
    for rank in range(processes):
        expected = control.losses(1, rank)
        assert again.losses(1, rank) == expected
        told = broken.losses(1, rank) | broken.losses(2, rank)
        assert told == expected
        assert min(broken.losses(2, rank)) == step + 1


def test_a_training_resumed_at_the_end_of_an_epoch_is_bit_equal_too(tmp_path: Path) -> None:
    """73 training documents in batches of 4 are 19 steps, and the 19th is where the checkpoint lies."""
    changes = {"hyperparameters": {"max_steps": 30, "save_steps": 19, "eval_steps": 100}}
    control, broken = gang(tmp_path / "control", **changes), gang(tmp_path / "broken", **changes)
    digest = finished(control)
    finished(broken)
    shutil.rmtree(broken.output / "model")
    shutil.rmtree(broken.output / "checkpoints" / "checkpoint-30")
    assert finished(broken, 2) == digest
    assert broken.losses(2) == {step: loss for step, loss in control.losses(1).items() if step > 19}


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_after_a_sigkill_the_next_attempt_goes_on_from_the_newest_commit_and_books_the_loss(tmp_path: Path) -> None:
    run = gang(tmp_path, hyperparameters={"max_steps": 40_000, "save_steps": 400, "eval_steps": 50_000})
    with ended(run.start(1)) as process:
        wait_for(lambda: any(event["step"] >= 430 for event in run.events("step")))
        wait_for(lambda: _beat(run, 1).get("step", 0) >= 430)
        process.kill()
    began = [float(run.started_at)]
    (run.output / "checkpoints" / ".attempt-1" / "checkpoint-800").mkdir(parents=True, exist_ok=True)
    with ended(run.start(2)) as process:
        wait_for(lambda: run.events("restore"))
        wait_for(lambda: _beat(run, 2).get("run_seconds", {}).get("lost", 0) > 0)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    began.append(float(run.started_at))
    words = run.words(2)
    assert words.resumed_from_step is not None
    assert words.resumed_from_step % 400 == 0
    assert words.resumed_from_step > 0
    before, after = _beat(run, 1), _beat(run, 2)
    for start, beat in zip(began, (before, after), strict=True):
        assert sum(beat["attempt_seconds"].values()) == pytest.approx(beat["at"] - start, rel=0.01)
    assert after["run_seconds"]["lost"] > 0
    known = sum(before["run_seconds"].values()) + sum(after["attempt_seconds"].values())
    assert sum(after["run_seconds"].values()) == pytest.approx(known, rel=0.01)


def _beat(run: Gang, attempt: int) -> dict[str, Any]:
    path = run.output / "logs" / f"heartbeat-{attempt}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


@pytest.mark.parametrize("since", ["start", "heartbeat"])
def test_a_stop_before_the_first_step_keeps_what_earlier_attempts_had_lost(tmp_path: Path, since: str) -> None:
    run = gang(tmp_path)
    earlier = {"step": 100.0, "lost": 7.0, "load": 3.0}
    Heartbeat(run.output, 1, lambda: Beat(1, run.uid, 1.0, "step", 5, earlier, earlier)).write()
    with ended(run.start(2)) as process:
        wait_for(lambda: run.events("start") if since == "start" else _beat(run, 2))
        first = _beat(run, 2)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    for beat in filter(None, (first, _beat(run, 2))):
        told, own = beat["run_seconds"], beat["attempt_seconds"]
        assert sum(told.values()) == pytest.approx(110 + sum(own.values()), abs=0.1)
        assert told["step"] + told["lost"] == pytest.approx(107 + own["step"], abs=0.1)
        assert without_lost_steps(told, 60.0)["lost"] >= 47 - 0.1
    assert sum(_beat(run, 2)["attempt_seconds"].values()) > 0.1


def test_the_states_of_the_goodput_clock_add_up_to_the_wall_time(tmp_path: Path) -> None:
    run = gang(tmp_path, hyperparameters={"max_steps": 40})
    finished(run)
    words = run.words()
    assert words.goodput_seconds is not None
    assert words.ended_at is not None
    started = float(run.started_at)
    assert sum(words.goodput_seconds.values()) == pytest.approx(words.ended_at.timestamp() - started, rel=0.01)
    assert {"import", "data", "load", "step", "evaluate", "save", "restore", "stop"} <= set(words.goodput_seconds)
    assert words.goodput_seconds["step"] > 0


def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path: Path) -> None:
    control, run = gang(tmp_path / "control"), gang(tmp_path / "run")
    digest = finished(control)
    finished(run)
    shutil.rmtree(run.output / "model")
    weights = run.output / "checkpoints" / "checkpoint-20" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert finished(run, 2) == digest
    assert run.words(2).resumed_from_step == 15
    assert any("checkpoint 20 is not used" in event["message"] for event in run.events("warning"))


def test_the_trainer_leaves_by_itself_before_the_deadline_with_a_checkpoint_and_its_reason(tmp_path: Path) -> None:
    run = gang(tmp_path / "run", hyperparameters={"max_steps": 100_000, "save_steps": 100_000, "eval_steps": 100_000})
    started = time.monotonic()
    finished(gang(tmp_path / "measure", hyperparameters={"max_steps": 2}))  # how slow this machine is today
    deadline = time.time() + 2 * (time.monotonic() - started) + 25
    more = {Env.DEADLINE: f"{deadline:.3f}", Env.STOP_REASON: "BudgetExceeded", Env.GRACE_SECONDS: "8"}
    port = free_port()
    with ended(run.start(1, **more, **{Env.METRICS_PORT: str(port), Env.POD_IP: "127.0.0.1"})) as process:
        wait_for(lambda: len(run.events("step")) > 3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            exposed = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert float(exposed[TrainMetric.STEP]) > 0
    assert abs(float(exposed[TrainMetric.LAST_PROGRESS]) - time.time()) < 120
    assert float(exposed[TrainMetric.GOODPUT + '{category="step"}']) > 0
    words = run.words()
    assert (words.outcome, words.reason) == (Outcome.STOPPED, StopReason.BUDGET)
    assert words.checkpoint is not None
    assert words.checkpoint.step == words.step
    assert words.step
    assert words.ended_at is not None
    assert words.ended_at.timestamp() < deadline - 8


def test_a_newer_attempt_fences_an_older_one_out_before_it_can_commit(tmp_path: Path) -> None:
    run = gang(tmp_path, hyperparameters={"max_steps": 100_000, "save_steps": 200, "eval_steps": 100_000})
    with ended(run.start(1)) as process:
        wait_for(lambda: run.events("save"))
        Lease.acquire(run.output, Holder.here(run.uid, 2, "tiny", "test", datetime.now(UTC)))
        committed = sorted(path.name for path in (run.output / "checkpoints").glob("checkpoint-*/COMMIT.json"))
        process.communicate(timeout=120)
    assert process.returncode == 70
    failure = run.failures(1)[0]
    assert failure.reason == FailureReason.FENCED
    assert failure.error is not None
    assert "attempt 2" in failure.error.message
    assert sorted(path.name for path in (run.output / "checkpoints").glob("checkpoint-*/COMMIT.json")) == committed


def test_a_rank_that_dies_makes_its_peers_say_that_they_are_victims(tmp_path: Path) -> None:
    run = gang(tmp_path, hyperparameters={"max_steps": 100_000, "save_steps": 100_000, "eval_steps": 100_000})
    code, output = run.run(1, 2, script=str(FAULTS), TOLLGATE_TEST_FAULT="raise:1:5")
    assert code != 0
    reasons = {words.error.rank: words.reason for words in run.failures() if words.error is not None}
    assert reasons == {0: FailureReason.PEER_LOST, 1: FailureReason.EXCEPTION}, output


# --- numbers that are none --------------------------------------------------------------------------------------------


def test_a_nan_on_one_rank_of_two_stops_both_and_names_step_and_samples(tmp_path: Path) -> None:
    run = gang(tmp_path, hyperparameters={"max_steps": 40, "save_steps": 5})
    code, output = run.run(1, 2, script=str(FAULTS), TOLLGATE_TEST_FAULT="nan:1:8")
    assert code != 0
    failures = run.failures()
    assert [words.reason for words in failures] == [FailureReason.NON_FINITE] * 2, output
    error = failures[0].error
    assert error is not None
    assert "step 8" in error.message
    assert "rank 1: loss nan, samples" in error.message
    assert "rank 0: loss" not in error.message
    assert failures[0].checkpoint is not None
    assert failures[0].checkpoint.step == 5
    weights = load_file(run.output / failures[0].checkpoint.path / "model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    named = error.message.split("samples ")[1].split(")")[0].split(", ")
    assert len(named) == 4
    assert max(run.losses(1, 0)) == 7


def test_memory_that_runs_out_is_told_as_such_and_the_next_plan_halves_the_micro_batch(tmp_path: Path) -> None:
    run = gang(tmp_path, hyperparameters={"max_steps": 6, "save_steps": 2})
    code, output = run.run(1, script=str(FAULTS), TOLLGATE_TEST_FAULT="memory:0:3")
    assert code == 70
    failure = run.failures()[0]
    assert failure.reason == FailureReason.OUT_OF_MEMORY, output
    assert failure.error is not None
    assert "the next attempt halves them" in failure.error.message
    assert json.loads((run.output / "logs" / "oom.json").read_text())["topology"]["micro_batch"] == 4
    assert finished(run, 2, **{Env.REPLAN: "1"})
    plan = run.events("plan")[-1]
    assert (plan["micro_batch"], plan["accumulation"], plan["samples_per_step"]) == (2, 2, 4)
    assert run.events("restore")[-1]["equality"] == "statistical"


# --- the same run, elsewhere or again ---------------------------------------------------------------------------------


def test_a_training_goes_on_with_another_number_of_processes_and_says_that_it_is_not_bit_equal(tmp_path: Path) -> None:
    run = gang(tmp_path, **slowed())
    step = interrupted(run, 20, processes=2)
    finished(run, 2, processes=1)
    assert run.words(2).resumed_from_step == step
    assert run.words(2).total_steps == 120
    restore = run.events("restore")[-1]
    assert restore["equality"] == "statistical"
    assert any(reason.startswith("world: 2 -> 1") for reason in restore["because"])
    assert run.events("plan")[-1]["samples_per_step"] == 8
    info = json.loads((run.output / "model" / "model_info.json").read_text())
    assert info["equality"] == "statistical"


def test_finished_output_of_the_same_manifest_and_data_is_adopted_without_a_step(tmp_path: Path) -> None:
    run = gang(tmp_path)
    digest = finished(run)
    saves = len(run.events("save"))
    assert finished(run, 2) == digest
    assert run.words(2).adopted is True
    assert len(run.events("save")) == saves
    again = Gang(run.root, run.document, uid="another-run")
    assert finished(again, 1) == digest


def test_output_of_another_manifest_is_refused_unless_a_fresh_start_is_asked_for(tmp_path: Path) -> None:
    run = gang(tmp_path)
    digest = finished(run)
    other = Gang(run.root, run.document | {"description": "another"}, uid="another-run")
    code, _ = other.run(1)
    assert code == 64
    failure = other.failures(1)[0]
    assert failure.reason == FailureReason.OUTPUT
    assert failure.error is not None
    assert "restart.fresh" in failure.error.message
    assert finished(other, 2, **{Env.FRESH: "true"}) == digest  # the description changes no weight
    aside = next(run.output.glob("previous-*"))
    assert (aside / "model" / "model_info.json").is_file()
    assert (aside / "logs" / "events.jsonl").is_file()
    assert other.words(2).adopted is None


def test_patience_is_remembered_over_a_restart_and_the_best_weights_survive_a_moved_folder(tmp_path: Path) -> None:
    """No evaluation after the first is better by five nats, so patience ends the training at the fourth."""
    changes = {
        "hyperparameters": {"max_steps": 60, "eval_steps": 5, "save_steps": 5},
        "early_stopping": {"patience": 3, "min_delta": 5.0},
        "checkpoint": {"keep_last": 3},
    }
    control = gang(tmp_path / "control", **changes)
    digest = finished(control)
    evaluated = [event["eval_loss"] for event in control.events("eval")]
    last = control.words().step
    assert last == 20
    run = gang(tmp_path / "run", **changes)
    finished(run)
    shutil.rmtree(run.output / "model")
    for step in (last, 15):
        shutil.rmtree(run.output / "checkpoints" / f"checkpoint-{step}")
    moved = Gang(tmp_path / "moved", run.document)
    shutil.move(run.root, moved.root)
    assert finished(moved, 2) == digest
    assert moved.words(2).step == last
    info = json.loads((moved.output / "model" / "model_info.json").read_text())
    assert info["stopped_early"] is True
    assert info["metrics"]["eval_loss"] == pytest.approx(evaluated[0])
    assert info["chosen_step"] == 5


# --- more than one node -----------------------------------------------------------------------------------------------


def test_a_signal_to_one_node_of_two_stops_both_at_the_same_step_with_one_checkpoint(tmp_path: Path) -> None:
    run = gang(tmp_path, hyperparameters=LONG | {"dataloader_num_workers": 1})
    with ended(run.start_node(1, 0)) as first, ended(run.start_node(1, 1)) as second:
        wait_for(lambda: any(event["step"] >= 10 for event in run.events("step")))
        second.send_signal(signal.SIGTERM)
        told = [process.communicate(timeout=120)[0] for process in (second, first)]
    words = [run.words(1, node) for node in (0, 1)]
    assert [(w.outcome, w.reason) for w in words] == [(Outcome.STOPPED, StopReason.SIGNAL)] * 2, told
    assert words[0].step == words[1].step
    assert words[0].checkpoint is not None
    assert words[0].checkpoint == words[1].checkpoint
    assert words[0].checkpoint.step == words[0].step
