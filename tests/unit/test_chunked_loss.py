"""The loss in chunks is the loss, never holds all logits, and is kept from models where it would be wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from tollgate.manifest.loader import load_document
from tollgate_trainer.lifecycle.cross_entropy import chunked_loss
from tollgate_trainer.models.chunked_loss import ChunkedLoss, fit, summed
from trainer_fixtures import manifest

VOCABULARY = 640
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2 = {"n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
MOE = {**SMALL, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def made(model_type: str, **config: Any) -> Any:
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **config)).train(False)


def batch(rows: int = 2, tokens: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(3, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(5))
    labels = ids.clone()
    labels[0, :7] = -100
    labels[1, -5:] = -100
    return ids, labels


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("llama", SMALL),
        ("llama", {**SMALL, "tie_word_embeddings": True}),
        ("qwen3", {**SMALL, "head_dim": 8}),
        ("qwen3_moe", MOE),
        ("mistral", SMALL),
        ("phi", SMALL),  # its head has a bias
        ("gemma3_text", {**SMALL, "head_dim": 8}),
        ("gpt2", GPT2),
    ],
)
@pytest.mark.parametrize("items", [None, 29])
def test_the_loss_and_its_gradients_are_the_same(model_type: str, config: dict[str, Any], items: int | None) -> None:
    model = made(model_type, **config)
    ids, labels = batch()
    given = {} if items is None else {"num_items_in_batch": torch.tensor(items)}
    usual = model(input_ids=ids, labels=labels, use_cache=False, **given)
    usual.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    assert fit(model).fits, fit(model).because
    chunked = ChunkedLoss(model)
    with chunked.over(labels):
        found = model(input_ids=ids, labels=labels, use_cache=False, **given)
    found.loss.backward()

    torch.testing.assert_close(found.loss, usual.loss, rtol=1e-5, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-7, msg=name)
    after = model(input_ids=ids, labels=labels, use_cache=False, **given)
    assert torch.equal(after.logits, usual.logits)
    assert torch.equal(after.loss, usual.loss)


@pytest.mark.parametrize(
    ("model_type", "config", "because"),
    [
        ("gemma2", {**SMALL, "head_dim": 8}, "changes the logits"),  # caps them
        ("granite", {**SMALL, "logits_scaling": 8.0}, "changes the logits"),
        ("cohere", SMALL, "changes the logits"),
    ],
)
def test_a_model_that_changes_its_logits_keeps_the_usual_loss(
    model_type: str, config: dict[str, Any], because: str
) -> None:
    model = made(model_type, **config)
    ids, labels = batch()
    before = model(input_ids=ids, labels=labels, use_cache=False)
    found = fit(model)
    assert not found.fits
    assert because in found.because
    after = model(input_ids=ids, labels=labels, use_cache=False)
    assert torch.equal(before.loss, after.loss)  # trying left nothing behind


def test_a_head_with_an_adapter_is_not_a_plain_one() -> None:
    model = get_peft_model(made("llama", **SMALL), LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    assert "not a plain linear layer" in fit(model).because


def test_a_frozen_head_under_an_adapter_gets_no_gradient() -> None:
    model: Any = get_peft_model(made("llama", **SMALL), LoraConfig(r=2, target_modules=["q_proj"]))
    ids, labels = batch()
    assert fit(model).fits
    with ChunkedLoss(model).over(labels):
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
    given = {name for name, p in model.named_parameters() if p.grad is not None}
    assert given == {name for name, _ in model.named_parameters() if "lora_" in name}


def test_a_model_that_is_not_there_yet_can_be_tried() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL))
    assert fit(model).fits


class Largest(TorchDispatchMode):
    """The most numbers that one result of any operation had."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else (found,):
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.numel())
        return found


def test_all_logits_are_never_held_at_once() -> None:
    rows, width, vocabulary = 512, 16, 4096
    own = torch.Generator().manual_seed(1)
    hidden = torch.randn(1, rows, width, generator=own, requires_grad=True)
    weight = torch.randn(vocabulary, width, generator=own)
    targets = torch.randint(0, vocabulary, (1, rows), generator=own)
    with Largest() as chunked:
        summed(hidden, weight, None, targets).backward()
    with Largest() as whole:
        torch.nn.functional.cross_entropy((hidden @ weight.T)[0], targets[0]).backward()
    assert whole.numbers >= rows * vocabulary
    assert chunked.numbers <= rows * vocabulary / 8


@pytest.mark.parametrize(
    ("asked", "on_gpu", "chunked"),
    [("auto", True, True), ("auto", False, False), ("chunked", False, True), ("plain", True, False)],
)
def test_on_a_gpu_it_is_the_default_and_on_a_cpu_it_has_to_be_asked_for(
    asked: str, on_gpu: bool, chunked: bool
) -> None:
    document = load_document(manifest(hyperparameters={"cross_entropy": asked}), "test").manifest
    told: list[str] = []
    session: Any = SimpleNamespace(say=lambda event, **_: told.append(event))
    found = chunked_loss(document, session, made("llama", **SMALL), on_gpu)
    assert (found is not None) == chunked
    assert told == (["cross_entropy"] if chunked else [])
