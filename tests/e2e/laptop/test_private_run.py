"""A run whose manifest says `report.quotes: false`: trained and evaluated, and no text of the data in its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_run_command import Desk, desk

from trainer_fixtures import WORDS

__all__ = ["desk"]  # a fixture
pytestmark = [pytest.mark.e2e, pytest.mark.full]
CANARY = "zanzibarnightjar"


def quoting(root: Path) -> list[str]:
    """Files that people read or that are sent on, with the canary in them."""
    places = ("report", "evaluation", "logs/events.jsonl", "result.json", "outcomes", "plan.json")
    files = [f for place in places for f in ([root / place] if (root / place).is_file() else (root / place).rglob("*"))]
    return sorted(str(f.relative_to(root)) for f in files if f.is_file() and CANARY in f.read_text(errors="replace"))


@pytest.mark.parametrize("task", ["causal-lm", "classification"])
def test_the_text_of_the_data_stands_in_no_file_that_is_shown(desk: Desk, task: str) -> None:
    rows = [{"text": f"{CANARY} the {a} of the {b}", "label": "x" if a < b else "y"} for a in WORDS for b in WORDS[:6]]
    (desk.folder / "private.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = {"path": "private.jsonl", "splits": {"validation": 0.2}}
    hyper = {"max_steps": 6, "eval_steps": 3, "save_steps": 6}
    found = {}
    for name, quotes in (("quoting", True), ("private", False)):
        desk.write(name=name, task=task, dataset=dataset, hyperparameters=hyper, report={"quotes": quotes})
        code, _, err = desk.run("run", "manifest.yaml")
        assert code == 0, err
        found[quotes] = quoting(desk.folder / "runs" / name)
    assert "report/index.html" in found[True], "or nothing is proven"
    assert found[False] == []
    assert (desk.folder / "runs/private/report/index.html").is_file()
