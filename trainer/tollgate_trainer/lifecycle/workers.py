"""How many processes read data beside the training: as asked, or by a short measurement. No random number is drawn."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tollgate_trainer.data.order import Order

MEASURED_BATCHES = 8
WORTH = 0.05
"""Of a step's time: a batch that is ready sooner is not worth a process."""
MOST = 4


@dataclass(frozen=True, slots=True)
class Workers:
    """count: processes of this process's loader; fetch: seconds per batch, None when it was not measured."""

    count: int
    fetch: float | None
    because: str


def workers_for(
    asked: int | Literal["auto"], fetch: Callable[[], float], compute: float | None, cores_left: int
) -> Workers:
    """The user's number; with `auto` enough that batches are ready when they are needed.

    Args: fetch: measures seconds per batch; compute: seconds of forward and backward of a batch, None when unknown;
    cores_left: of this machine for each training process, its own not counted.
    """
    if asked != "auto":
        return Workers(asked, None, "as asked")
    if compute is None:
        return Workers(0, None, "the time of a step is not known before it begins (preflight measures it)")
    seconds = fetch()
    told = f"a batch is ready in {1000 * seconds:.2g} ms and computed in {1000 * compute:.3g} ms"
    if seconds <= WORTH * compute:
        return Workers(0, seconds, f"{told}: reading beside it would gain nothing")
    if cores_left < 1:
        return Workers(0, seconds, f"{told}, but no core is free for a reader")
    return Workers(max(1, min(MOST, cores_left, int(seconds / compute) + 1)), seconds, told)


def fetch_seconds(rows: Any, collate: Callable[[list[Any]], object], order: Order, rank: int) -> float:
    """Seconds per batch over the first batches of the first epoch, as this process reads them."""
    count = min(MEASURED_BATCHES, order.micro_steps_per_epoch)
    batches = [order.batch_rows(0, micro_step, rank) for micro_step in range(count)]
    begun = time.perf_counter()
    for batch in batches:
        collate([rows[row] for row in batch])
    return (time.perf_counter() - begun) / count


def outlive_stop_signals(_worker: int) -> None:
    """In a reading process: a stop reaches the whole process group, and is the training process's to obey.

    A reader that died of it would end the training with an error instead of a checkpoint. Readers leave with their
    training process, however that ends.
    """
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_IGN)


def cores_left(processes: int, device: str) -> int:
    """Cores of this machine that no training process computes on, for each of them; on a CPU it computes on all."""
    if device == "cpu":
        return 0
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    return cores // max(1, processes) - 1
