"""The trainer with one fault at one step of one rank: `TOLLGATE_TEST_FAULT=nan|raise|memory|clock:RANK:STEP`.

Only the fault is ours; everything that answers it is the real trainer.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from tollgate_trainer.lifecycle.loop import TrainingLoop
from tollgate_trainer.main import main
from tollgate_trainer.plan import preflight


def install(kind: str, rank: int, step: int) -> None:
    """Let the loss of that rank and step be NaN, or raise what a broken batch or a full memory raises; `clock`: that
    rank alone takes every step of preflight for a slow one.
    """
    if kind == "clock":
        preflight.QUICK = 0.0 if os.environ["RANK"] == str(rank) else 1e9
        return
    real = TrainingLoop.compute_loss

    def compute_loss(self: TrainingLoop, *args: Any, **kwargs: Any) -> Any:
        loss = real(self, *args, **kwargs)
        if self.session.attempt.rank != rank or self.state.global_step + 1 != step:
            return loss
        if kind == "nan":
            return loss * float("nan")
        if kind == "memory":
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 1 TB")
        raise ValueError("a broken batch")

    TrainingLoop.compute_loss = compute_loss  # type: ignore[method-assign]


if __name__ == "__main__":
    fault, at_rank, at_step = os.environ["TOLLGATE_TEST_FAULT"].split(":")
    install(fault, int(at_rank), int(at_step))
    sys.exit(main(["train"]))
