"""The loss in chunks has the digits of the usual loss, in bf16 as well."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tollgate_trainer.models.chunked_loss import summed

TOKENS, WIDTH, VOCABULARY = 2000, 64, 640


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_a_sum_over_many_tokens_and_its_gradients_are_as_precise_as_without_chunks(precision: torch.dtype) -> None:
    chance = torch.Generator().manual_seed(3)
    hidden = torch.randn(1, TOKENS, WIDTH, generator=chance).to(precision).requires_grad_()
    weight = (torch.randn(VOCABULARY, WIDTH, generator=chance) * WIDTH**-0.5).to(precision).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (1, TOKENS), generator=chance)
    targets[0, :50] = -100
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
        found = summed(hidden, weight, None, targets)
    whole = (hidden[0].float() @ weight.float().T).requires_grad_()
    expected = functional.cross_entropy(whole, targets[0], ignore_index=-100, reduction="sum")
    assert found.dtype is torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    ours = torch.autograd.grad(found / 777, (hidden, weight))
    theirs = torch.autograd.grad(expected / 777, (hidden, weight))
    for one, other in zip(ours, theirs, strict=True):
        assert float((one.float() - other.float()).norm() / other.float().norm()) < 0.01
