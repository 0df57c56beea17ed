"""The mixture of LoRA experts: what a layer computes, how it learns, and what it counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_mixture import ALPHA, EXPERTS, IDS, MASK, MOE, RANK, TOP_K, base, layers, logits, model
from torch.nn import functional

from tollgate_trainer.models.moe_lora.config import MoeLoraConfig
from tollgate_trainer.models.moe_lora.figures import IN_A_ROW, Watch
from tollgate_trainer.models.moe_lora.layer import gates
from tollgate_trainer.models.moe_lora.model import MoeLoraModel, with_experts

# --- what a layer computes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [2, 3, 4])
def test_a_layer_equals_the_explicit_sum_over_its_experts(top_k: int) -> None:
    config = MoeLoraConfig(EXPERTS, top_k, RANK, ALPHA, 0.0, 0.01, ("q_proj",))
    layer = layers(model(config))[0].double()
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    a = layer.lora_A["default"].weight.reshape(EXPERTS, RANK, 16)
    b = layer.lora_B["default"].weight.reshape(16, EXPERTS, RANK)
    probabilities = functional.softmax(x.float() @ layer.lora_router["default"].weight.float().T, -1).detach()
    expected = layer.base_layer(x).detach()
    for row, token in ((r, t) for r in range(2) for t in range(5)):
        best = sorted(range(EXPERTS), key=lambda e: -float(probabilities[row, token, e]))[:top_k]
        total = sum(float(probabilities[row, token, e]) for e in best)
        for e in best:
            g = float(probabilities[row, token, e]) / total
            expected[row, token] += ALPHA / RANK * g * (b[:, e] @ (a[e] @ x[row, token]))
    assert (layer(x) - expected).abs().max() < 1e-6


def test_before_the_first_step_the_model_is_its_base() -> None:
    assert torch.equal(logits(model(trained=False)), logits(base()))


def test_gates_are_the_largest_k_and_sum_to_one() -> None:
    found = gates(torch.tensor([[0.1, 0.4, 0.3, 0.2]]), 2)
    assert torch.allclose(found, torch.tensor([[0.0, 4 / 7, 3 / 7, 0.0]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_router_decides_in_fp32_under_autocast_and_over_a_halved_base(dtype: torch.dtype) -> None:
    torch.manual_seed(6)
    made = with_experts(base().to(dtype), MOE)
    layer = layers(made)[0]
    assert layer.lora_router["default"].weight.dtype == torch.float32
    x = torch.randn(3, 16)
    exact = layer.lora_router["default"](x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.lora_router["default"](x), exact)
    assert layer(x.to(dtype)).dtype == dtype


def test_only_the_experts_are_trained_and_each_layer_is_named() -> None:
    made = model()
    trained = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert any("lora_router" in name for name in trained)
    assert made.routing.layers[0] == "model.layers.0.self_attn.q_proj"
    assert len(made.routing.layers) == len(layers(made)) == 14


# --- how it learns ----------------------------------------------------------------------------------------------------


def step(made: MoeLoraModel, optimizer: Any = None, mask: torch.Tensor = MASK) -> torch.Tensor:
    """Forward and backward as the training loop does them; gradients are left when there is no optimizer."""
    made.train()
    with made.routing.step(mask):
        loss = made(input_ids=IDS, attention_mask=mask, labels=IDS, use_cache=False).loss
        total = made.routing.balanced(loss, 1.0)
        assert torch.equal(total, loss)
        total.backward()
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()
    return loss.detach()


def gradients(made: MoeLoraModel) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}


def checkpointed(made: MoeLoraModel) -> MoeLoraModel:
    inner: Any = made
    inner.enable_input_require_grads()
    inner.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return made


@pytest.mark.parametrize("balance", [0.0, 0.01])
def test_every_router_has_a_gradient_at_the_second_step_also_with_gradient_checkpointing(balance: float) -> None:
    made = checkpointed(model(MoeLoraConfig(EXPERTS, TOP_K, RANK, ALPHA, 0.0, balance, "all-linear"), trained=False))
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=1e-2)
    step(made, optimizer)
    step(made)
    routers = {name: grad for name, grad in gradients(made).items() if "lora_router" in name}
    assert len(routers) == 14
    assert all(float(grad.abs().max()) > 0 for grad in routers.values())


def test_gradient_checkpointing_changes_neither_gradients_nor_what_is_counted() -> None:
    plain, saving = model(), checkpointed(model())
    step(plain)
    step(saving)
    left, right = gradients(plain), gradients(saving)
    assert left.keys() == right.keys()
    assert all(torch.allclose(left[name], right[name], atol=1e-7) for name in left)
    assert plain.routing.take() == saving.routing.take()


def test_the_balance_loss_is_one_when_the_routers_are_uniform() -> None:
    made = model(MoeLoraConfig(EXPERTS, 3, RANK, ALPHA, 0.0, 0.5, "all-linear"))
    for layer in layers(made):
        torch.nn.init.zeros_(layer.lora_router["default"].weight)
    step(made)
    taken = made.routing.take()
    assert taken is not None
    assert taken.balance_loss == pytest.approx(1.0, abs=1e-6)
    assert taken.routing_entropy == pytest.approx(1.0, abs=1e-6)
    assert taken.routing_entropy_nats == pytest.approx(1.3863, abs=1e-4)


def test_the_balance_loss_is_that_of_all_processes_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes: this one's load, and another's that is given here in place of the network."""
    made = model()
    step(made)
    alone = made.routing.take()
    monkeypatch.setattr("tollgate_trainer.models.moe_lora.routing.processes", lambda: 2)
    monkeypatch.setattr("tollgate_trainer.models.moe_lora.routing.summed", lambda values: 2 * values)
    step(made)
    doubled = made.routing.take()
    assert alone is not None
    assert doubled is not None
    assert doubled.balance_loss == pytest.approx(alone.balance_loss, abs=1e-6)  # twice the same tokens
    assert doubled.layers["model.layers.0.self_attn.q_proj"].usage == pytest.approx(
        alone.layers["model.layers.0.self_attn.q_proj"].usage
    )


