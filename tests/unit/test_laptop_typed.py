"""The command that a run tells its person to type next."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from tollgate.contract import CheckpointRef, ErrorWords, FailureReason, LastWords, Outcome, StopReason
from tollgate_cli.wishes import Wishes
from tollgate_trainer.laptop.follow import sentence
from tollgate_trainer.laptop.summary import Ending, show
from tollgate_trainer.laptop.typed import again
from tollgate_trainer.lifecycle.outcome import words_of

GIVEN = {"name": "try 2", "output": None, "dataset_root": "/data", "usd_per_hour": "2", "max_cost": "1", "debug": False}


def test_a_run_that_was_stopped_by_hand_goes_on_by_the_same_command() -> None:
    assert again(GIVEN, ["--set", "a.b=1"], None, elsewhere=False) == [
        "--dataset-root", "/data", "--name", "try 2", "--usd-per-hour", "2", "--max-cost", "1", "--set", "a.b=1",
    ]  # fmt: skip


def test_what_happens_after_the_training_is_asked_for_again_too() -> None:
    given = GIVEN | {"policy": Path("policy.yaml"), "evaluate": False, "max_cost": None}
    assert again(given, [], None, elsewhere=False)[4:] == [
        "--policy", "policy.yaml", "--usd-per-hour", "2", "--no-evaluate",
    ]  # fmt: skip
    assert again({"evaluate": True}, [], None, elsewhere=False) == ["--evaluate"]


def test_a_learning_rate_is_typed_again_as_it_was_and_makes_the_same_manifest() -> None:
    assert Wishes(learning_rate=1.23456789e-4).arguments() == ["--learning-rate", "0.000123456789"]


def test_a_limit_that_stopped_a_run_is_not_typed_again() -> None:
    spent = LastWords(outcome=Outcome.STOPPED, reason=StopReason.BUDGET)
    assert "--max-cost" not in again(GIVEN, [], spent, elsewhere=False)


def test_the_run_after_a_quick_test_does_not_lie_in_its_folder() -> None:
    assert again({"output": "x", "name": "n"}, [], None, elsewhere=True) == ["--name", "n"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"equality": "bit-equal"}, "step 20 (bit-equal)"),
        (
            {"equality": "statistical", "because": ["x is off"]},
            "step 20 with the same samples, but not bit for bit: x is off",
        ),
        ({}, "step 20"),
    ],
)
def test_a_resumed_run_says_what_it_has_in_common_with_one_that_was_never_stopped(
    more: dict[str, object], words: str
) -> None:
    assert sentence({"event": "restore", "step": 20, **more}) == f"going on from the checkpoint of {words}"


def told(folder: Path, words: LastWords, evaluation: LastWords | None = None) -> str:
    """What stands at the end of a run's output."""
    ending = Ending(
        file=folder / "m.yaml",
        output=folder,
        run="m",
        exit_code=0,
        words=words,
        evaluation=evaluation,
        gates=(),
        spent_micro=None,
        seconds=3.0,
        report=None,
        log=folder / "log",
        options=["--name", "m"],
    )
    out = io.StringIO()
    show(ending, Console(file=out, width=80))
    return out.getvalue()


def test_an_evaluation_that_was_stopped_is_no_failure_and_can_be_asked_for_again(tmp_path: Path) -> None:
    error = ErrorWords(message="the processes left without an outcome")
    stopped = LastWords(outcome=Outcome.STOPPED, reason=StopReason.SIGNAL, error=error)
    text = told(tmp_path, LastWords(outcome=Outcome.COMPLETED, reason="Completed", step=4, total_steps=4), stopped)
    assert "failed" not in text
    assert f"tollgate evaluate {tmp_path}" in text


def test_a_failure_says_from_which_checkpoint_it_can_be_gone_on_and_how(tmp_path: Path) -> None:
    error = words_of(OSError("I/O error: No space left on device (os error 28)"), 0, FailureReason.EXCEPTION)
    assert "keep fewer checkpoints (checkpoint.keep_last)" in error.message
    failed = LastWords(outcome=Outcome.FAILED, reason="Exception", error=error)
    assert "checkpoint of step" not in told(tmp_path, failed)
    saved = datetime(2026, 1, 1, tzinfo=UTC)
    kept = CheckpointRef(step=92, path="checkpoints/checkpoint-92", digest="sha256:aa", saved_at=saved)
    text = told(tmp_path, failed.model_copy(update={"checkpoint": kept}))
    assert "The checkpoint of step 92 is kept." in text
    assert "m.yaml --name m   # when it is mended" in text


def test_an_evaluation_of_the_best_weights_is_told_as_theirs() -> None:
    assert sentence({"event": "eval", "step": 2, "eval_loss": 1.5, "chosen": True}) == (
        "step 2, whose weights become the model: eval_loss 1.5"
    )
