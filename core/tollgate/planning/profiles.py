"""What `optimization_priority` sets: one table. A number that the user wrote always wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Name = Literal["fast", "balanced", "quality", "memory_efficient"]


@dataclass(frozen=True, slots=True)
class Profile:
    """One row.

    epochs: num_train_epochs when neither it nor max_steps was written; percent: max_seq_length covers so many per cent
    of the documents whole; samples_per_step: over all processes; memory_share: of a device that may be planned for;
    checkpointing: True always, None only where nothing else fits; why: for people.
    """

    epochs: float
    percent: int
    samples_per_step: int
    memory_share: float
    checkpointing: bool | None
    why: str


PROFILES: dict[Name, Profile] = {
    "fast": Profile(1.0, 95, 64, 0.90, None, "one pass, large steps; the longest 5 % of documents are cut"),
    "balanced": Profile(2.0, 99, 32, 0.85, None, "two passes; the longest 1 % of documents are cut"),
    "quality": Profile(3.0, 100, 16, 0.85, None, "three passes, smaller steps, no document is cut"),
    "memory_efficient": Profile(2.0, 95, 16, 0.60, True, "recomputes activations and leaves 40 % of the memory free"),
}

CPU_MICRO_BATCH = 8
"""On a CPU more rows a pass bring padding and no speed."""
MIN_STEPS_PER_EPOCH = 10
"""Small data gets smaller steps, so that an epoch is at least so many."""
