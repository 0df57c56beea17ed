"""Real trainings of the tasks with heads: stopped and resumed bit by bit, over processes, finished and judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_train_local import LORA, finished, interrupted, slowed

from trainer_fixtures import TINY_BERT, Gang, gang, write_answers

pytestmark = pytest.mark.e2e


def task(root: Path, name: str, **changes: Any) -> Gang:
    """A run of a task, on the same data for all of them."""
    more: dict[str, Any] = {} if name == "classification" else {"span": {"doc_stride": 12}}
    run = gang(root, task=name, model={"config": dict(TINY_BERT)}, **more, **changes)
    run.document["dataset"] = {"path": "answers.jsonl", "splits": {"validation": 0.3}}
    write_answers(root / "data/answers.jsonl")
    return run


@pytest.mark.parametrize(
    ("name", "processes", "changes"),
    [
        pytest.param("classification", 1, {}, id="classification"),
        pytest.param("classification", 2, {"adapter": LORA}, id="classification, lora, two", marks=pytest.mark.full),
        pytest.param("span", 1, {"adapter": LORA}, id="span, lora", marks=pytest.mark.full),
        pytest.param("joint", 2, {"joint": {"encoders": "two"}}, id="joint, two encoders, two", marks=pytest.mark.full),
    ],
)
def test_a_task_that_was_stopped_and_resumed_is_bit_equal_to_one_that_was_not(
    tmp_path: Path, name: str, processes: int, changes: dict[str, Any]
) -> None:
    changes = slowed(**changes)
    control, again = task(tmp_path / "control", name, **changes), task(tmp_path / "again", name, **changes)
    digest = finished(control, processes=processes)
    assert finished(again, processes=processes) == digest, "two uninterrupted runs differ, so nothing can be said"
    broken = task(tmp_path / "broken", name, **changes)
    step = interrupted(broken, 20, processes)
    assert 20 <= step < 120
    assert finished(broken, 2, processes) == digest
    straight, resumed = control.losses(1), broken.losses(2)
    assert all(resumed[later] == straight[later] for later in range(step + 1, 121))


@pytest.mark.full
@pytest.mark.parametrize("name", ["classification", "span", "joint"])
def test_two_processes_measure_what_one_measures(tmp_path: Path, name: str) -> None:
    told = []
    for processes in (1, 2):
        batch = {"per_device_train_batch_size": 8 // processes, "max_steps": 4, "eval_steps": 4}
        run = task(tmp_path / str(processes), name, hyperparameters=batch)
        finished(run, processes=processes)
        told.append({key: value for key, value in run.events("eval")[-1].items() if key.startswith("eval_")})
    assert told[0].keys() == told[1].keys()
    assert all(told[0][key] == pytest.approx(told[1][key], abs=0.05) for key in told[0])
    assert told[0]["eval_documents"] == told[1]["eval_documents"]


def test_the_best_weights_by_the_tasks_own_metric_become_the_model(tmp_path: Path) -> None:
    run = task(
        tmp_path,
        "classification",
        early_stopping={"metric": "eval_macro_f1", "mode": "max", "patience": 2},
        hyperparameters={"max_steps": 60, "eval_steps": 5, "save_steps": 60, "learning_rate": 0.01},
    )
    finished(run)
    info = json.loads((run.output / "model/model_info.json").read_text())
    told = {event["step"]: event["eval_macro_f1"] for event in run.events("eval")}
    first_best = next(step for step in sorted(told) if told[step] == max(told.values()))
    assert info["chosen_step"] == first_best
    assert run.events("eval")[-1]["step"] == first_best, "what is measured belongs to the weights' own step"
    assert info["metrics"]["eval_macro_f1"] == pytest.approx(max(told.values()))
    task_file = json.loads((run.output / "model/task.json").read_text())
    assert task_file["labels"] == ["none", "x", "y"]
