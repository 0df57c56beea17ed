"""Every option of a manifest that changes the work, the memory or the pace of a run changes its plan."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from plan_fixtures import LLAMA_3_8B, facts, manifest
from tollgate.estimate import Estimate, estimate
from tollgate.planning.choose import Choice, choose
from tollgate.planning.devices import DEVICES, Device
from tollgate.planning.epoch import Arrangement
from tollgate.planning.shapes import shape_of
from tollgate_trainer.plan.arranging import Sizes, arranger

MIXED = tuple(range(20, 500, 3)) * 4


def planned(device: Device = DEVICES["H100"], processes: int = 1, **changes: Any) -> tuple[Choice, Estimate]:
    asked = manifest(**changes)
    given = facts(device, processes, MIXED)
    choice = choose(asked, given)
    return choice, estimate(asked, choice.settings, given, None, None)


def test_packed_rows_make_fewer_steps_and_less_padding_and_grouping_only_the_latter() -> None:
    _, plain = planned()
    _, grouped = planned(hyperparameters={"group_by_length": True})
    _, packed = planned(hyperparameters={"packing": True})
    rows = -(-sum(MIXED) // 512)
    assert plain.work.steps == grouped.work.steps == 3 * math.ceil(len(MIXED) / 8)
    assert 3 * math.ceil(rows / 8) <= packed.work.steps <= 3 * math.ceil(1.03 * rows / 8)
    assert packed.work.tokens == plain.work.tokens == 3 * sum(MIXED)
    assert packed.work.computed < 1.03 * packed.work.tokens
    assert grouped.work.computed < 0.8 * plain.work.computed
    assert packed.work.tokens_per_step == pytest.approx(8 * 512, rel=0.03)
    assert packed.work.samples_per_step == pytest.approx(8 * len(MIXED) / rows, rel=0.03)
    assert packed.work.row_tokens == 512
    assert plain.work.row_tokens is None


def test_a_packed_row_is_full_so_its_memory_is_that_of_the_length_and_not_of_the_longest_document() -> None:
    wide = {"max_seq_length": 2048}
    plain, packed = planned(hyperparameters=wide)[0], planned(hyperparameters=wide | {"packing": True})[0]
    assert plain.memory is not None
    assert packed.memory is not None
    assert packed.memory.logits / plain.memory.logits == pytest.approx(2048 / 504)


def test_a_profile_counts_documents_also_where_they_share_rows() -> None:
    """Steps of `fast` are 64 documents; rows that hold seven of them each are counted by what is in them."""
    apart, together = (
        planned(optimization_priority="fast", hyperparameters={"packing": packing, "max_seq_length": 2048})[1]
        for packing in (False, True)
    )
    assert apart.work.samples_per_step == 64
    assert together.work.samples_per_step == pytest.approx(64, rel=0.1)
    assert together.work.steps_per_epoch == pytest.approx(apart.work.steps_per_epoch, abs=2)


def test_where_packing_cannot_be_tried_auto_is_planned_without_it() -> None:
    _, found = planned(processes=8, parallelism="zero3", hyperparameters={"packing": "auto"})
    assert found.work.row_tokens is None
    assert found.work.steps == planned(processes=8, parallelism="zero3")[1].work.steps


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "fsdp2"])
def test_where_packing_can_be_tried_auto_is_planned_packed(strategy: str) -> None:
    _, found = planned(processes=8, parallelism=strategy, hyperparameters={"packing": "auto"})
    assert found.work.row_tokens is not None
    assert found.work.steps < planned(processes=8, parallelism=strategy)[1].work.steps


def test_a_profile_never_chooses_shards_that_packing_cannot_be_tried_under() -> None:
    wide = facts(DEVICES["L4"], 8, MIXED)
    free, packed = (
        choose(manifest(optimization_priority="fast", hyperparameters={"packing": packing}), wide)
        for packing in ("auto", True)
    )
    assert free.settings.strategy == "zero3"
    assert packed.settings.strategy != "zero3"
    assert packed.fits is False
    assert not any("zero3" in line for line in packed.nearest)


@pytest.mark.parametrize(
    ("strategy", "stays"),
    [
        ("zero1", ("weights", "gradients")),
        ("zero2", ("weights",)),
        ("zero3", ()),
        ("fsdp2", ()),
    ],
)
def test_what_is_offloaded_leaves_the_device_for_the_host_and_makes_steps_slower(
    strategy: str, stays: tuple[str, ...]
) -> None:
    kept, here = planned(processes=8, parallelism=strategy)
    moved, there = planned(processes=8, parallelism=strategy, parallelism_options={"offload": "cpu"})
    assert kept.memory is not None
    assert moved.memory is not None
    assert kept.memory.host == 0
    assert moved.memory.optimizer == 0
    assert moved.memory.host >= kept.memory.optimizer
    for part in ("weights", "gradients"):
        before, after = getattr(kept.memory, part), getattr(moved.memory, part)
        assert after == before if part in stays else after < before
    assert moved.memory.activations == kept.memory.activations
    assert here.hours is not None
    assert there.hours is not None
    assert there.hours.low > here.hours.low
    assert there.hours.high > here.hours.high


def test_zero2_and_zero3_hold_by_hand_what_zero_offload_says() -> None:
    n, each = 8_030_261_248, 8
    bucket = 2 * 2 * 200_000_000
    two, _ = planned(processes=each, parallelism="zero2", parallelism_options={"offload": "cpu"})
    assert two.memory is not None
    assert (two.memory.weights, two.memory.gradients) == (2 * n, bucket)
    assert two.memory.host == (4 + 8 + 4) * n // each  # fp32 weights, two moments, gradients
    three, _ = planned(processes=each, parallelism="zero3", parallelism_options={"offload": "cpu"})
    assert three.memory is not None
    assert three.memory.host == (2 + 16) * n // each
    assert three.memory.weights == 2 * 128256 * 4096  # the largest layer while it is used


@pytest.mark.parametrize(
    ("device", "precision", "tf32", "peak"),
    [
        ("H100", "bf16", True, 989.4e12),
        ("H100", "fp32", True, 494.7e12),
        ("H100", "fp32", False, 67e12),
        pytest.param("T4", "auto", True, 8.1e12, id="a T4 has no bf16, so auto is fp32"),
    ],
)
def test_a_precision_has_its_own_peak(device: str, precision: str, tf32: bool, peak: float) -> None:
    choice, found = planned(DEVICES[device], precision=precision, tf32=tf32, adapter={"type": "lora"})
    assert DEVICES[device].peak(choice.settings.precision, tf32) == peak
    assert f"of {peak / 1e12:.3g} TFLOP/s" in found.because


def test_a_model_of_nothing_takes_a_gpu_the_time_to_launch_it() -> None:
    small = shape_of(LLAMA_3_8B | {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 300})
    given = replace(facts(lengths=MIXED), shape=small)
    found = estimate(manifest(), choose(manifest(), given).settings, given, None, None)
    assert found.hours is not None
    assert found.hours.low * 3600 > found.work.steps * 32 * 0.3e-3
    assert "ms on any GPU" in found.because


def test_saves_by_the_clock_cost_time_too() -> None:
    never, often = (
        planned(checkpoint={"every_minutes": minutes}, hyperparameters={"num_train_epochs": 40})[1].hours
        for minutes in (100_000, 1)
    )
    assert never is not None
    assert often is not None
    assert often.high > 5 * never.high  # 96 GB, up to 16 minutes each at the assumed speed


def test_a_source_that_weighs_more_makes_more_steps_and_a_document_that_is_cut_before_its_answer_none() -> None:
    sizes = Sizes((100,) * 60, (1,) * 50 + (90,) * 10, ((1.0, 40), (2.0, 20)))
    ask = arranger(sizes, 1)
    assert ask(Arrangement(100, micro_batch=4)).steps == (40 + 2 * 20) / 4
    assert ask(Arrangement(64, micro_batch=4)).steps == (40 + 2 * 10) / 4
    assert ask(Arrangement(64, micro_batch=4)).tokens == (40 + 2 * 10) * 64
