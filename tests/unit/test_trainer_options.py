"""Readers beside the training, compilation, fp16's skipped steps, and which prompts are answered at evaluations."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document
from tollgate_trainer.data.document import Document, Message
from tollgate_trainer.data.order import Order
from tollgate_trainer.data.tokens import Sample, tokenise
from tollgate_trainer.lifecycle.compiling import why_not
from tollgate_trainer.lifecycle.feeding import REAL, Rows, pack
from tollgate_trainer.lifecycle.processes import set_determinism
from tollgate_trainer.lifecycle.sampling import MAX_NEW_TOKENS, prompts
from tollgate_trainer.lifecycle.scaling import MOST_IN_A_ROW, ScalerSkips
from tollgate_trainer.lifecycle.workers import fetch_seconds, workers_for
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.build import precision_for
from tollgate_trainer.refusal import ManifestRefused
from trainer_fixtures import WORDS, manifest

# --- readers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "fetch", "compute", "cores", "count"),
    [
        pytest.param(3, None, None, 0, 3, id="as asked, nothing is measured"),
        pytest.param("auto", 0.001, 1.0, 8, 0, id="quick to read"),
        pytest.param("auto", 0.2, 1.0, 8, 1, id="slow to read"),
        pytest.param("auto", 2.5, 1.0, 8, 3, id="slower than the step"),
        pytest.param("auto", 50.0, 1.0, 8, 4, id="never more than four"),
        pytest.param("auto", 2.5, 1.0, 0, 0, id="no core is free"),
        pytest.param("auto", None, None, 8, 0, id="no step was measured"),
    ],
)
def test_so_many_processes_read_beside_the_training(
    asked: Any, fetch: float | None, compute: float | None, cores: int, count: int
) -> None:
    def measure() -> float:
        assert fetch is not None, "nothing should be measured"
        return fetch

    assert workers_for(asked, measure, compute, cores).count == count


def test_measuring_how_long_a_batch_takes_to_read_touches_no_chance() -> None:
    lengths = np.full(20, 8, dtype=np.int64)
    chance, numpys = torch.get_rng_state(), np.random.get_state()[1]
    samples = [Sample(np.arange(8), np.arange(8)) for _ in lengths]

    class Slow(Rows):
        def __getitem__(self, numbers: tuple[int, ...]) -> list[Any]:
            time.sleep(0.002)
            return [samples[number] for number in numbers]

    order = Order(lengths, 1, 1, 4, 1, pack=16)
    seconds = fetch_seconds(Slow(samples), pack, order, 0)  # type: ignore[arg-type]
    assert seconds >= 2 * 0.002, "a batch has two rows or more"
    assert torch.equal(chance, torch.get_rng_state())
    assert (numpys == np.random.get_state()[1]).all()


# --- compilation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "device", "packed", "compiled"),
    [(True, "cpu", True, True), (True, "cpu", False, False), (True, "cuda", False, True), (False, "cpu", False, True)],
)
def test_on_a_cpu_only_batches_of_one_shape_are_worth_compiling(
    asked: bool, device: str, packed: bool, compiled: bool
) -> None:
    assert (why_not(asked, torch.device(device), packed) is None) == compiled


def test_batches_of_one_shape_are_filled_up_with_rows_that_teach_nothing() -> None:
    ids = np.arange(1, 6, dtype=np.int64)
    batch = pack([[Sample(ids, ids.copy())]], (3, 32))
    assert all(tensor.shape == (3, 32) for tensor in batch.values())
    assert (batch["labels"][1:] == -100).all()
    assert batch[REAL].sum() == 5
    assert batch["position_ids"][2].tolist() == list(range(32))


# --- precision --------------------------------------------------------------------------------------------------------


def test_skipped_steps_are_borne_until_too_many_follow_each_other() -> None:
    skips = ScalerSkips()
    assert all(skips.bearable(False) for _ in range(MOST_IN_A_ROW - 1))
    assert skips.bearable(True)
    assert all(skips.bearable(False) for _ in range(MOST_IN_A_ROW - 1))
    assert not skips.bearable(False)
    assert skips.total == 2 * MOST_IN_A_ROW - 1


def test_fp16_without_a_gpu_is_refused_with_what_to_write() -> None:
    asked = load_document(manifest(precision="fp16", compute_target="gpu_single"), "test").manifest
    with pytest.raises(ManifestRefused, match="write bf16, fp32 or auto"):
        precision_for(asked, cuda=False)
    assert precision_for(asked, cuda=True) == "fp16"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"precision": "fp16"}, "precision"),
        ({"precision": "fp16", "compute_target": "gpu_multi", "parallelism": "zero2"}, "precision"),
        ({"reproducibility": {"deterministic": True, "cudnn_benchmark": True}}, "reproducibility.cudnn_benchmark"),
        ({"hyperparameters": {"compile": True}, "parallelism": "zero2"}, "hyperparameters.compile"),
        ({"hyperparameters": {"compile": True}, "adapter": {"type": "moe-lora"}}, "hyperparameters.compile"),
    ],
)
def test_what_can_not_work_together_is_refused_when_the_manifest_is_read(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ManifestError) as refused:
        load_document(manifest(**changes), "test")
    assert {problem.field for problem in refused.value.problems} == {field}
    assert all("rite" in problem.fix or "eep" in problem.fix for problem in refused.value.problems)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_and_the_choice_between_fast_and_deterministic_are_torchs_settings(
    monkeypatch: pytest.MonkeyPatch, tf32: bool, deterministic: bool
) -> None:
    asked = {"deterministic": deterministic, "cudnn_benchmark": not deterministic}
    before = torch.are_deterministic_algorithms_enabled()
    try:
        set_determinism(load_document(manifest(tf32=tf32, reproducibility=asked), "test").manifest)
        assert torch.backends.cuda.matmul.allow_tf32 is tf32
        assert torch.backends.cudnn.allow_tf32 is tf32
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.backends.cudnn.benchmark is not deterministic
    finally:
        torch.use_deterministic_algorithms(before)


# --- samples ----------------------------------------------------------------------------------------------------------


def held_out(chat: bool) -> tuple[Any, Any]:
    texts = [" ".join(WORDS[i % 9 : i % 9 + 7]) for i in range(30)]
    documents = [
        Document.of_chat((Message("user", f"{i} {text}"), Message("assistant", "gate")), "f:1")
        if chat
        else Document(f"{i} {text}", "f:1")
        for i, text in enumerate(texts)
    ]
    tokenizer = tokenizers.from_json(tokenizers.train(documents, 600))
    return tokenise(documents, tokenizer, 64), tokenizer


@pytest.mark.parametrize("chat", [True, False])
def test_the_same_few_prompts_are_asked_each_time(chat: bool) -> None:
    samples, tokenizer = held_out(chat)
    chance = np.random.get_state()[1]
    found = prompts(samples, tokenizer, 3, 11, None)
    assert found == prompts(samples, tokenizer, 3, 11, None)
    assert len({one.text for one in found}) == 3
    assert (chance == np.random.get_state()[1]).all()
    assert all(("assistant" in one.text) == chat for one in found)
    if chat:
        assert all(one.text.rstrip().endswith("<|assistant|>") for one in found), "the answer is not given away"


def test_a_prompt_leaves_room_for_what_follows_and_a_tiny_model_is_asked_nothing() -> None:
    samples, tokenizer = held_out(False)
    assert all(len(one.ids) <= 2 for one in prompts(samples, tokenizer, 5, 1, MAX_NEW_TOKENS + 2))
    assert prompts(samples, tokenizer, 5, 1, MAX_NEW_TOKENS) == []
