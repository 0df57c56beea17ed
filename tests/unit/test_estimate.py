"""FLOPs, hours, USD, preemption and fit, by hand-computed numbers and by what must always hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plan_fixtures import LLAMA_3_8B, SHAPE, arranged, facts, manifest
from tollgate.api.quantities import MICRO
from tollgate.estimate import (
    BETWEEN_PREEMPTIONS_MINUTES,
    EXPECTED_LOSS,
    Pace,
    estimate,
    fit,
    flops_per_token,
    save_minutes,
)
from tollgate.planning.choose import choose
from tollgate.planning.devices import DEVICES, Interval, cpu, known
from tollgate.planning.facts import Facts, memory_of, weights_of
from tollgate.planning.lengths import lengths_of
from tollgate.planning.memory import GIB
from tollgate.planning.profiles import PROFILES
from tollgate.planning.shapes import shape_of

# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        pytest.param(LLAMA_3_8B, 8_030_261_248, id="Llama 3 8B"),
        pytest.param(
            {
                "model_type": "qwen2",
                "hidden_size": 896,
                "intermediate_size": 4864,
                "num_hidden_layers": 24,
                "num_attention_heads": 14,
                "num_key_value_heads": 2,
                "vocab_size": 151936,
                "tie_word_embeddings": True,
            },
            494_032_768,
            id="Qwen2.5 0.5B",
        ),
        pytest.param(
            {
                "model_type": "mistral",
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "vocab_size": 32000,
            },
            7_241_732_096,
            id="Mistral 7B",
        ),
    ],
)
def test_the_formula_counts_published_models_exactly(config: dict[str, Any], parameters: int) -> None:
    shape = shape_of(config)
    assert shape is not None
    assert shape.parameters == parameters


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}, id="no heads"
        ),
        pytest.param(LLAMA_3_8B | {"model_type": "a_new_one"}, id="a model type that nobody counted"),
        pytest.param({}, id="nothing"),
    ],
)
def test_a_model_of_unknown_size_is_unknown_and_so_are_its_memory_and_time(config: dict[str, Any]) -> None:
    assert shape_of(config) is None
    known_nothing = Facts(lengths_of((100,) * 40), None, DEVICES["H100"], arranged((100,) * 40))
    for priority in ("none", "balanced"):
        asked = manifest(optimization_priority=priority)
        choice = choose(asked, known_nothing)
        found = estimate(asked, choice.settings, known_nothing, None, 3 * MICRO)
        assert (choice.memory, choice.fits) == (None, None)
        assert (found.hours, found.usd_micro, found.work.flops) == (None, None, None)
        assert "unknown" in found.because


# --- FLOPs, hours, money ----------------------------------------------------------------------------------------------


def test_full_training_costs_6n_lora_4n_and_recomputing_2n_more_for_each_token() -> None:
    assert SHAPE is not None
    attention = 12 * 32 * 4096 * 512
    n = SHAPE.products
    assert flops_per_token(SHAPE, False, 512, False) == 6 * n + attention
    assert flops_per_token(SHAPE, True, 512, False) == 4 * n + attention
    assert flops_per_token(SHAPE, True, 512, True) == 6 * n + attention + attention / 3


def test_hours_and_usd_are_what_the_pace_says_by_hand() -> None:
    # 2,000 documents of 512 tokens once, 1 ms a token: 1,024 s; and 4 evaluations of 25,600 tokens at a third of it.
    asked = manifest(hyperparameters={"num_train_epochs": 1, "per_device_train_batch_size": 10, "eval_steps": 50})
    choice = choose(asked, facts())
    found = estimate(asked, choice.settings, facts(), Pace(Interval(1e-3, 2e-3), measured=True), 36 * MICRO)
    assert (found.work.steps, found.work.tokens, found.work.evaluations) == (200, 1_024_000, 4)
    least = 1024 + 4 * 25_600 / 3 * 1e-3
    assert found.hours is not None
    assert found.usd_micro is not None
    save = 12 * 8_030_261_248 / 1e9  # at the end, and once by the clock: every 10 minutes
    assert found.hours.low * 3600 == pytest.approx(least + 2 * save + 10)
    assert found.usd_micro[0] == math.ceil(36 * MICRO * found.hours.low)


def test_8b_lora_on_an_h100_is_expected_to_do_thousands_of_tokens_a_second() -> None:
    asked = manifest(adapter={"type": "lora"}, hyperparameters={"max_seq_length": 4096})
    full = facts(lengths=(4096,) * 500)
    found = estimate(asked, choose(asked, full).settings, full, None, None)
    assert found.hours is not None
    fastest, slowest = (found.work.tokens / (3600 * h) for h in (found.hours.low, found.hours.high))
    assert 2_000 < slowest < 8_000 < fastest < 22_000
    assert found.because.startswith("assumed")


def test_without_a_price_the_time_is_still_known() -> None:
    asked = manifest()
    found = estimate(asked, choose(asked, facts()).settings, facts(), None, None)
    assert found.hours is not None
    assert (found.usd_micro, found.preemption.usd_micro) == (None, None)


@pytest.mark.parametrize(
    ("driver", "memory", "name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 85_000_000_000, "H100", 989.4e12),
        ("NVIDIA H200", 150_000_000_000, "H200", 989.4e12),
        ("NVIDIA A100-SXM4-40GB", 42_000_000_000, "A100-40", 312e12),
        ("NVIDIA A100-SXM4-80GB", 85_000_000_000, "A100-80", 312e12),
        ("Tesla T4", 15_800_000_000, "T4", 65e12),
        ("NVIDIA L4", 23_600_000_000, "L4", 121e12),
        ("NVIDIA L40S", 47_800_000_000, "L40S", 362.05e12),
        pytest.param("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10_000_000_000, None, None, id="a slice is no whole GPU"),
        pytest.param("Radeon Pro", 16_000_000_000, None, None, id="not in the table"),
    ],
)
def test_devices_are_known_by_their_drivers_names(
    driver: str, memory: int, name: str | None, peak: float | None
) -> None:
    found = known(driver, memory, True)
    assert (found.name, found.flops) == (name or driver, peak)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_logits_of_4_rows_of_4096_tokens_over_128k_words_are_8_gb_for_each_fp32_copy() -> None:
    asked = manifest(hyperparameters={"per_device_train_batch_size": 4, "max_seq_length": 4096})
    full = facts(lengths=(4096,) * 50)
    table = memory_of(asked, full, choose(asked, full).settings)
    assert table is not None
    assert table.logits / (4 * 4096 * 128256 * 4) == pytest.approx(4.0)  # three fp32 copies, two of 16 bit


def test_full_training_in_bf16_holds_weights_copy_gradients_and_two_moments() -> None:
    table = memory_of(manifest(), facts(), choose(manifest(), facts()).settings)
    assert table is not None
    n = 8_030_261_248
    assert (table.weights, table.gradients, table.optimizer) == (6 * n, 4 * n, 8 * n)


def test_an_adapter_trains_few_weights_and_its_base_is_held_in_16_or_4_bit() -> None:
    lora = manifest(adapter={"type": "lora"})
    weights = weights_of(lora, SHAPE)  # type: ignore[arg-type]
    assert weights.trainable == 41_943_040  # PEFT's own count for r = 16 on all linear layers of this model
    table = memory_of(lora, facts(), choose(lora, facts()).settings)
    four = lora.model_copy(update={"model": lora.model.model_copy(update={"quantization": "nf4"})})
    small = memory_of(four, facts(), choose(four, facts()).settings)
    assert table is not None
    assert small is not None
    assert 14 * GIB < table.weights < 16 * GIB
    assert 4 * GIB < small.weights < 5 * GIB


@given(st.integers(0, 5), st.integers(3, 12), st.sampled_from(["ddp", "zero1", "zero2", "zero3", "fsdp2"]))
def test_more_rows_or_longer_rows_never_need_less_memory(rows: int, power: int, strategy: str) -> None:
    def total(micro: int, length: int) -> int:
        hyper = {"per_device_train_batch_size": micro, "max_seq_length": length}
        asked = manifest(parallelism=strategy, hyperparameters=hyper)
        many = facts(processes=8, lengths=(8192,) * 10)
        table = memory_of(asked, many, choose(asked, many).settings)
        assert table is not None
        return table.total

    assert total(2**rows, 2**power) <= total(2 ** (rows + 1), 2**power)
    assert total(2**rows, 2**power) <= total(2**rows, 2 ** (power + 1))


def test_each_stage_of_zero_holds_less_than_the_one_before() -> None:
    def states(strategy: str) -> int:
        asked = manifest(parallelism=strategy)
        table = memory_of(asked, facts(processes=8), choose(asked, facts(processes=8)).settings)
        assert table is not None
        return table.weights + table.gradients + table.optimizer

    order = [states(s) for s in ("ddp", "zero1", "zero2", "zero3")]
    assert order == sorted(order, reverse=True)


# --- choosing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", PROFILES)
def test_a_number_that_the_user_wrote_always_wins(priority: str) -> None:
    written = {
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 5,
        "max_seq_length": 100,
        "num_train_epochs": 7,
        "gradient_checkpointing": False,
    }
    chosen = choose(manifest(optimization_priority=priority, hyperparameters=written), facts()).settings
    assert (chosen.micro_batch, chosen.accumulation, chosen.max_seq_length) == (3, 5, 100)
    assert (chosen.epochs, chosen.checkpointing) == (7, False)


@given(
    st.sampled_from(list(PROFILES)),
    st.sampled_from(list(DEVICES)),
    st.sampled_from([1, 2, 8]),
    st.lists(st.integers(1, 9000), min_size=1, max_size=60),
    st.booleans(),
)
def test_what_a_profile_chooses_fits_or_the_plan_says_what_would(
    priority: str, device: str, processes: int, lengths: list[int], lora: bool
) -> None:
    asked = manifest(optimization_priority=priority, adapter={"type": "lora" if lora else "none"})
    given_facts = facts(DEVICES[device], processes, tuple(lengths))
    choice = choose(asked, given_facts)
    assert choice == choose(asked, given_facts)
    assert choice.memory is not None
    assert choice.limit is not None
    assert choice.fits == (choice.memory.total <= choice.limit)
    assert choice.settings.max_seq_length <= 8192
    assert bool(choice.nearest) or choice.fits or lora or device in ("T4", "L4")
    samples = choice.settings.micro_batch * choice.settings.accumulation * processes
    assert samples <= max(2 * PROFILES[priority].samples_per_step, processes)  # type: ignore[index]


def test_what_does_not_fit_is_recomputed_then_sharded_and_the_plan_says_so() -> None:
    asked = manifest(optimization_priority="fast")
    alone, together = choose(asked, facts()), choose(asked, facts(processes=8))
    assert alone.fits is False
    assert any("lora" in line for line in alone.nearest)
    assert any("GPUs with parallelism: zero3" in line for line in alone.nearest)
    assert together.fits
    assert together.settings.strategy in ("zero2", "zero3")
    assert any("to fit into memory" in line for line in together.changes)


def test_what_the_plan_calls_nearest_does_fit_when_it_is_written_down() -> None:
    asked = manifest(
        hyperparameters={"per_device_train_batch_size": 64, "max_seq_length": 2048}, adapter={"type": "lora"}
    )
    long = facts(lengths=(2048,) * 400)
    choice = choose(asked, long)
    assert choice.fits is False
    rows, passes = (int(part.split(" ")[0]) for part in choice.nearest[0].split(": ")[1:])
    smaller = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": passes, "max_seq_length": 2048}
    again = choose(manifest(hyperparameters=smaller, adapter={"type": "lora"}), long)
    assert again.fits
    assert rows * passes == 64


def test_small_data_gets_smaller_steps_and_a_cpu_few_rows() -> None:
    asked = manifest(optimization_priority="fast")
    few = choose(asked, facts(cpu(64 * 10**9), lengths=(20,) * 50)).settings
    assert few.micro_batch * few.accumulation == 5
    many = choose(asked, facts(cpu(640 * 10**9), lengths=(20,) * 5000)).settings
    assert (many.micro_batch, many.accumulation, many.precision) == (8, 8, "fp32")


# --- preemption and limits --------------------------------------------------------------------------------------------


@given(st.floats(0.2, 300), st.floats(0, 1e9))
def test_saves_are_so_frequent_that_a_preemption_costs_two_per_cent_on_average(hours: float, size: float) -> None:
    asked = manifest(optimization_priority="balanced")
    minutes = save_minutes(asked, Interval(hours / 2, hours), int(size))
    assert minutes is not None
    between = min(BETWEEN_PREEMPTIONS_MINUTES, 60 * hours)
    save = size / 100e6 / 60
    if save / EXPECTED_LOSS <= 2 * EXPECTED_LOSS * between and minutes > 1:
        assert minutes / 2 / between <= EXPECTED_LOSS * 1.05  # rounded to a tenth of a minute
        assert save / minutes <= EXPECTED_LOSS * 1.05


def test_a_written_save_interval_wins_and_without_a_profile_it_stays_ten_minutes() -> None:
    day = Interval(20, 24)
    assert save_minutes(manifest(checkpoint={"every_minutes": 33}, optimization_priority="fast"), day, 1) == 33
    assert save_minutes(manifest(hyperparameters={"save_steps": 5}), day, 1) is None
    assert save_minutes(manifest(), day, 1) == 10


@pytest.mark.parametrize(
    ("window", "cost", "fits", "advice"),
    [
        pytest.param(None, None, True, "", id="no limit"),
        pytest.param(10**7, 10**12, True, "", id="plenty"),
        pytest.param(600, None, False, "num_train_epochs", id="a short window"),
        pytest.param(None, MICRO // 2, False, "num_train_epochs", id="little money"),
        pytest.param(30, None, False, "nothing can", id="less than the start takes"),
    ],
)
def test_a_run_that_does_not_fit_is_told_what_would(
    window: int | None, cost: int | None, fits: bool, advice: str
) -> None:
    asked = manifest(adapter={"type": "lora"})
    chosen = choose(asked, facts()).settings
    found = estimate(asked, chosen, facts(), None, 4 * MICRO)
    told = fit(found, window, cost, chosen)
    assert told.fits is fits
    assert advice in " ".join(told.advice)


def test_the_epochs_that_would_fit_do_fit_when_they_are_written_down() -> None:
    asked = manifest(adapter={"type": "lora"})
    found = estimate(asked, choose(asked, facts()).settings, facts(), None, None)
    told = fit(found, 600, None, choose(asked, facts()).settings)
    epochs = float(told.advice[0].split(": ")[1].split(" ")[0])
    shorter = manifest(adapter={"type": "lora"}, hyperparameters={"num_train_epochs": epochs})
    again = estimate(shorter, choose(shorter, facts()).settings, facts(), None, None)
    assert fit(again, 600, None, choose(shorter, facts()).settings).fits


def test_a_limit_without_a_price_is_unknown_not_kept() -> None:
    asked = manifest()
    chosen = choose(asked, facts()).settings
    assert fit(estimate(asked, chosen, facts(), None, None), None, MICRO, chosen).fits is None


# --- lengths ----------------------------------------------------------------------------------------------------------


def test_of_no_document_no_length_is_known() -> None:
    with pytest.raises(ValueError, match="no document"):
        lengths_of(())
