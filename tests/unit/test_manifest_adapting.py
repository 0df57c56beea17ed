"""Adapters and quantised bases that can't be asked for together are refused when the manifest is read, with the fix."""

from __future__ import annotations

from typing import Any

import pytest

from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document

BASE = {"name": "m", "dataset": {"path": "d.json"}, "model": {"base": "b"}}
MOE = {"type": "moe-lora"}
LORA = {"type": "lora"}


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"model": {"base": "b", "quantization": "nf4"}}, "model.quantization", "quantization needs an adapter"),
        ({"model": {"quantization": "int8"}, "adapter": LORA}, "model.quantization", "nothing to quantise"),
        (
            {"model": {"base": "b", "quantization": "int8"}, "adapter": LORA | {"dora": True}},
            "adapter.dora",
            "8-bit base does not give back",
        ),
        ({"adapter": LORA | {"experts": 4}}, "adapter.experts", "no experts with adapter.type lora"),
        ({"adapter": LORA | {"top_k": 2}}, "adapter.top_k", "no experts"),
        ({"adapter": LORA | {"balance": 0.1}}, "adapter.balance", "no experts"),
        ({"adapter": MOE | {"dora": True}}, "adapter.dora", "the one merged weight"),
        ({"adapter": MOE | {"rslora": True}}, "adapter.rslora", "alpha / rank"),
        ({"adapter": MOE | {"experts": 2, "top_k": 3}}, "adapter.top_k", "more than the 2 experts"),
        ({"adapter": MOE | {"top_k": 1}}, "adapter.top_k", "at least 2"),
        ({"adapter": MOE | {"experts": 3, "top_k": 3, "balance": 0.1}}, "adapter.balance", "nothing to balance"),
    ],
)
def test_what_cannot_be_had_together_names_its_field_and_the_fix(
    changes: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ManifestError) as error:
        load_document(BASE | changes, "test")
    (problem,) = error.value.problems
    assert problem.field == field
    assert words in problem.message
    assert problem.fix


@pytest.mark.parametrize(
    ("adapter", "mixture"),
    [
        (MOE, (4, 2, 0.01)),
        (MOE | {"experts": 2}, (2, 2, 0.0)),
        (MOE | {"experts": 8, "top_k": 3, "balance": 0}, (8, 3, 0.0)),
    ],
)
def test_a_mixture_has_defaults_and_balances_only_what_can_be_uneven(
    adapter: dict[str, Any], mixture: tuple[int, int, float]
) -> None:
    found = load_document(BASE | {"adapter": adapter}, "test").manifest.adapter.mixture
    assert (found.experts, found.top_k, found.balance) == mixture
