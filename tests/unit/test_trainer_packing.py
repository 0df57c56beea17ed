"""Packing: rows filled first-fit-decreasing, documents that don't see each other, and models that let them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document
from tollgate_trainer.data.order import Order
from tollgate_trainer.data.packing import first_fit_decreasing
from tollgate_trainer.data.tokens import IGNORED, Sample
from tollgate_trainer.lifecycle.feeding import REAL, pack
from tollgate_trainer.models.packing_probe import FP32_BOUND, probe
from trainer_fixtures import TINY_LLAMA, manifest

CPU = torch.device("cpu")

lengths_and_capacity = st.integers(1, 40).flatmap(
    lambda capacity: st.tuples(st.lists(st.integers(1, capacity), min_size=1, max_size=80), st.just(capacity))
)


def one_after_the_other(lengths: list[int], capacity: int) -> list[list[int]]:
    """The textbook's first-fit-decreasing."""
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for row, room in enumerate(free):
            if room >= lengths[index]:
                rows[row].append(index)
                free[row] -= lengths[index]
                break
        else:
            rows.append([index])
            free.append(capacity - lengths[index])
    return rows


@given(lengths_and_capacity)
def test_rows_are_those_of_the_textbook(given_: tuple[list[int], int]) -> None:
    lengths, capacity = given_
    order, ends = first_fit_decreasing(np.asarray(lengths, dtype=np.int64), capacity)
    rows = [part.tolist() for part in np.split(order, ends[:-1])]
    assert rows == one_after_the_other(lengths, capacity)


def test_a_document_that_fits_into_no_row_is_told() -> None:
    with pytest.raises(ValueError, match="don't fit into rows of 4"):
        first_fit_decreasing(np.asarray([2, 5], dtype=np.int64), 4)


# --- the order --------------------------------------------------------------------------------------------------------

arranged = st.builds(
    lambda lengths, seed, world, micro, accumulation, kind: Order(
        np.asarray(lengths, dtype=np.int64), seed, world, micro, accumulation, (), *kind
    ),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    seed=st.integers(0, 1000),
    world=st.integers(1, 3),
    micro=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    kind=st.sampled_from([(32, False), (None, True), (None, False)]),
)


@given(arranged, st.integers(0, 3))
def test_an_epoch_has_each_sample_once_in_rows_that_fit_and_the_next_one_another_order(
    order: Order, epoch: int
) -> None:
    rows = [
        row
        for micro_step in range(order.micro_steps_per_epoch)
        for rank in range(order.world)
        for row in order.batch_rows(epoch, micro_step, rank)
    ]
    assert {i for row in rows for i in row} == set(range(order.samples))
    assert order.rows <= len(rows) < order.rows + order.world  # but for rows that fill the last group up
    assert all(order.lengths[list(row)].sum() <= (order.pack or 30) for row in rows)
    assert sorted(order.of_epoch(epoch).tolist()) == list(range(order.samples))


@given(arranged, st.integers(0, 12))
def test_tokens_and_samples_until_a_step_are_those_of_its_rows(order: Order, step: int) -> None:
    alone = Order(
        order.lengths, order.seed, 1, order.samples_per_step, 1, (), order.pack, order.by_length
    )  # fill-ups count once
    if order.by_length and order.samples_per_step != alone.samples_per_step:
        return
    seen = [i for s in range(1, step + 1) for i in alone.at_step(s, 0)]
    assert order.samples_until(step) == len(seen)
    assert order.tokens_until(step) == int(order.lengths[seen].sum())


@given(arranged, st.integers(1, 4))
def test_a_step_sees_the_same_samples_whatever_the_topology(order: Order, step: int) -> None:
    alone = Order(
        order.lengths,
        order.seed,
        1,
        order.micro_batch,
        order.accumulation * order.world,
        (),
        order.pack,
        order.by_length,
    )
    together = {i for rank in range(order.world) for i in order.at_step(step, rank)}
    assert set(alone.at_step(step, 0)) <= together


def test_an_order_made_again_is_the_same_and_the_documents_of_a_length_meet_others_in_the_next_epoch() -> None:
    lengths = np.asarray([5, 5, 5, 5, 10, 10, 3, 3, 3] * 9, dtype=np.int64)
    first, second = (Order(lengths, 3, 1, 2, 1, pack=16) for _ in range(2))
    assert [first.batch_rows(2, m, 0) for m in range(9)] == [second.batch_rows(2, m, 0) for m in range(9)]
    company = [{frozenset(row) for m in range(20) for row in first.batch_rows(epoch, m, 0)} for epoch in (0, 1)]
    assert company[0] != company[1]


