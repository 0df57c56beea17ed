"""Real trainings of what people bring: conversations over a model of theirs, and what they have to mend."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tollgate.contract import FailureReason
from trainer_fixtures import gang, write_chat

pytestmark = pytest.mark.e2e


def test_an_adapter_is_trained_on_conversations_over_a_model_that_was_trained_here_before(tmp_path: Path) -> None:
    first = gang(tmp_path / "first")
    code, output = first.run(1)
    assert code == 0, output
    run = gang(
        tmp_path / "second",
        dataset={"path": "chat.jsonl"},
        model={"config": None, "base": "base"},
        adapter={"type": "lora", "rank": 4, "alpha": 8, "dropout": 0.1},
        hyperparameters={"learning_rate": 0.02},
    )
    shutil.copytree(first.output / "model", run.root / "data" / "base")
    write_chat(run.root / "data" / "chat.jsonl")
    code, output = run.run(1)
    assert code == 0, output
    info = json.loads((run.output / "model" / "model_info.json").read_text())
    assert info["trainable_parameters"] < info["parameters"] / 3
    before, after = (event["eval_loss"] for event in run.events("eval"))
    assert after < before
    data = run.events("data")[-1]["train"]
    assert 0 < data["loss_tokens"] < data["tokens"] / 2, "questions carry no loss"
    code = (
        "import sys; from pathlib import Path; from tollgate_trainer.models import load_finished\n"
        "model, tokenizer = load_finished(Path(sys.argv[1]))\n"
        "print(type(model).__name__, len(tokenizer))"
    )
    command = [sys.executable, "-c", code, str(run.output / "model")]
    environ = run.environment(1, 1)
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    assert told.stdout.split()[0] == "PeftModelForCausalLM"


@pytest.mark.parametrize(
    ("changes", "reason", "field", "words"),
    [
        ({"dataset": {"path": "gone.json"}}, FailureReason.DATASET, "dataset.path", "gone.json does not exist"),
        ({"dataset": {"sha256": "0" * 64}}, FailureReason.DATASET, "dataset.sha256", "another version of the data"),
        ({"model": {"base": "gone", "config": None}}, FailureReason.MODEL, "model.base", "no folder gone"),
    ],
)
def test_what_the_user_has_to_mend_ends_the_attempt_at_once_with_field_and_fix(
    tmp_path: Path, changes: dict[str, Any], reason: FailureReason, field: str, words: str
) -> None:
    run = gang(tmp_path, **changes)
    code, output = run.run(1)
    assert code == 64, output
    failure = run.failures()[0]
    assert failure.error is not None
    assert (failure.reason, failure.error.field) == (reason, field)
    assert words in failure.error.message
    assert "Traceback" not in output
