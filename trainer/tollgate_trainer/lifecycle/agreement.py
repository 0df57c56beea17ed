"""All processes stop, save and fail at the same step: their flags, reduced by MAX.

The reduction is started at one step end and read at the next, so no step waits for it. It runs over its own gloo
group on CPU tensors, which also works beside NCCL.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch.distributed as dist


@dataclass(frozen=True, slots=True)
class Flags:
    """What one process asks for. stop: a StopCode; save: 1 when a checkpoint is due by the clock; busy: 1 while it
    uploads one; known: 1 in flags that were handed in, 0 where nothing was.
    """

    stop: int = 0
    save: int = 0
    busy: int = 0
    known: int = 0


class Agreement:
    """The processes' common view. With one process everything is agreed at once."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._group: dist.ProcessGroup | None = None
        self._pending: tuple[Any, Any] | None = None
        if world > 1:
            import torch.distributed as dist

            self._group = dist.new_group(backend="gloo")

    def exchange(self, flags: Flags) -> Flags:
        """Hand in this step's flags and get what all agreed on: with several processes the flags of the step before."""
        if self.world == 1:
            return flags
        agreed = self._finish()
        self._start(flags)
        return agreed

    def now(self, *values: int) -> list[int]:
        """The largest of each value over all processes, waited for; for rare decisions."""
        if self.world == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        self._finish()
        tensor = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._group)
        return [int(value) for value in tensor.tolist()]

    def summed(self, *values: float) -> list[float]:
        """The sum of each value over all processes, in double precision, waited for."""
        if self.world == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM, group=self._group)
        return [float(value) for value in tensor.tolist()]

    def gathered(self, value: object) -> list[Any]:
        """Every process's value, by rank."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._group)
        return values

    def from_first(self, value: object) -> Any:
        """Rank 0's value in every process."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def barrier(self) -> None:
        """Wait until all are here."""
        self.now(0)

    def close(self) -> None:
        """Wait for a reduction that is under way, so that none outlives the process group."""
        if self.world > 1:
            self._finish()

    def _start(self, flags: Flags) -> None:
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(astuple(flags), dtype=torch.int64)
        work = dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = (work, tensor)

    def _finish(self) -> Flags:
        if self._pending is None:
            return Flags()
        work, tensor = self._pending
        self._pending = None
        work.wait()
        return Flags(*(int(value) for value in tensor.tolist()))
