"""Steps that fp16's loss scaler skips: expected now and then, a failure when they do not end. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MOST_IN_A_ROW = 24
"""The scale starts at 2**16 and halves at each skip; after so many it is below 1, so it is not the scale's fault."""


@dataclass(slots=True)
class ScalerSkips:
    """Skipped steps, counted apart from those that went wrong."""

    total: int = 0
    in_a_row: int = 0

    def bearable(self, finite: bool) -> bool:
        """Take in whether a step's gradients were finite; False when too many in a row were not."""
        if finite:
            self.in_a_row = 0
            return True
        self.total += 1
        self.in_a_row += 1
        return self.in_a_row < MOST_IN_A_ROW