def test_balancing_spreads_tokens_that_had_collapsed() -> None:
    def spread(balance: float) -> float:
        torch.manual_seed(1)
        made = collapsed(balance)
        optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=3e-2)
        for done in range(40):
            step(made, optimizer)
            if done == 20:
                made.routing.take()
        taken = made.routing.take()
        assert taken is not None
        assert taken.load_entropy is not None
        return taken.load_entropy

    assert spread(1.0) > spread(0.0) + 0.1


# --- what it counts ---------------------------------------------------------------------------------------------------


def collapsed(balance: float) -> MoeLoraModel:
    """Every token shares one direction, and the routers follow it to the experts 0 and 1."""
    made = model(MoeLoraConfig(EXPERTS, TOP_K, RANK, ALPHA, 0.0, balance, ("q_proj",)))
    made.get_base_model().get_input_embeddings().weight.data += 10.0
    for layer in layers(made):
        layer.lora_router["default"].weight.data[:] = torch.tensor([[0.3], [0.2], [0.0], [0.0]])
    return made


def test_usage_sums_to_one_and_padding_counts_for_nothing() -> None:
    made = model()
    step(made)
    masked = made.routing.take()
    short = model()
    short.train()
    ids = [IDS[:1], IDS[1:, :7]]
    for part in ids:
        with short.routing.step(None):
            short.routing.balanced(short(input_ids=part, labels=part, use_cache=False).loss, 1.0)
    alone = short.routing.take()
    assert masked is not None
    assert alone is not None
    for name, figures in masked.layers.items():
        assert sum(figures.usage) == pytest.approx(1.0)
        assert figures.usage == pytest.approx(alone.layers[name].usage, abs=1e-5)
        assert figures.shares == pytest.approx(alone.layers[name].shares, abs=1e-9)
        assert figures.routing_entropy == pytest.approx(alone.layers[name].routing_entropy, abs=1e-5)


def test_an_evaluation_is_not_counted_and_what_was_taken_is_gone() -> None:
    made = model()
    logits(made)
    assert made.routing.take() is None
    step(made)
    assert made.routing.take() is not None
    assert made.routing.take() is None


def test_a_forced_collapse_is_warned_of() -> None:
    made = collapsed(balance=0.0)
    watch, said = Watch(), []
    for _ in range(IN_A_ROW):
        assert not said
        step(made)
        taken = made.routing.take()
        assert taken is not None
        said = watch.warnings(taken.layers)
    assert any("few experts serve most tokens" in message for message in said)
    assert any("less than 1 %" in message for message in said)
