"""What is compiled after the steps have begun, by the real compiler without its slow back end."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tollgate_trainer.lifecycle.arguments import differences
from tollgate_trainer.lifecycle.compiling import InSteps, doubts, same_as_before
from tollgate_trainer.lifecycle.goodput import Goodput, State
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.lifecycle.state import LifecycleState


class Watched:
    """A compiled layer, and what is told and booked of it."""

    def __init__(self, device: str) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.goodput = Goodput(None)
        self.goodput.switch(State.STEP)
        session = SimpleNamespace(goodput=self.goodput, say=lambda event, **values: self.told.append((event, values)))
        loop: Any = SimpleNamespace(session=session, args=SimpleNamespace(device=torch.device(device)))
        self.watch = InSteps(loop)
        self.layer = torch.compile(torch.nn.Linear(4, 4), backend="eager", dynamic=False)
        self.steps = 0

    def step(self, rows: int) -> None:
        self.steps += 1
        self.layer(torch.ones(rows, 4))
        self.watch.on_step_end(None, SimpleNamespace(global_step=self.steps), None)


@pytest.mark.parametrize(
    ("before", "now", "exact"),
    [
        (None, True, True),
        ({}, False, True),
        ({"compiled": True}, True, True),
        ({}, True, False),
        ({"compiled": True}, False, False),
    ],
)
def test_steps_that_were_compiled_and_are_not_any_more_are_not_claimed_to_be_bit_equal(
    before: dict[str, Any] | None, now: bool, exact: bool
) -> None:
    session = Session.__new__(Session)
    session.exact, session.state, session.trackers = True, LifecycleState(topology={"world": 1}), {}
    told: list[str] = []
    session.events = SimpleNamespace(add=lambda event, **_: told.append(event))  # type: ignore[assignment]
    loop: Any = SimpleNamespace(session=session, compiled=now)
    same_as_before(loop, before)
    assert session.exact is exact
    assert told == ([] if exact else ["warning"])
    assert session.state.topology == {"world": 1} | ({"compiled": True} if now else {})


def test_what_changed_came_or_went_keeps_a_resumed_run_from_being_called_bit_equal() -> None:
    before = {"world": 2, "cross_entropy": "chunked", "compiled": True}
    assert differences(before, {"world": 2}) == ["cross_entropy: chunked -> None"]
    assert differences(before, {"world": 1, "cross_entropy": "chunked", "packing": 64}) == [
        "world: 2 -> 1",
        "packing: None -> 64",
    ]


def test_compiled_code_of_a_gpu_is_not_claimed_to_repeat() -> None:
    assert doubts(True, torch.device("cuda"))
    assert not doubts(True, torch.device("cpu"))
    assert not doubts(False, torch.device("cuda"))


@pytest.fixture(params=["cpu", "cuda"])
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    torch._dynamo.reset()
    found = Watched(request.param)
    found.watch.on_train_begin(None, None, None)
    yield found
    found.watch.on_train_end(None, None, None)
    torch._dynamo.reset()


def test_a_compilation_in_a_step_is_booked_as_such_and_told(watched: Watched) -> None:
    watched.step(2)
    assert watched.goodput.seconds()[State.COMPILE] > 0
    assert watched.goodput.state is State.STEP
    assert [(event, values["step"]) for event, values in watched.told] == [("recompile", 1)]
    watched.step(2)
    assert len(watched.told) == 1


def test_on_a_cpu_nothing_is_compiled_after_the_first_step(watched: Watched) -> None:
    cpu = watched.watch._cpu
    for rows in range(2, 9):
        watched.step(rows)
    compiled = [values["step"] for event, values in watched.told if event == "recompile"]
    assert compiled == ([1] if cpu else list(range(1, 8)))
    assert any(event == "warning" for event, _ in watched.told) == (not cpu)
