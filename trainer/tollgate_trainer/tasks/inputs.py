"""What a text becomes for a model with a head: ids, segment numbers, and batches of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from tollgate_trainer.data.order import PAD_MULTIPLE
from tollgate_trainer.tasks.protocol import Batch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

TARGETS = ("labels", "label_weights", "start_positions", "end_positions")
"""The parts of a batch that are what should come out."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """How this model's inputs look. segments: whether it is told which of two texts a token belongs to."""

    max_length: int
    pad_token_id: int
    segments: bool

    @classmethod
    def of(cls, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Inputs:
        """As the model's config has it. The tokenizer is told too, so that whoever loads the finished model with the
        library alone gives it the same inputs.
        """
        segments = int(getattr(config, "type_vocab_size", 0) or 0) > 1
        names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.model_input_names = [*names, "token_type_ids"] if segments else names
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # what is saved with it
        assert tokenizer.pad_token_id is not None  # tokenizer.load sees to it
        return cls(max_length, int(tokenizer.pad_token_id), segments)


class Encoded(Protocol):
    """A sample with ids and segments, both of shape [tokens], int64."""

    @property
    def input_ids(self) -> npt.NDArray[np.int64]:
        """Token ids."""
        ...

    @property
    def segments(self) -> npt.NDArray[np.int64]:
        """0 for the first text of a pair, 1 for the second."""
        ...


def padded(samples: Sequence[Encoded], inputs: Inputs) -> Batch:
    """input_ids, attention_mask and, for models that have them, token_type_ids: [samples, longest], padded at the end
    to a multiple of 8 (never beyond the longest sequence that is allowed).
    """
    longest = max(len(sample.input_ids) for sample in samples)
    width = max(longest, min(inputs.max_length, -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE))
    ids = torch.full((len(samples), width), inputs.pad_token_id, dtype=torch.long)
    mask = torch.zeros((len(samples), width), dtype=torch.long)
    segments = torch.zeros((len(samples), width), dtype=torch.long)
    for row, sample in enumerate(samples):
        length = len(sample.input_ids)
        ids[row, :length] = torch.from_numpy(sample.input_ids)
        segments[row, :length] = torch.from_numpy(sample.segments)
        mask[row, :length] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    return batch | {"token_type_ids": segments} if inputs.segments else batch


def takes(model: Any, name: str) -> bool:
    """Whether the model's forward has a parameter of that name, or hands on what it does not know."""
    while hasattr(model, "get_base_model"):
        model = model.get_base_model()
    parameters = inspect.signature(model.forward).parameters
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def forward(model: Any, batch: Batch) -> Any:
    """The model's output for a batch without its targets; no key-value cache."""
    given: dict[str, Any] = {name: tensor for name, tensor in batch.items() if name not in TARGETS}
    return model(**given, **({"use_cache": False} if takes(model, "use_cache") else {}))
