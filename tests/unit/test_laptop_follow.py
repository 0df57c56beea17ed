"""How a run is shown on a terminal: one bar through all its parts."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tollgate_trainer.laptop.follow import TRAINING, Bar

STEP = {"event": "step", "step": 3, "total_steps": 4, "loss": 1.25, "tokens_per_second": 800.0}


def shown(cost: int | None, width: int = 80) -> str:
    """What a terminal of that width receives from a whole run."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None, _environ={"TERM": "xterm"})
    bar = Bar(console, lambda _: cost)
    bar.begin(TRAINING, 0.0)
    bar.tick(1.0)
    for event in ({"event": "start"}, {"event": "data"}, {"event": "plan", "total_steps": 4}, STEP):
        bar.show(event)
        bar.say("a line above it, which draws the bar again")
    bar.begin("evaluating", 1.0)
    bar.tick(1.0)
    bar.close()
    return out.getvalue()


@pytest.mark.parametrize("cost", [None, 12])
def test_the_bar_goes_from_the_training_to_the_evaluation(cost: int | None) -> None:
    text = shown(cost)
    assert "training" in text
    assert "evaluating" in text


def test_the_evaluation_begins_with_what_the_training_has_spent() -> None:
    assert "0.12 USD" in shown(12).rsplit("evaluating", 1)[1]


def test_a_bar_of_eighty_columns_holds_loss_speed_and_spend_in_one_line() -> None:
    line = next(line for line in shown(12).replace("\r", "\n").splitlines() if "800 tokens/s" in line)
    assert "loss 1.2500" in line
    assert "0.12 USD" in line
