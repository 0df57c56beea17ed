"""torch.compile where it pays, and a reason where it does not."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch._dynamo import callback as dynamo
from transformers import TrainerCallback

from tollgate_trainer.lifecycle.goodput import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tollgate_trainer.lifecycle.loop import TrainingLoop


COMPILED = "compiled"
"""Of the topology: whether the steps are compiled, which is known when the rest of it was compared already."""
MANY = 5
"""Steps with a compilation after which it is said that this is not worth it."""


def why_not(asked: bool, device: torch.device, packed: bool) -> str | None:
    """Why a model that was asked to be compiled is not; None when it can be, or was not asked for.

    On a CPU every new length was measured to compile for 20 s more, so there batches have to be of one shape.
    """
    if asked and device.type == "cpu" and not packed:
        return (
            "on a CPU each new length of a batch is compiled anew, which costs more than it gains; "
            "hyperparameters.packing gives batches one shape"
        )
    return None


def doubts(asked: bool, device: torch.device) -> list[str]:
    """Why a resumed run may differ although nothing changed: which code a length gets depends on those before it."""
    if asked and device.type != "cpu":
        return ["a GPU's compiled code depends on the lengths that came before"]
    return []


def same_as_before(loop: TrainingLoop, before: Mapping[str, Any] | None) -> None:
    """Note whether the steps are compiled, and whether those that are gone on from were: it changes the last bits.

    Args: before: the topology of the checkpoint that is gone on from, None at a fresh start.
    """
    session = loop.session
    if loop.compiled:
        session.remember(topology={**session.state.topology, COMPILED: True})
    if before is not None and session.exact and bool(before.get(COMPILED)) is not loop.compiled:
        session.exact = False
        now, then = ("is", "was not") if loop.compiled else ("is not", "was")
        message = f"the model {now} compiled here, and it {then} before: the run goes on, but not bit for bit"
        session.say("warning", message=message)


def compiled(loop: TrainingLoop, step: Callable[[], object]) -> None:
    """Compile the model in place and run one step that changes nothing, so that its time is booked as `compile`.

    Where there is no compiler, or it fails on this model, the training goes on without, and says so. Under FSDP2 no
    step can be run before the first one, which compiles: there such a failure ends the attempt.
    """
    session = loop.session
    model: Any = loop.model
    begun = time.monotonic()
    problem: str | None = None
    with session.spend(State.COMPILE):
        try:
            # One shape needs no code for others; on a GPU lengths may differ, and a few are worth their compilation.
            model.compile(dynamic=False if loop.fixed else None)
            step()
        except Exception as error:  # whatever backend and compiler raise, the model itself works without them
            model._compiled_call_impl = None
            torch._dynamo.reset()
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if problem is not None:
        session.say("warning", message=f"the model is not compiled: {problem}")
    session.say("compile", on=problem is None, seconds=round(time.monotonic() - begun, 3), because=problem)
    loop.compiled = problem is None
    if loop.compiled:
        loop.add_callback(InSteps(loop))


class InSteps(TrainerCallback):
    """What is compiled although the steps have begun: booked as `compile` and told, and on a CPU not for long.

    There a compilation takes longer than many steps: after the first one, which shows all that there is of one shape,
    what would have to be compiled runs without.
    """

    def __init__(self, loop: TrainingLoop) -> None:
        self._session = loop.session
        self._cpu = loop.args.device.type == "cpu"
        self._left: State | None = None
        self._before = 0.0
        self._times = 0
        self._settled = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From here on."""
        dynamo.callback_handler.register_start_callback(self._begins)
        dynamo.callback_handler.register_end_callback(self._ends)
        self._before = self._booked()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell what this step has compiled."""
        if self._cpu and not self._settled:
            self._settled = True
            torch.compiler.set_stance("eager_on_recompile")
        now = self._booked()
        if now > self._before:
            self._times += 1
            seconds = round(now - self._before, 3)
            self._session.say("recompile", step=state.global_step, seconds=seconds)
            if self._times == MANY:
                message = (
                    f"the model was compiled anew in {MANY} steps, because batches differ in shape; set "
                    "hyperparameters.packing, which gives them one, or hyperparameters.compile: false"
                )
                self._session.say("warning", step=state.global_step, message=message)
        self._before = now

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The next training of this process starts afresh."""
        dynamo.callback_handler.remove_start_callback(self._begins)
        dynamo.callback_handler.remove_end_callback(self._ends)
        torch.compiler.set_stance("default")

    def _booked(self) -> float:
        return self._session.goodput.seconds()[State.COMPILE]

    def _begins(self, _: Any) -> None:
        self._left = self._session.goodput.switch(State.COMPILE)

    def _ends(self, _: Any) -> None:
        if self._left is not None:
            self._session.goodput.switch(self._left)
            self._left = None


def eagerly(on: bool) -> AbstractContextManager[Any]:
    """Without what was compiled for training's shapes; for evaluation, whose batches have others."""
    return torch.compiler.set_stance("force_eager") if on else nullcontext()
