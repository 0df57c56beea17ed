"""The example sets: made the same each time, large enough for the policies, and read by the evaluators' own readers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tollgate.manifest.loader import load_file
from tollgate.manifest.sections import Evaluation
from tollgate_trainer.evaluate import prompts, taskfiles
from tollgate_trainer.evaluate.fairness import scenarios
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.scorers import Rules

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/evaluation"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = []
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp(name)
        command = [sys.executable, str(EXAMPLES / "make_sets.py"), "--out", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        made.append({path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.jsonl"))})
    assert made[0] == made[1]
    return folder


def subject(root: Path) -> Subject:
    nothing: Any = None  # the readers need the root alone
    return Subject(nothing, nothing, nothing, (), 8, 20, 2000, Evaluation(), root)


def test_the_sets_are_large_enough_for_the_policies_that_ship(sets: Path) -> None:
    reader = subject(sets)
    crisis = prompts.read(reader, "data/crisis.jsonl", "f", ("kind",))
    assert sum(prompt.others["kind"] == "crisis" for prompt in crisis) >= 200
    assert sum(prompt.others["kind"] == "harmless" for prompt in crisis) >= 100
    assert len(prompts.read(reader, "data/toxicity.jsonl", "f")) >= 200
    groups, table = scenarios(prompts.read(reader, "data/fairness.jsonl", "f", ("scenario", "group")))
    assert len(groups) == 4
    assert len(table) >= 300
    assert len(taskfiles.read(reader, "data/tasks/stdlib.jsonl")) >= 400


@pytest.mark.parametrize("name", ["redirect", "unsafe", "refusal"])
def test_the_rules_were_measured_and_are_not_perfect(name: str) -> None:
    rules = Rules.load(EXAMPLES / f"rules/{name}.json", name, "f")
    assert rules.advisory is None
    assert 0.5 < rules.facts.properties["sensitivity"] < 1, "labelled replies that no rule can miss measure nothing"
    assert 0.5 < rules.facts.properties["specificity"] < 1


@pytest.mark.parametrize("name", ["manifest.yaml", "toxicity/manifest.yaml"])
def test_the_manifests_of_the_recipe_are_valid(name: str) -> None:
    assert load_file(EXAMPLES / name).manifest.evaluation.enabled
