from __future__ import annotations

from typing import Literal

import pytest

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.parallelism import Layout, LayoutError, deepspeed_config, layout


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


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_the_deepspeed_batch_is_what_the_manifest_says_times_the_processes(
    stage: int, precision: Literal["bf16", "fp16", "fp32"]
) -> None:
    spec = manifest(f"zero{stage}", per_device_train_batch_size=4, gradient_accumulation_steps=3, max_grad_norm=0.5)
    config = deepspeed_config(spec, layout(spec, 2, 8), precision)
    assert config["train_batch_size"] == 4 * 3 * 16
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_clipping"] == 0.5
    assert config["zero_optimization"]["stage"] == stage
    assert ("stage3_gather_16bit_weights_on_model_save" in config["zero_optimization"]) == (stage == 3)
    assert (config["bf16"]["enabled"], config["fp16"]["enabled"]) == (precision == "bf16", precision == "fp16")


def test_plain_ddp_has_no_deepspeed_configuration() -> None:
    spec = manifest("ddp")
    with pytest.raises(LayoutError, match="set zero1, zero2 or zero3"):
        deepspeed_config(spec, layout(spec, 1, 8), "bf16")
