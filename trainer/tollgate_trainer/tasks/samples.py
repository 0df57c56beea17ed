"""The samples of a split as every task's training and evaluation sees them. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from tollgate_trainer.data.documents import Document
from tollgate_trainer.data.tokens import Statistics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SampleSet(Protocol):
    """Samples by their index, with the document that each was made of."""

    @property
    def documents(self) -> Sequence[Document]:
        """The document of each sample."""
        ...

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each sample, shape [samples]."""
        ...

    @property
    def statistics(self) -> Statistics:
        """What became of the documents."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class SampleSplits(Protocol):
    """What a run trains on and what it is judged on."""

    @property
    def train(self) -> SampleSet:
        """To learn from."""
        ...

    @property
    def validation(self) -> SampleSet:
        """Held out; may be empty."""
        ...

    @property
    def digest(self) -> str:
        """The dataset's."""
        ...

    @property
    def stats(self) -> Mapping[str, Statistics]:
        """Counts of both splits, by their names."""
        ...


def forget_truncation(tokenizer: PreTrainedTokenizerBase) -> None:
    """A fast tokenizer keeps how it cut its last text and saves it: a resumed run would save another tokenizer."""
    if tokenizer.is_fast:
        backend: Any = tokenizer
        backend.backend_tokenizer.no_truncation()


class Samples:
    """A SampleSet of a task's own samples; `samples[i]` was made of `documents[i]` and has `lengths[i]` tokens."""

    def __init__(
        self, documents: Sequence[Document], samples: Sequence[Any], lengths: Sequence[int], statistics: Statistics
    ) -> None:
        assert len(documents) == len(samples) == len(lengths)
        self.documents = tuple(documents)
        self.lengths: npt.NDArray[np.int64] = np.asarray(lengths, dtype=np.int64)
        self.statistics = statistics
        self._samples = tuple(samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        return self._samples[index]


@dataclass(frozen=True, slots=True)
class TaskSplits:
    """SampleSplits of a task's own samples."""

    train: Samples
    validation: Samples
    digest: str

    @property
    def stats(self) -> dict[str, Statistics]:
        """Counts of both splits, by their names."""
        return {"train": self.train.statistics, "validation": self.validation.statistics}
