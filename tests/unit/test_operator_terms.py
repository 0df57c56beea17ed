"""What is evaluated, and how: as the run says, else as the manifest does."""

from __future__ import annotations

from typing import Any

import pytest

from tollgate.api.training_run import TrainingRunSpec
from tollgate.manifest.loader import load_document
from tollgate_operator.runs.terms import evaluation_of

CLAIMS = {"dataset": {"claimName": "data"}, "output": {"claimName": "models"}}


@pytest.mark.parametrize(
    ("task", "written", "asked", "enabled", "suites"),
    [
        ("causal-lm", None, None, True, ["standard"]),
        ("causal-lm", {"suites": ["standard", "safety"]}, None, True, ["standard", "safety"]),
        ("causal-lm", {"suites": ["standard", "safety"]}, {"timeout": "5m"}, True, ["standard", "safety"]),
        ("causal-lm", {"enabled": False}, None, False, ["standard"]),
        ("causal-lm", {"enabled": False}, {"timeout": "5m"}, True, ["standard"]),
        ("causal-lm", {"suites": ["safety"]}, {"enabled": False, "suites": ["text"]}, False, ["text"]),
        ("classification", None, {"timeout": "5m"}, True, ["classification"]),
        ("span", None, {"profile": "cpu"}, True, ["span"]),
    ],
)
def test_what_the_run_does_not_say_about_its_evaluation_is_the_manifests(
    task: str, written: dict[str, Any] | None, asked: dict[str, Any] | None, enabled: bool, suites: list[str]
) -> None:
    document = {"name": "a", "task": task, "dataset": {"path": "a.jsonl"}} | (
        {"evaluation": written} if written is not None else {}
    )
    given = {"manifest": document, "storage": CLAIMS} | ({"evaluation": asked} if asked is not None else {})
    found = evaluation_of(TrainingRunSpec.model_validate(given), load_document(document, "test").manifest)
    assert (found.enabled, found.suites) == (enabled, suites)
    assert found.timeout == (300 if asked and "timeout" in asked else 1800)
    assert found.profile == (asked or {}).get("profile")
