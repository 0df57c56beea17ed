"""Which documents share a row of the batch: first-fit-decreasing, the same for the same lengths in the same order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def first_fit_decreasing(lengths: Indices, capacity: int) -> tuple[Indices, Indices]:
    """Fill rows of `capacity` tokens: the longest document first, each into the first row that has room for it.

    Documents of one length are placed together, which gives what one after the other would give: the first row that has
    room takes them until it has none. So the work is one sweep over open rows for each length that occurs.

    Args: lengths: tokens per document, shape [documents], each 1..capacity.
    Returns: (documents row by row, shape [documents]; where each row ends in it, shape [rows]).
    Raises: ValueError for a document that fits into no row.
    Source: Johnson 1973, "Near-optimal bin packing algorithms": at most 11/9 of the fewest rows, and 2/3 of one more.
    """
    if len(lengths) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if int(lengths.max()) > capacity or int(lengths.min()) < 1:
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()} don't fit into rows of {capacity}")
    placed = np.argsort(-lengths, kind="stable")
    sizes, counts = np.unique(lengths, return_counts=True)
    smallest = int(sizes[0])
    row_of = np.empty(len(lengths), dtype=np.int64)  # in the order of `placed`
    numbers, free = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    rows = done = 0
    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        room = free // size
        before = np.minimum(np.cumsum(room), count)
        taken = np.diff(before, prepend=0)
        missing = count - (int(before[-1]) if len(before) else 0)
        each = capacity // size
        added = np.full(-(-missing // each), each, dtype=np.int64)
        if len(added):
            added[-1] = missing - each * (len(added) - 1)
        fresh = np.arange(rows, rows + len(added), dtype=np.int64)
        rows += len(added)
        row_of[done : done + count] = np.repeat(np.concatenate([numbers, fresh]), np.concatenate([taken, added]))
        done += count
        free = np.concatenate([free - taken * size, capacity - added * size])
        still_open = free >= smallest
        numbers, free = np.concatenate([numbers, fresh])[still_open], free[still_open]
    by_row = np.argsort(row_of, kind="stable")
    return placed[by_row], np.cumsum(np.bincount(row_of, minlength=rows)).astype(np.int64)
