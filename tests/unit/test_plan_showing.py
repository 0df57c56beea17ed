"""What `tollgate plan` says to people about losing a node."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from plan_fixtures import facts, manifest
from tollgate.estimate import estimate, fit
from tollgate.planning.choose import choose
from tollgate_trainer.plan.showing import show

USD = 1_000_000


def shown(per_hour: int | None) -> str:
    asked = manifest(adapter={"type": "lora"}, checkpoint={"every_minutes": 10})
    given = facts()
    choice = choose(asked, given)
    found = estimate(asked, choice.settings, given, None, per_hour)
    out = io.StringIO()
    show(Console(file=out, width=1000), asked, given, choice, found, fit(found, None, None, choice.settings), None)
    return out.getvalue()


def test_the_plan_says_how_much_time_and_money_a_preemption_loses() -> None:
    told = re.search(r"a preemption loses up to (\d+) min = ([\d.]+) USD", shown(60 * USD))
    assert told, shown(60 * USD)
    assert float(told[2]) == pytest.approx(float(told[1]), abs=1.0), "a minute costs a dollar"
    assert float(told[1]) >= 10


def test_without_a_price_a_preemption_loses_time_and_no_amount_is_made_up() -> None:
    text = shown(None)
    assert "a preemption loses up to" in text
    assert " USD, on average" not in text
