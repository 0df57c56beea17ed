"""How much each step has to do, before it is done: the padded tokens of its batches, which the order tells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tollgate_trainer.data.order import PAD_MULTIPLE, Order


class Workload:
    """Padded tokens of the slowest process, by step. Looks at one epoch at a time, like the training.

    Args: fixed: every batch is of one shape, whatever is in it.
    """

    def __init__(self, order: Order, fixed: bool) -> None:
        self._order = order
        self._fixed = fixed
        self._epoch = -1
        self._sums: npt.NDArray[np.float64] = np.zeros(1)

    def of_step(self, step: int) -> float:
        """Of one step; steps count from 1 over all epochs."""
        epoch, within = divmod(step - 1, self._order.steps_per_epoch)
        sums = self._until(epoch)
        return float(sums[within + 1] - sums[within])

    def between(self, step: int, last: int) -> float:
        """Of the steps after `step` up to `last`. Later epochs are taken to be as much work as the one of `step`."""
        each = self._order.steps_per_epoch
        epoch, within = divmod(step, each)
        sums = self._until(epoch)
        epochs, rest = divmod(last - epoch * each, each)
        if not epochs:
            return float(sums[rest] - sums[within])
        return float(epochs * sums[-1] - sums[within] + rest / each * sums[-1])

    def _until(self, epoch: int) -> npt.NDArray[np.float64]:
        """Of the epoch's first 0, 1, 2, ... steps, shape [steps_per_epoch + 1]."""
        if epoch != self._epoch:
            self._sums = np.concatenate([[0.0], np.cumsum(self._steps(epoch))])
            self._epoch = epoch
        return self._sums

    def _steps(self, epoch: int) -> npt.NDArray[np.float64]:
        order = self._order
        rows = order.lengths[order.of_epoch(epoch)] if order.pack is None else order.row_tokens(epoch)
        widths = np.zeros(order.steps_per_epoch * order.samples_per_step)
        widths[: len(rows)] = -(-rows // PAD_MULTIPLE) * PAD_MULTIPLE
        # [steps, micro-steps, processes, rows]: each row is as wide as the widest of its batch.
        shaped = widths.reshape(-1, order.accumulation, order.world, order.micro_batch)
        count = np.full(shaped.shape[:3], order.micro_batch) if self._fixed else (shaped > 0).sum(axis=3)
        width = np.full(shaped.shape[:3], order.pack or 0) if self._fixed else shaped.max(axis=3)
        found: npt.NDArray[np.float64] = (width * count).sum(axis=1).max(axis=1).astype(np.float64)
        return found
