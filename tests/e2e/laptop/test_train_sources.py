"""Trainings on several sources, streamed and redacted: resumed exactly, with a loss for each source."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tollgate.contract import Outcome
from trainer_fixtures import Gang, ended, gang, wait_for, write_chat

pytestmark = pytest.mark.e2e

DATASET = {
    "path": "data.json",
    "weight": 0.5,
    "streaming": True,
    "privacy_preservation_enabled": True,
    "sources": [{"path": "chat.jsonl", "weight": 1.5}],
}


def run_of(root: Path, **changes: Any) -> Gang:
    run = gang(root, dataset=DATASET, **changes)
    write_chat(root / "data" / "chat.jsonl")
    return run


def test_sources_are_weighed_measured_apart_and_their_tokens_reused(tmp_path: Path) -> None:
    run = run_of(tmp_path, hyperparameters={"max_steps": 6, "save_steps": 3, "eval_steps": 6})
    code, output = run.run()
    assert code == 0, output
    data, plan, measured = run.events("data")[0], run.events("plan")[0], run.events("eval")[-1]
    assert data["sources"] == {"data": 80, "chat": 80}
    assert data["redacted"] == {"email": 0, "phone": 0, "card": 0, "iban": 0}
    assert (
        1 < plan["steps_per_epoch"] * 4 / data["train"]["samples"] < 1.2
    )  # half of one and one and a half of the other
    apart = [measured["eval_loss/data"], measured["eval_loss/chat"]]
    assert min(apart) < measured["eval_loss"] < max(apart)
    info = json.loads((run.output / "model" / "model_info.json").read_text(encoding="utf-8"))
    assert [file["path"] for file in info["dataset"]["files"]] == ["data.json", "chat.jsonl"]
    assert info["dataset"]["files"][0]["bytes"] == (run.root / "data" / "data.json").stat().st_size
    assert info["dataset"]["sources"] == data["sources"]
    (run.output / "model").rename(run.output / "aside")
    code, output = run.run(2)
    assert code == 0, output
    assert [said.split()[0] for said in run.events("data")[1]["cache"].values()] == ["reused", "reused"]


@pytest.mark.full
def test_a_training_on_weighted_streamed_sources_resumes_bit_equal_within_an_epoch(tmp_path: Path) -> None:
    changes = {"hyperparameters": {"max_steps": 120, "save_steps": 50, "eval_steps": 60}}
    digests = []
    for name in ("control", "again"):
        run = run_of(tmp_path / name, **changes)
        code, output = run.run()
        assert code == 0, output
        assert run.words().model is not None
        digests.append(run.words().model.digest)  # type: ignore[union-attr]
    assert len(set(digests)) == 1, "two uninterrupted runs differ, so nothing can be said"
    broken = run_of(tmp_path / "broken", **changes)
    with ended(broken.start(1)) as process:
        wait_for(lambda: any(event["step"] >= 20 for event in broken.events("step")) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert broken.words(1).outcome is Outcome.STOPPED
    code, output = broken.run(2)
    assert code == 0, output
    assert broken.words(2).model is not None
    assert broken.words(2).model.digest == digests[0]  # type: ignore[union-attr]
    control = Gang(tmp_path / "control", {})
    assert broken.losses(1) | broken.losses(2) == control.losses(1)
