"""Real trainings on this machine: torch processes, files on a disk, signals. Small models, nothing simulated."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trainer_fixtures import Gang, ended, gang, wait_for

from tollgate.contract import Env, FailureReason, Outcome, StopReason

pytestmark = pytest.mark.e2e

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
        pytest.param(2, {}, id="full, two processes"),
        pytest.param(1, {"adapter": LORA}, id="lora, one process"),
        pytest.param(2, {"adapter": LORA, "hyperparameters": {"gradient_accumulation_steps": 2}}, id="lora, two, accumulating"),
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
