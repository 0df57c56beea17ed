"""A small part of an evaluation before the first step, so that the forecast knows what the whole will take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch

from tollgate_trainer.lifecycle.held_out import measured
from tollgate_trainer.lifecycle.loop import TrainingLoop
from tollgate_trainer.lifecycle.sampling import CANNOT, MAX_NEW_TOKENS
from tollgate_trainer.plan.hardware import finish_work

REPEATS = 7
PATIENCE = 1.0
"""Seconds after which one measurement has to do: what takes long varies less."""


def evaluation_seconds(loop: TrainingLoop) -> float:
    """What an evaluation will take, by one batch of middle length and by one token of its samples."""
    samples, rows = loop.plan.validation, loop.plan.eval_batch
    model = loop.accelerator.unwrap_model(loop.model)
    order = np.argsort(samples.lengths, kind="stable")
    middle = max(0, len(order) // 2 - rows // 2)
    chosen = [int(index) for index in order[middle : middle + rows]]
    batch = [samples[index] for index in chosen]
    model.eval()
    with torch.no_grad(), loop.compute_loss_context_manager():
        one = _typical(lambda: measured(loop, model, batch), loop.args.device)
        each = one / max(1, int(samples.lengths[chosen].sum()))
        seconds = each * float(samples.lengths.sum()) / loop.session.attempt.world
        if loop.sampling is not None:
            token = torch.zeros((loop.sampling.count, 1), dtype=torch.long, device=loop.args.device)
            with suppress(*CANNOT):  # its first samples will tell why
                seconds += MAX_NEW_TOKENS * _typical(lambda: model(input_ids=token), loop.args.device)
    return seconds


def _typical(work: Callable[[], object], device: torch.device) -> float:
    """Median seconds of doing it, after the first time, which also pays for kernels that are loaded."""
    found: list[float] = []
    for number in range(1 + REPEATS):
        finish_work(device)
        begun = time.monotonic()
        work()
        finish_work(device)
        found[:] = [time.monotonic() - begun] if number < 2 else [*found, time.monotonic() - begun]
        if number and sum(found) > PATIENCE:
            break
    return statistics.median(found)
