"""What can be said of shards without several processes: where operators are compiled, what a checkpoint must hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tollgate.contract import Env
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.parallelism import ALLOW_CPU
from tollgate_trainer.lifecycle import deepspeed
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.lifecycle.fsdp import FullyShard
from tollgate_trainer.lifecycle.run import refuse_other_world
from tollgate_trainer.lifecycle.sharding import Replicated, make_whole, strategy_here
from tollgate_trainer.refusal import ManifestRefused, OutputRefused

ATTEMPT = dataclasses.replace(
    Attempt.parse(
        {
            Env.RUN: "r",
            Env.UID: "u",
            Env.ATTEMPT: "1",
            Env.MANIFEST: "/m.json",
            Env.DATASET_ROOT: "/data",
            Env.OUTPUT_ROOT: "/out",
        }
    ),
    world=2,
)


def manifest(parallelism: str) -> TrainingManifest:
    return TrainingManifest.model_validate({"name": "m", "dataset": {"path": "d"}, "parallelism": parallelism})


def test_operators_are_compiled_below_the_home_in_a_folder_of_their_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = deepspeed.extensions_folder("0.19.8")
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path)
    assert folder != deepspeed.extensions_folder("0.20.0")
    assert torch.__version__ in folder.name


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3", "fsdp2"])
def test_a_laptop_without_gpus_shards_only_when_its_owner_says_so_and_then_says_it_aloud(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALLOW_CPU, raising=False)
    with pytest.raises(ManifestRefused, match="set parallelism: ddp"):
        strategy_here(manifest(strategy), ATTEMPT, in_pod=False)
    monkeypatch.setenv(ALLOW_CPU, "1")
    found, aloud = strategy_here(manifest(strategy), ATTEMPT, in_pod=False)
    assert found == strategy
    assert aloud is not None
    assert "for trying it out" in aloud
    with pytest.raises(ManifestRefused):
        strategy_here(manifest(strategy), ATTEMPT, in_pod=True)


def test_plain_ddp_is_said_by_nobody() -> None:
    assert strategy_here(manifest("auto"), ATTEMPT, in_pod=True) == ("ddp", None)


def test_a_checkpoint_of_shards_is_whole_only_with_the_part_of_every_process() -> None:
    fsdp = FullyShard(manifest("fsdp2"), ATTEMPT, torch.device("cpu"))
    assert {"weights/__0_0.distcp", "weights/__1_0.distcp", "optimizer/__1_0.distcp", "weights/.metadata"} <= set(
        fsdp.expected(5)
    )
    assert Replicated("ddp").expected(5) == ["optimizer.pt"]


def test_shards_that_cant_be_cut_anew_are_refused_by_another_number_of_processes() -> None:
    sharding: Any = Replicated("ddp")
    refuse_other_world(sharding, 4, 2)
    sharding.reshards = False
    refuse_other_world(sharding, 2, 2)
    with pytest.raises(OutputRefused, match=r"4 DeepSpeed shards and this attempt has 2 processes.*with 4 processes"):
        refuse_other_world(sharding, 4, 2)


def test_weights_that_two_modules_share_are_still_shared_once_they_are_whole() -> None:
    class Handed:
        def settle(self, model: nn.Module) -> None:
            pass

        def gathered(self, parameter: nn.Parameter) -> torch.Tensor:
            return parameter.detach().clone()

    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    before = model[0].weight
    handed: Any = Handed()
    make_whole(handed, model, frozen=True)
    assert model[0].weight is model[1].weight
    assert model[0].weight is not before
    assert torch.equal(model[0].weight, before)


def test_frozen_weights_are_left_where_they_lie_when_nobody_needs_them() -> None:
    class Handed:
        def settle(self, model: nn.Module) -> None:
            pass

        def gathered(self, parameter: nn.Parameter) -> torch.Tensor:
            assert parameter.requires_grad, "a frozen weight was gathered"
            return parameter.detach().clone()

    model = nn.Sequential(nn.Linear(2, 2, bias=False).requires_grad_(False), nn.Linear(2, 2, bias=False))
    frozen, trained = model[0].weight, model[1].weight
    handed: Any = Handed()
    make_whole(handed, model, frozen=False)
    assert model[0].weight is frozen
    assert model[1].weight is not trained


def test_weights_become_whole_one_after_the_other_and_the_first_process_has_each_once() -> None:
    """Else the process that saves a large model would hold it in shards and whole at the same time."""
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    shards, handed_out = list(model.parameters()), []

    class Handed:
        def settle(self, model: nn.Module) -> None:
            pass

        def gathered(self, parameter: nn.Parameter) -> torch.Tensor:
            still = [one for one in shards if any(one is held for held in model.parameters())]
            assert still[0] is parameter, "one that was gathered before is still held in its shard as well"
            handed_out.append(parameter.detach().clone())
            return handed_out[-1]

    handed: Any = Handed()
    make_whole(handed, model, frozen=True)
    assert len(handed_out) == 6
    assert [p.data_ptr() for p in model.parameters()] == [tensor.data_ptr() for tensor in handed_out], "copied again"


def test_another_process_than_the_first_keeps_no_whole_weight() -> None:
    class Elsewhere:
        def settle(self, model: nn.Module) -> None:
            pass

        def gathered(self, parameter: nn.Parameter) -> None:
            return None

    model = nn.Linear(2, 2)
    before = list(model.parameters())
    handed: Any = Elsewhere()
    make_whole(handed, model, frozen=True)
    assert all(one is other for one, other in zip(model.parameters(), before, strict=True))


def test_a_model_that_was_left_plain_is_not_taken_for_one_in_shards() -> None:
    loop: Any = SimpleNamespace(model=nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match="weight is a plain tensor: nothing is sharded"):
        FullyShard(manifest("fsdp2"), ATTEMPT, torch.device("cpu")).check(loop)
