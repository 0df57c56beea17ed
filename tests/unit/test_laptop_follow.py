"""How a run is shown on a terminal: one bar through all its parts."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tollgate_trainer.laptop.follow import TRAINING, Bar

STEP = {"event": "step", "step": 3, "total_steps": 4, "loss": 1.25, "tokens_per_second": 800.0}
COST = 120_000
"""What the run has cost, in micro-USD."""


def last_line(cost: int | None, evaluated: bool) -> str:
    """What stands on a terminal of 80 columns just before the bar is taken away."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None, _environ={"TERM": "xterm"})
    bar = Bar(console, lambda _: cost)
    bar.begin(TRAINING, 0.0)
    bar.tick(1.0)
    for event in ({"event": "start"}, {"event": "data"}, {"event": "plan", "total_steps": 4}, STEP):
        bar.show(event)
    if evaluated:
        bar.begin("evaluating", 1.0)
    bar.close()
    return [part for part in out.getvalue().replace("\n", "\r").split("\r") if "━" in part or "eval" in part][-1]


@pytest.mark.parametrize("cost", [None, COST])
def test_the_evaluation_follows_the_training_without_its_steps_and_loss(cost: int | None) -> None:
    line = last_line(cost, evaluated=True)
    assert "evaluating" in line
    assert "/4" not in line
    assert "loss" not in line


def test_the_evaluation_begins_with_what_the_training_has_spent() -> None:
    assert "0.12 USD" in last_line(COST, evaluated=True)
    assert "USD" not in last_line(None, evaluated=True)


def test_eighty_columns_hold_loss_speed_and_spend() -> None:
    line = last_line(COST, evaluated=False)
    assert "3/4 loss 1.2500 800 tokens/s" in line
    assert "0.12 USD" in line
