"""Facts of plans for the tests: an 8B model, a device, and documents of given lengths that nobody had to tokenise."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tollgate.manifest.loader import load_document
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.devices import DEVICES, Device
from tollgate.planning.epoch import Arrange
from tollgate.planning.facts import Facts
from tollgate.planning.lengths import lengths_of
from tollgate.planning.shapes import shape_of
from tollgate_trainer.plan.arranging import Sizes, arranger

LLAMA_3_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
SHAPE = shape_of(LLAMA_3_8B)
assert SHAPE is not None


def manifest(**changes: Any) -> TrainingManifest:
    document: dict[str, Any] = {
        "name": "x",
        "dataset": {"path": "data.json"},
        "model": {"config": LLAMA_3_8B},
        "compute_target": "gpu_single",
    }
    return load_document(document | changes, "test").manifest


@lru_cache
def arranged(lengths: tuple[int, ...], held_out: tuple[int, ...] = ()) -> Arrange:
    """Of documents that are learned from their second token on."""
    return arranger(Sizes(lengths, (1,) * len(lengths), held_out=held_out), 42)


def facts(device: Device = DEVICES["H100"], processes: int = 1, lengths: tuple[int, ...] = (512,) * 2000) -> Facts:
    return Facts(lengths_of(lengths, (512,) * 50), SHAPE, device, arranged(lengths, (512,) * 50), 1, processes)
