"""torch.compile where it pays, and a reason where it does not."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from tollgate_trainer.lifecycle.goodput import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollgate_trainer.lifecycle.loop import TrainingLoop


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


def compiled(loop: TrainingLoop, step: Callable[[], object]) -> None:
    """Compile the model in place and run one step that changes nothing, so that its time is booked as `compile`.

    Where there is no compiler, or it fails on this model, the training goes on without, and says so.
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


def eagerly(on: bool) -> AbstractContextManager[Any]:
    """Without what was compiled for training's shapes; for evaluation, whose batches have others."""
    return torch.compiler.set_stance("force_eager") if on else nullcontext()
