"""Which baseline an evaluation pod can read: one with a finished model on the same output claim, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from operator_process import spec
from tollgate_operator.facts import RunFacts
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.starting import baseline_folder

MODEL = {"path": "model", "digest": "sha256:" + "a" * 64}


def facts(name: str, claim: str, path: str, model: dict[str, str] | None) -> RunFacts:
    storage = {"dataset": {"claimName": "datasets"}, "output": {"claimName": claim, "path": path}}
    body: dict[str, Any] = {
        "metadata": {"name": name, "namespace": "care", "uid": name, "resourceVersion": "1", "generation": 1},
        "spec": spec(storage=storage),
        "status": {"model": model} if model else {},
    }
    return RunFacts.from_object(body)


@pytest.mark.parametrize(
    ("name", "claim", "model", "folder"),
    [
        ("older", "models", MODEL, "runs/older"),
        ("older", "elsewhere", MODEL, None),
        ("older", "models", None, None),
        ("newer", "models", MODEL, None),  # itself
    ],
)
def test_only_a_finished_model_on_the_same_claim_is_compared_prompt_by_prompt(
    name: str, claim: str, model: dict[str, str] | None, folder: str | None
) -> None:
    run = facts("newer", "models", "runs/newer", MODEL)
    baseline = facts(name, claim, "runs//older/", model)
    assert baseline_folder(Situation(run, baseline=baseline)) == folder
    assert baseline_folder(Situation(run)) is None
