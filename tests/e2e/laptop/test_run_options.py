"""The options of `tollgate run` over a manifest, with real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from test_run_command import Desk, desk

__all__ = ["desk"]  # the fixture

pytestmark = pytest.mark.e2e


def test_a_quick_test_exercises_the_whole_run_aside_and_what_it_leaves_can_be_gone_on_from(
    desk: Desk,
) -> None:
    quick = desk.folder / "runs/tiny-quick-test"
    arguments = ("--quick-test", "--profile", "--debug", "-o", "json", "--set", "hyperparameters.warmup_ratio=0.5")
    code, out, err = desk.run("run", "manifest.yaml", *arguments, TOLLGATE_SET_description="from outside")
    assert code == 0, err
    told = json.loads(out)
    assert told["result"]["step"] == 4
    assert told["evaluation"]["metrics"], "the evaluation is part of it"
    assert Path(told["output"]) == quick
    assert not desk.output.exists(), "the run's own folder is not touched"
    assert "hyperparameters.max_steps: 20 -> 4 (--quick-test)" in err
    assert "hyperparameters.warmup_ratio: absent -> 0.5 (--set hyperparameters.warmup_ratio=0.5)" in err
    assert "description: absent -> 'from outside' (environment TOLLGATE_SET_description)" in err
    assert "rank 0 DEBUG" in err, "trace logs are shown"
    assert {path.name for path in (quick / "checkpoints").iterdir()} == {"checkpoint-2", "checkpoint-4"}

    trace = json.loads((quick / "logs/profile/trace-attempt-1-rank-0.json").read_text())
    assert any(event.get("name") == "aten::mm" for event in trace["traceEvents"])
    assert "aten::" in Path(told["profile"]).read_text()

    record = quick / "outcomes/attempt-1/manifest.yaml"
    code, out, err = desk.run(
        *("run", str(record), "--dataset-root", ".", "--output", str(quick), "--no-evaluate", "--set", "tf32=false")
    )
    assert code == 64, out + err
    assert "of another manifest" in out
    assert "--output or --name" in out

    code, out, err = desk.run(
        *("run", str(record), "--dataset-root", ".", "--output", "runs/again", "--no-evaluate"),
        *("--resume", str(quick / "checkpoints/checkpoint-2")),
    )
    assert code == 0, out + err
    assert "going on from the checkpoint of step 2 (bit-equal)" in out
    again = json.loads((desk.folder / "runs/again/model/model_info.json").read_text())
    assert again["digest"] == told["result"]["model"]["digest"], "the record is what was trained, to the bit"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "hyperparameters.learning_rat=1"), "Did you mean hyperparameters.learning_rate?"),
        (("--set", "hyperparameters.max_steps=x"), "with --set hyperparameters.max_steps=x"),
        (("--overlay", "over.yaml"), "hyperparameters.max_step: there is no such field"),
        (("--resume", "runs/nowhere"), "no whole checkpoint is there"),
    ],
)
def test_overrides_that_are_none_are_refused_with_64(
    desk: Desk,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    (desk.folder / "over.yaml").write_text(yaml.safe_dump({"hyperparameters": {"max_step": 3}}))
    code, out, err = desk.run("run", "manifest.yaml", "--no-evaluate", *arguments)
    assert code == 64
    assert words in out + err
    assert "Traceback" not in out + err
