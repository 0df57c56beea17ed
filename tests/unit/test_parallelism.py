from __future__ import annotations

from typing import Any, Literal

import pytest

from tollgate.manifest.combinations import impossible
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.parallelism import Batch, Layout, LayoutError, deepspeed_config, layout, strategy_for


def manifest(parallelism: str = "auto", **hyper: object) -> TrainingManifest:
    return TrainingManifest.model_validate(
        {"name": "m", "dataset": {"path": "d"}, "parallelism": parallelism, "hyperparameters": hyper}
    )


@pytest.mark.parametrize(
    ("parallelism", "nodes", "gpus", "expected"),
    [
        ("auto", 1, 0, Layout(1, 1, 1, "single")),
        ("ddp", 1, 0, Layout(1, 1, 1, "single")),
        ("auto", 2, 0, Layout(2, 1, 2, "ddp")),
        ("auto", 1, 1, Layout(1, 1, 1, "single")),
        ("auto", 1, 8, Layout(1, 8, 8, "ddp")),
        ("ddp", 4, 8, Layout(4, 8, 32, "ddp")),
        ("zero3", 2, 8, Layout(2, 8, 16, "zero3")),
        ("zero2", 1, 1, Layout(1, 1, 1, "zero2")),
        ("fsdp2", 2, 8, Layout(2, 8, 16, "fsdp2")),
    ],
)
def test_there_is_one_process_per_gpu_or_one_per_node_without(
    parallelism: str, nodes: int, gpus: int, expected: Layout
) -> None:
    assert layout(manifest(parallelism), nodes, gpus) == expected


@pytest.mark.parametrize("parallelism", ["zero1", "zero2", "zero3", "fsdp2"])
def test_sharding_over_gpus_that_are_not_there_is_refused_with_the_fix(parallelism: str) -> None:
    with pytest.raises(LayoutError, match=f"parallelism is {parallelism}.*set parallelism: ddp"):
        layout(manifest(parallelism), 2, 0)


@pytest.mark.parametrize(("nodes", "gpus", "field"), [(0, 1, "compute.nodes"), (1, -1, "compute.gpusPerNode")])
def test_counts_that_cannot_be_are_refused(nodes: int, gpus: int, field: str) -> None:
    with pytest.raises(LayoutError, match=field):
        layout(manifest(), nodes, gpus)


def test_shards_over_cpu_processes_are_tried_only_where_that_was_asked_for_by_name() -> None:
    spec = manifest("zero2")
    assert strategy_for(spec, 2, gpus=False, cpu_allowed=True) == "zero2"
    with pytest.raises(LayoutError, match="TOLLGATE_ALLOW_CPU_SHARDING=1 to try it on CPU processes"):
        strategy_for(spec, 2, gpus=False, cpu_allowed=False)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_the_deepspeed_batch_is_micro_batch_times_accumulation_times_processes(
    stage: int, precision: Literal["bf16", "fp16", "fp32"]
) -> None:
    strategy: Any = f"zero{stage}"
    spec = manifest(strategy, per_device_train_batch_size=8, max_grad_norm=0.5)
    config = deepspeed_config(spec, strategy, precision, Batch(4, 3, 16))  # 4: memory ran out with 8
    assert config["train_batch_size"] == 4 * 3 * 16
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_clipping"] == 0.5
    assert config["zero_optimization"]["stage"] == stage
    assert ("stage3_gather_16bit_weights_on_model_save" in config["zero_optimization"]) == (stage == 3)
    assert (config["bf16"]["enabled"], config["fp16"]["enabled"]) == (precision == "bf16", precision == "fp16")
    assert config["bf16"]["check_grad_overflow"], "a step with a non-finite gradient is never applied"


@pytest.mark.parametrize(("strategy", "parts"), [("zero2", {"optimizer"}), ("zero3", {"optimizer", "param"})])
def test_offload_puts_the_optimizer_and_with_stage_3_the_weights_on_the_host(strategy: Any, parts: set[str]) -> None:
    spec = TrainingManifest.model_validate(
        {"name": "m", "dataset": {"path": "d"}, "parallelism": strategy, "parallelism_options": {"offload": "cpu"}}
    )
    zero = deepspeed_config(spec, strategy, "bf16", Batch(1, 1, 8))["zero_optimization"]
    assert {name for name in ("optimizer", "param") if f"offload_{name}" in zero} == parts


def test_plain_ddp_has_no_deepspeed_configuration() -> None:
    with pytest.raises(LayoutError, match="set zero1, zero2 or zero3"):
        deepspeed_config(manifest("ddp"), "ddp", "bf16", Batch(1, 1, 8))


@pytest.mark.parametrize(
    ("document", "field", "fix"),
    [
        ({"parallelism_options": {"offload": "cpu"}}, "parallelism_options.offload", "zero2"),
        (
            {"parallelism": "ddp", "parallelism_options": {"offload": "cpu"}},
            "parallelism_options.offload",
            "zero2",
        ),
        ({"parallelism": "zero3", "model": {"base": "b", "quantization": "int8"}}, "model.quantization", "ddp"),
        ({"parallelism": "fsdp2", "model": {"base": "b", "quantization": "nf4"}}, "model.quantization", "ddp"),
        ({"parallelism": "zero2", "model": {"base": "b", "quantization": "int8"}}, "model.quantization", "ddp"),
    ],
)
def test_what_cant_work_together_is_refused_with_what_to_write(document: dict[str, Any], field: str, fix: str) -> None:
    read = TrainingManifest.model_validate({"name": "m", "dataset": {"path": "d"}, **document})
    (problem,) = impossible(read)
    assert problem.field == field
    assert fix in problem.fix


@pytest.mark.parametrize("more", [{"parallelism_options": {"offload": "cpu"}}, {"adapter": {"type": "moe-lora"}}])
@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3", "fsdp2"])
def test_offload_and_experts_with_shards_are_no_conflict(strategy: str, more: dict[str, Any]) -> None:
    document = {"name": "m", "dataset": {"path": "d"}, "parallelism": strategy, **more}
    assert impossible(TrainingManifest.model_validate(document)) == []


def test_what_is_refused_for_two_reasons_alike_is_told_once() -> None:
    document = {"name": "m", "dataset": {"path": "d"}, "task": "classification", "hyperparameters": {"packing": True}}
    with pytest.raises(ManifestError) as refused:
        load_document(document, "m.yaml")
    assert [problem.field for problem in refused.value.problems] == ["hyperparameters.packing"]
