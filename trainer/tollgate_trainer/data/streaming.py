"""Documents that are not kept in memory: one pass says which are held out, later passes read the others anew."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tollgate_trainer.data.document import Document
from tollgate_trainer.data.sources import Reading, Source, documents_of
from tollgate_trainer.data.split import held_out_keys

WIDTH = 16
"""Hex digits of a split key that are held for each document: 64 bits, which is what a split looks at."""


class Streamed(Sequence[Document]):
    """The training documents of sources, read whenever they are gone through; one alone is a pass up to it."""

    def __init__(self, sources: Sequence[Source], chosen: npt.NDArray[np.bool_], private: bool) -> None:
        self._sources = tuple(sources)
        self._chosen = chosen
        self._private = private
        self._count = int(chosen.sum())

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Document]:
        every = documents_of(self._sources, Reading(), private=self._private)
        return (document for document, chosen in zip(every, self._chosen, strict=True) if chosen)

    def __getitem__(self, index: int) -> Document:  # type: ignore[override]
        wanted = range(len(self))[index]
        return next(document for number, document in enumerate(self) if number == wanted)


def streamed(
    sources: Sequence[Source], reading: Reading, held_out: list[Document] | None, share: float, private: bool
) -> tuple[Streamed, list[Document]]:
    """(documents to train on, held-out documents), split as `split` splits documents in memory.

    Args: held_out: those of a file of their own, then none is taken from the sources; share: of held-out documents.
    Raises: DatasetRefused.
    """
    keys = array("Q")
    for document in documents_of(sources, reading, private=private):
        keys.append(int(document.split_key[:WIDTH], 16))
    numbers = np.asarray(keys, dtype=np.uint64)
    if held_out is not None:
        return Streamed(sources, np.ones(len(numbers), dtype=np.bool_), private), held_out
    apart = held_out_keys((f"{int(key):016x}" for key in np.unique(numbers)), share)
    chosen = ~np.isin(numbers, np.asarray([int(key, 16) for key in apart], dtype=np.uint64))
    rest = Streamed(sources, ~chosen, private)
    return Streamed(sources, chosen, private), list(rest)
