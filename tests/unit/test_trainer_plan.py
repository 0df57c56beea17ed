"""Preflight's checks, the plan that is kept, and sizes counted against the formula."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tollgate.contract import Files
from tollgate.estimate import estimate
from tollgate.manifest.loader import load_document
from tollgate.planning import document
from tollgate.planning.choose import choose
from tollgate.planning.devices import DEVICES, cpu
from tollgate.planning.document import Belongs
from tollgate.planning.epoch import Arrange
from tollgate.planning.facts import Facts, Settings
from tollgate.planning.lengths import lengths_of
from tollgate.planning.memory import Held, memory
from tollgate.planning.shapes import Weights, shape_of
from tollgate_trainer.plan import stored
from tollgate_trainer.plan.arranging import Sizes, arranger
from tollgate_trainer.plan.forecasting import due
from tollgate_trainer.plan.preflight import device_health, disk
from tollgate_trainer.plan.shape import counted
from tollgate_trainer.refusal import OutputRefused
from trainer_fixtures import TINY_LLAMA, manifest

CPU = torch.device("cpu")
BELONGS = Belongs(uid="u", manifest_digest="sha256:m", dataset_digest="sha256:d", world=2)


# --- preflight --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_device_that_multiplies_rightly_is_healthy(dtype: torch.dtype) -> None:
    check = device_health(CPU, dtype)
    assert check.ok, check.message
    assert check.value is not None


def wrong(left: Any, right: Any) -> Any:
    product = left @ right
    product[3, 5] += 10
    return product


def unsteady(left: Any, right: Any, noise: list[int] = [0]) -> Any:  # noqa: B006 - it counts calls
    noise[0] += 1
    return left @ right + noise[0] * 1e-6


def not_a_number(left: Any, right: Any) -> Any:
    return (left @ right) * float("nan")


@pytest.mark.parametrize("product", [wrong, unsteady, not_a_number])
def test_a_device_that_multiplies_wrongly_is_faulty_and_the_message_says_what_to_do(product: Any) -> None:
    check = device_health(CPU, torch.float32, product)
    assert not check.ok
    assert "cordon" in check.message


def test_the_disk_is_measured_and_nothing_stays_behind(tmp_path: Path) -> None:
    check = disk(tmp_path / "output")
    assert check.value is not None
    assert check.value > 0
    assert list((tmp_path / "output").iterdir()) == []


def test_an_output_folder_that_cannot_be_written_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = disk(tmp_path / "file")
    assert (check.value, check.ok) == (None, False)
    assert str(tmp_path / "file") in check.message


# --- sizes ------------------------------------------------------------------------------------------------------------

CONFIGS = [
    TINY_LLAMA,
    TINY_LLAMA | {"tie_word_embeddings": True},
    TINY_LLAMA | {"model_type": "qwen3", "head_dim": 32},
    TINY_LLAMA | {"model_type": "qwen2"},
    TINY_LLAMA | {"model_type": "mistral", "sliding_window": None},
]


@pytest.mark.parametrize("given", CONFIGS, ids=lambda given: f"{given['model_type']}-{len(given)}")
def test_the_formula_counts_what_transformers_makes(given: dict[str, Any]) -> None:
    values = dict(given)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    exact, formula = counted(config), shape_of(config.to_dict())
    assert exact is not None
    assert formula is not None
    assert exact.counted
    assert exact.parameters == formula.parameters


def test_activations_are_of_the_size_that_a_real_forward_keeps() -> None:
    values = TINY_LLAMA | {"attention_dropout": 0.0, "num_hidden_layers": 4, "hidden_size": 128, "vocab_size": 256}
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 256, (4, 64))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    assert loss.requires_grad
    shape = shape_of(config.to_dict())
    assert shape is not None
    table = memory(
        Held(shape, Weights(shape.parameters, shape.parameters), 4, 64, "fp32", "single", world=1, gpu=False)
    )
    held_logits = table.logits / 3  # of the three copies that meet in backward, forward keeps one
    assert (table.activations + held_logits) / sum(kept.values()) == pytest.approx(1.0, abs=0.35)


def arranged(lengths: tuple[int, ...]) -> Arrange:
    return arranger(Sizes(lengths, (1,) * len(lengths)), 1)


# --- plan.json --------------------------------------------------------------------------------------------------------


def plan(root: Path, belongs: Belongs = BELONGS, **changes: Any) -> tuple[Any, Settings]:
    asked = load_document(manifest(optimization_priority="balanced", **changes), "test").manifest
    facts = Facts(lengths_of((20, 30, 40) * 30), shape_of(TINY_LLAMA), cpu(8 * 10**9), arranged((20, 30, 40) * 30))
    choice = choose(asked, facts)
    found = estimate(asked, choice.settings, facts, None, None)
    stored.write(root, document.document(asked, facts, choice, found, None, belongs))
    return asked, choice.settings


def test_a_plan_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    _, settings = plan(tmp_path)
    kept = stored.kept(tmp_path, BELONGS, resumed=False)
    assert kept is not None
    assert kept.chosen == settings


@pytest.mark.parametrize(
    ("changes", "resumed", "is_kept"),
    [
        pytest.param({}, False, True, id="the same run without a checkpoint"),
        pytest.param({"world": 4}, True, True, id="from a checkpoint on more processes"),
        pytest.param({"world": 4}, False, False, id="from the beginning on more processes"),
        pytest.param({"uid": "another"}, True, False, id="another run"),
        pytest.param({"manifest_digest": "sha256:x"}, True, False, id="another manifest"),
        pytest.param({"dataset_digest": "sha256:x"}, True, False, id="other data"),
    ],
)
def test_an_attempt_keeps_the_plan_of_its_own_run(
    tmp_path: Path, changes: dict[str, Any], resumed: bool, is_kept: bool
) -> None:
    plan(tmp_path)
    assert (stored.kept(tmp_path, BELONGS.model_copy(update=changes), resumed) is not None) is is_kept


def test_without_a_plan_there_is_none_to_keep(tmp_path: Path) -> None:
    assert stored.kept(tmp_path, BELONGS, resumed=True) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 99}', "\udcff"])
def test_a_broken_plan_is_refused_because_other_numbers_would_change_the_training(tmp_path: Path, text: str) -> None:
    (tmp_path / Files.PLAN).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(OutputRefused, match=r"plan\.json"):
        stored.kept(tmp_path, BELONGS, resumed=False)


def test_the_planned_numbers_stand_in_the_manifest_that_is_trained_and_evaluated(tmp_path: Path) -> None:
    asked, settings = plan(tmp_path, hyperparameters={"max_seq_length": 48})
    found = stored.effective(asked, tmp_path, BELONGS.manifest_digest).hyperparameters
    assert found.max_seq_length == 48
    assert found.gradient_accumulation_steps == settings.accumulation
    assert stored.effective(asked, tmp_path, "sha256:another") == asked


def test_a_manifest_without_a_profile_is_trained_as_written() -> None:
    asked = load_document(manifest(), "test").manifest
    facts = Facts(lengths_of((20,) * 90), shape_of(TINY_LLAMA), DEVICES["L4"], arranged((20,) * 90))
    settings = choose(asked, facts).settings
    assert document.planned(asked, settings, 3.0) is asked
    assert asdict(settings)["micro_batch"] == 4


def test_plan_json_is_json_without_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    plan(tmp_path)
    text = (tmp_path / Files.PLAN).read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


# --- counting what is left --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [None, 1, 3, 7, 50])
@pytest.mark.parametrize("total", [1, 20, 21])
def test_what_is_left_is_counted_as_the_loop_does_it(every: int | None, total: int) -> None:
    def happens(step: int) -> bool:
        return step == total or (every is not None and step % every == 0)

    for step in range(1, total + 1):
        assert due(step, total, every) == sum(happens(at) for at in range(step, total + 1))
