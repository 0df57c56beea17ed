"""Held-out losses of each source of the data, beside that of all."""

from __future__ import annotations

from collections.abc import Sequence

from tollgate_trainer.data.document import Document


class SourceSums:
    """Sums of losses, and of the things that they were taken over, by source; equal in all processes after `take`."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._sums = {document.source: (0.0, 0.0) for document in documents}

    def add(self, source: str, loss_sum: float, count: float) -> None:
        """A batch of one source."""
        total, things = self._sums[source]
        self._sums[source] = (total + loss_sum, things + count)

    def flat(self) -> list[float]:
        """What this process has, in an order that is the same in all."""
        return [value for pair in self._sums.values() for value in pair]

    def take(self, summed: Sequence[float]) -> None:
        """The sums over all processes, as `flat` orders them."""
        pairs = zip(summed[::2], summed[1::2], strict=True)
        self._sums = dict(zip(self._sums, pairs, strict=True))

    def total(self) -> tuple[float, float]:
        """(sum of losses, number of things) over all sources."""
        return sum(loss for loss, _ in self._sums.values()), sum(count for _, count in self._sums.values())

    def losses(self) -> dict[str, float]:
        """eval_loss/<source> where there are several; a source without anything to measure is absent."""
        if len(self._sums) < 2:
            return {}
        return {f"eval_loss/{name}": loss / count for name, (loss, count) in self._sums.items() if count}
