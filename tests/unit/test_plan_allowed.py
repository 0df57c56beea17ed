"""What a plan chooses by itself is what the manifest could have asked for by name."""

from __future__ import annotations

from typing import Any

import pytest

from plan_fixtures import facts, manifest
from tollgate.planning.choose import choose
from tollgate.planning.devices import DEVICES

FULL = {"max_seq_length": 8192}
LONG = facts(DEVICES["L4"], 8, (8000,) * 400)
ASKED: list[dict[str, Any]] = [
    {"hyperparameters": FULL | {"compile": True}},
    {"hyperparameters": FULL | {"packing": True}},
    {"hyperparameters": FULL, "precision": "fp16"},
    {"hyperparameters": FULL, "model": {"base": "b", "quantization": "int8"}, "adapter": {"type": "lora"}},
    {"hyperparameters": FULL, "model": {"base": "b", "quantization": "nf4"}, "adapter": {"type": "lora"}},
]


def test_a_model_that_fits_in_no_other_way_is_sharded() -> None:
    found = choose(manifest(optimization_priority="fast", hyperparameters=FULL), LONG)
    assert found.settings.strategy == "zero3", "or the other tests prove nothing"


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_no_shards_are_chosen_that_the_manifest_may_not_ask_for(asked: dict[str, Any]) -> None:
    found = choose(manifest(optimization_priority="fast", **asked), LONG)
    strategy = found.settings.strategy
    assert strategy != "zero3"
    manifest(parallelism=strategy, **asked)  # or it raises
    assert not any("zero3" in line for line in found.nearest)
