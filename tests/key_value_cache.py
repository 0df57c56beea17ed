"""Refuses, in this process, every forward pass of a model that makes a key-value cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules import module as modules
from transformers import PreTrainedModel


class CacheMadeError(AssertionError):
    """A model kept keys and values that nobody will read."""


def refuse_caches() -> Any:
    """From now on; the answer's `remove()` ends it."""

    def look(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(module, PreTrainedModel) and getattr(output, "past_key_values", None) is not None:
            raise CacheMadeError(f"{type(module).__name__} made a key-value cache")

    return modules.register_module_forward_hook(look)


@contextmanager
def no_caches() -> Iterator[None]:
    """Within the block."""
    handle = refuse_caches()
    try:
        yield
    finally:
        handle.remove()