def test_grouping_saves_padding_and_packing_more() -> None:
    lengths = np.random.default_rng(1).lognormal(4, 0.8, 2000).clip(8, 512).astype(np.int64)
    plain = Order(lengths, 1, 1, 8, 1)
    grouped = Order(lengths, 1, 1, 8, 1, by_length=True)
    together = Order(lengths, 1, 1, 8, 1, pack=512)
    tokens = int(lengths.sum())
    assert together.computed(0) < grouped.computed(0) < plain.computed(0)
    assert tokens / (together.rows * 512) > 0.98


# --- a batch ----------------------------------------------------------------------------------------------------------


def sample(*ids: int) -> Sample:
    values = np.asarray(ids, dtype=np.int64)
    return Sample(values, values.copy())


def test_positions_restart_and_no_document_is_predicted_from_the_one_before() -> None:
    batch = pack([[sample(5, 6, 7), sample(8, 9)], [sample(4)]])
    assert set(batch) == {"input_ids", "position_ids", "labels", REAL}  # above all no attention mask
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2], [0, 0, 1, 2, 3, 4, 5, 6]]
    none = IGNORED
    assert batch["labels"].tolist() == [[none, 6, 7, none, 9, none, none, none], [none] * 8]
    assert batch[REAL].sum(1).tolist() == [5, 1]


def tiny(model_type: str, **values: Any) -> Any:
    torch.manual_seed(1)
    config = AutoConfig.for_model(model_type, **values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)  # as sure of itself as a trained model; a fresh one hardly looks around
    return model.train()


LLAMA = {name: value for name, value in TINY_LLAMA.items() if name != "model_type"}
SMALL = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("model_type", "values"),
    [
        ("llama", LLAMA),
        ("qwen3", SMALL | HEADS | {"head_dim": 8}),
        ("gpt2", {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    ],
)
def test_models_of_attention_alone_keep_documents_apart(
    model_type: str, values: dict[str, Any], precision: str
) -> None:
    model = tiny(model_type, **values)
    chance = torch.get_rng_state()
    found = probe(model, CPU, precision, 512)
    assert found.passed, found
    assert model.training
    assert torch.equal(chance, torch.get_rng_state())


HYBRID = SMALL | HEADS | {"head_dim": 8}
LEAKING = [
    ("gpt_oss", HYBRID | {"num_local_experts": 2, "num_experts_per_tok": 2}),
    (
        "falcon_h1",
        HYBRID | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 16},
    ),
    (
        "qwen3_next",
        HYBRID
        | {
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
]


@pytest.mark.parametrize(
    ("model_type", "values", "precision"),
    [
        *(pytest.param(*one, "fp32", id=one[0]) for one in LEAKING),
        pytest.param(*LEAKING[0], "bf16", id="gpt_oss in bf16, where the bound is the noise of two shapes"),
    ],
)
def test_models_that_let_documents_see_each_other_fail_the_probe(
    model_type: str, values: dict[str, Any], precision: str
) -> None:
    found = probe(tiny(model_type, **values), CPU, precision, 512)
    assert not found.passed
    assert found.difference is not None, found.because  # it was tried, and told without an error
    assert found.difference > 10 * FP32_BOUND
    assert model_type in found.because


def test_packed_documents_have_the_losses_that_they_have_alone() -> None:
    model = tiny("llama", **LLAMA).eval()
    rows = [[sample(5, 6, 7, 8), sample(9, 10, 11)], [sample(12, 13, 14, 15, 16)]]
    batch = pack(rows)
    del batch[REAL]
    together = model(**batch, use_cache=False).loss
    losses = []
    for one in (one for row in rows for one in row):
        ids = torch.from_numpy(one.input_ids)[None]
        losses += [float(model(input_ids=ids, labels=ids).loss.detach())] * (ids.shape[1] - 1)
    assert float(together) == pytest.approx(float(np.mean(losses)), abs=1e-5)


# --- the manifest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "fix"),
    [
        ({"task": "classification", "hyperparameters": {"packing": True}}, "packing", "group_by_length"),
        ({"task": "span", "hyperparameters": {"packing": "auto"}}, "packing", "packing: false"),
        ({"task": "joint", "hyperparameters": {"packing": True}}, "packing", "group_by_length"),
        ({"hyperparameters": {"packing": True, "group_by_length": True}}, "group_by_length", "Keep one"),
        ({"dataset": {"weight": 2.0}, "hyperparameters": {"packing": True}}, "packing", "remove the weights"),
        ({"parallelism": "zero3", "hyperparameters": {"packing": True}}, "packing", "fsdp2"),
    ],
)
def test_what_can_not_be_packed_is_refused_with_the_fix(changes: dict[str, Any], field: str, fix: str) -> None:
    with pytest.raises(ManifestError) as refused:
        load_document(manifest(**changes), "test")
    assert f"hyperparameters.{field}" in str(refused.value)
    assert fix in str(refused.value)
