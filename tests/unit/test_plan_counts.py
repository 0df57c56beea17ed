"""What the planner counts before a training is what the training's own code counts: rows, steps, weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tollgate.estimate import work
from tollgate.manifest.loader import load_document
from tollgate.planning.choose import choose
from tollgate.planning.devices import DEVICES, cpu
from tollgate.planning.epoch import Arrangement
from tollgate.planning.facts import Facts, memory_of, weights_of
from tollgate.planning.lengths import lengths_of
from tollgate_trainer.data import load_documents
from tollgate_trainer.data.packing import first_fit_decreasing
from tollgate_trainer.data.sources import shares_of
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.build import build
from tollgate_trainer.plan.arranging import Sizes, arranger, sizes_of
from tollgate_trainer.plan.facts import lengths_in, shape_for, whole_sizes
from tollgate_trainer.refusal import DatasetRefused, ModelRefused
from tollgate_trainer.tasks.choose import task_for
from trainer_fixtures import TINY_LLAMA, manifest, write_answers, write_chat, write_conversations

TINY_BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 600,
}


def test_the_steps_of_a_packed_plan_are_the_rows_of_the_packer_that_trains(tmp_path: Path) -> None:
    write_conversations(tmp_path / "data.json")
    asked = load_document(manifest(hyperparameters={"packing": True}), "test").manifest
    documents = load_documents(asked, tmp_path)
    tokenizer = tokenizers.from_json(tokenizers.train(documents.train, 600))
    task = task_for(asked, documents, tokenizer, tmp_path)
    trained = task.encode(documents, tokenizer, asked).train
    _, ends = first_fit_decreasing(trained.lengths, 48)
    found = arranger(whole_sizes(documents, task, tokenizer, asked), 11)(Arrangement(48, 4, packed=True))
    assert found.rows == len(ends) < len(trained)
    assert found.steps == -(-len(ends) // 4)
    assert found.tokens == int(trained.lengths.sum())


@pytest.mark.parametrize("limit", [8, 10, 16, 64])
def test_documents_that_are_cut_before_what_is_learned_are_left_out_as_in_training(tmp_path: Path, limit: int) -> None:
    """Of two sources, one of which weighs twice: what is left of each decides how much of it makes an epoch."""
    write_chat(tmp_path / "data.jsonl", 60)
    write_conversations(tmp_path / "more.json", 30)
    more = [{"path": "more.json", "weight": 2.0, "format": "conversations"}]
    changed = manifest(dataset={"path": "data.jsonl", "sources": more}, hyperparameters={"max_seq_length": limit})
    asked = load_document(changed, "test").manifest
    documents = load_documents(asked, tmp_path)
    tokenizer = tokenizers.from_json(tokenizers.train(documents.train, 600))
    task = task_for(asked, documents, tokenizer, tmp_path)
    arrange = arranger(whole_sizes(documents, task, tokenizer, asked), 11)
    try:
        trained = task.encode(documents, tokenizer, asked).train
    except DatasetRefused:
        with pytest.raises(DatasetRefused, match="max_seq_length"):
            arrange(Arrangement(limit, 4))
        return
    shares = shares_of(asked, trained.documents)
    found = arrange(Arrangement(limit, 4))
    assert found.samples == sum(share.count for share in shares)
    assert found.steps == -(-found.samples // 4)


@given(
    st.lists(st.integers(1, 64), min_size=1, max_size=80),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["plain", "packed", "grouped"]),
)
def test_an_epoch_has_every_token_once_and_padding_beside_them(
    lengths: list[int], micro: int, accumulation: int, world: int, how: str
) -> None:
    sizes = Sizes(tuple(lengths), (0,) * len(lengths))
    asked = Arrangement(64, micro, accumulation, world, packed=how == "packed", by_length=how == "grouped")
    found = arranger(sizes, 3)(asked)
    assert found.tokens == sum(lengths)
    assert found.tokens <= found.computed <= 64 * found.rows
    assert found.rows <= len(lengths)
    assert found.steps == -(-found.rows // (micro * accumulation * world))
    assert 0 <= found.padding < 1


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="full"),
        pytest.param({"adapter": {"type": "lora", "rank": 4}}, id="lora"),
        pytest.param({"adapter": {"type": "lora", "rank": 4, "target_modules": ["q_proj"]}}, id="lora on one layer"),
        pytest.param({"adapter": {"type": "lora", "rank": 4, "dora": True}}, id="dora"),
        pytest.param({"adapter": {"type": "moe-lora", "rank": 4, "experts": 3}}, id="experts with their routers"),
        pytest.param({"task": "classification"}, id="classification"),
        pytest.param({"task": "span", "adapter": {"type": "lora", "rank": 2}}, id="span with lora"),
        pytest.param({"task": "joint"}, id="joint"),
        pytest.param({"task": "joint", "joint": {"encoders": "two"}}, id="joint with two encoders"),
    ],
)
def test_the_planned_weights_are_those_of_the_model_that_is_built(tmp_path: Path, changes: dict[str, Any]) -> None:
    tasked = "task" in changes
    path = (write_answers(tmp_path / "a.jsonl", 40) and None) if tasked else write_conversations(tmp_path / "data.json")
    model = {"config": dict(TINY_BERT if tasked else TINY_LLAMA)}
    data = {"path": "a.jsonl" if path is None else "data.json"}
    span = {"span": {"doc_stride": 8}} if tasked and changes["task"] != "classification" else {}
    asked = load_document(manifest(**changes, **span, model=model, dataset=data), "test").manifest
    documents = load_documents(asked, tmp_path)
    tokenizer = tokenizers.from_json(tokenizers.train(documents.train, 600))
    task = task_for(asked, documents, tokenizer, tmp_path)
    shape, unknown = shape_for(asked, tmp_path, tokenizer, task)
    assert shape is not None, unknown
    built = build(asked, tmp_path, tokenizer, torch.device("cpu"), task.head)
    splits = task.encode(documents, tokenizer, asked)
    facts = Facts(lengths_in(splits), shape, cpu(10**10), arranger(sizes_of(asked, splits), 1))
    weights = weights_of(asked, shape)
    assert (weights.total, weights.trainable) == (built.parameters, built.trainable)
    assert work(asked, choose(asked, facts).settings, facts).checkpoint_bytes == 12 * built.trainable


def test_layers_that_the_model_does_not_have_are_told_by_the_plan_already(tmp_path: Path) -> None:
    write_conversations(tmp_path / "data.json")
    asked = load_document(manifest(adapter={"type": "lora", "target_modules": ["nothing"]}), "test").manifest
    documents = load_documents(asked, tmp_path)
    tokenizer = tokenizers.from_json(tokenizers.train(documents.train, 600))
    with pytest.raises(ModelRefused, match="Linear layers of this model"):
        shape_for(asked, tmp_path, tokenizer, task_for(asked, documents, tokenizer, tmp_path))


@pytest.mark.parametrize(
    ("kind", "cross_entropy", "gpu", "small"),
    [
        ("llama", "auto", True, True),
        ("llama", "auto", False, False),
        ("llama", "chunked", False, True),
        ("llama", "plain", True, False),
        pytest.param("gemma2", "auto", True, False, id="gemma2 caps its logits, so auto holds all of them"),
    ],
)
def test_logits_that_are_never_all_there_are_not_planned_for(
    tmp_path: Path, kind: str, cross_entropy: str, gpu: bool, small: bool
) -> None:
    write_conversations(tmp_path / "data.json")
    more = {"head_dim": 16} if kind == "gemma2" else {}
    config = TINY_LLAMA | {"model_type": kind, "max_position_embeddings": 8192, **more}
    hyper = {"cross_entropy": cross_entropy, "max_seq_length": 8192}
    asked = load_document(manifest(model={"config": config}, hyperparameters=hyper), "test").manifest
    documents = load_documents(asked, tmp_path)
    tokenizer = tokenizers.from_json(tokenizers.train(documents.train, 600))
    shape, _ = shape_for(asked, tmp_path, tokenizer, task_for(asked, documents, tokenizer, tmp_path))
    assert shape is not None
    sizes = Sizes((8192,) * 40, (1,) * 40)
    facts = Facts(lengths_of(sizes.lengths), shape, DEVICES["H100"] if gpu else cpu(10**10), arranger(sizes, 1))
    table = memory_of(asked, facts, choose(asked, facts).settings)
    assert table is not None
    whole = 4 * 8192 * 600 * (16 if gpu else 12)
    assert table.logits == whole if not small else table.logits < whole / 4


def test_the_sizes_that_are_kept_in_a_file_come_back_the_same() -> None:
    from pydantic import TypeAdapter

    sizes = Sizes((3, 4), (1, 2), ((1.0, 2),), (7,))
    text = json.dumps({"lengths": [3, 4], "learned": [1, 2], "sources": [[1.0, 2]], "held_out": [7]})
    assert TypeAdapter(Sizes).validate_json(text) == sizes
