"""FSDP2: every parameter a DTensor, cut along its first dimension over all processes; checkpoints by DCP.

`fully_shard` is called here and not by the training library, which on a CPU would silently leave plain DDP. A DCP
checkpoint knows the whole tensors, so another number of processes can go on from it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.parallelism import Strategy
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.lifecycle.spreading import spread
from tollgate_trainer.models.moe_lora.layer import Router

if TYPE_CHECKING:
    from tollgate_trainer.lifecycle.batching import Batching
    from tollgate_trainer.lifecycle.loop import TrainingLoop

WEIGHTS = "weights"
OPTIMIZER = "optimizer"
"""Folders of a checkpoint, each written by DCP: one file per process and `.metadata`, which is written last."""


class FullyShard:
    """fsdp2 in one process."""

    strategy: Strategy = "fsdp2"
    collective_forward = True
    reshards = True

    def __init__(self, manifest: TrainingManifest, attempt: Attempt, device: torch.device) -> None:
        self.attempt = attempt
        self.device = device
        self.offload = manifest.parallelism_options.offload == "cpu"
        self.first_can_load = not self.offload  # weights in host memory have no fast way from one process to another
        # Frozen weights of an adapter's base are in no checkpoint: they never change and the base has a digest.
        self.options = StateDictOptions(ignore_frozen_params=manifest.adapter.type != "none", strict=False)

    def facts(self) -> dict[str, Any]:
        """Its name and where the weights lie."""
        return {"strategy": self.strategy, "offload": "cpu" if self.offload else "none"}

    def loading(self, from_files: bool) -> AbstractContextManager[object]:
        """Nothing special."""
        return nullcontext()

    def arguments(self, batching: Batching, precision: str) -> dict[str, Any]:
        """None."""
        return {}

    def shard(self, model: Any, precision: str, from_first: bool = False) -> Any:
        """Shard each of the model's indivisible blocks and then what is left, in place."""
        mesh = init_device_mesh(self.device.type, (self.attempt.world,))
        policy = (
            MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
            if precision == "bf16"
            else MixedPrecisionPolicy()
        )
        offload: OffloadPolicy = (
            CPUOffloadPolicy(pin_memory=self.device.type == "cuda") if self.offload else OffloadPolicy()
        )

        def cut(whole: Any) -> None:
            for block in [*blocks(whole), whole]:
                # Routers compute in fp32 whatever the rest does, so those of a block are gathered by themselves.
                routers: list[Any] = [
                    m for m in block.modules() if isinstance(m, Router) and not isinstance(m, FSDPModule)
                ]
                if routers and precision == "bf16":
                    fully_shard(routers, mesh=mesh, mp_policy=MixedPrecisionPolicy(), offload_policy=offload)
                fully_shard(block, mesh=mesh, mp_policy=policy, offload_policy=offload)

        if from_first:
            spread(model, self.device, self.attempt.leads, cut)
        else:
            cut(model)
        model._is_fsdp_managed_module = True
        return model

    def check(self, loop: TrainingLoop) -> None:
        """Every parameter is a DTensor over all processes."""
        for name, parameter in model_of(loop).named_parameters():
            if not isinstance(parameter, DTensor):
                raise RuntimeError(f"parallelism is fsdp2, but {name} is a plain tensor: nothing is sharded")
            if parameter.device_mesh.size() != self.attempt.world:
                raise RuntimeError(f"{name} is sharded over {parameter.device_mesh.size()} processes")

    def expected(self, step: int) -> list[str]:
        """A file per process and the metadata, for weights and optimizer."""
        return [
            f"{folder}/{name}"
            for folder in (WEIGHTS, OPTIMIZER)
            for name in (".metadata", *(f"__{rank}_0.distcp" for rank in range(self.attempt.world)))
        ]

    def save(self, loop: TrainingLoop, folder: Path) -> bool:
        """All processes write their shards side by side."""
        optimizer = _plain(loop.optimizer)
        state_dict_saver.save(
            get_model_state_dict(model_of(loop), options=self.options), checkpoint_id=folder / WEIGHTS
        )
        state_dict_saver.save(
            get_optimizer_state_dict(model_of(loop), optimizer, options=self.options), checkpoint_id=folder / OPTIMIZER
        )
        return True

    def load_weights(self, loop: TrainingLoop, folder: Path) -> bool:
        """Each process reads its own part, whoever wrote it."""
        state = get_model_state_dict(model_of(loop), options=self.options)
        state_dict_loader.load(state, checkpoint_id=folder / WEIGHTS)
        set_model_state_dict(model_of(loop), state, options=self.options)
        return True

    def load_optimizer(self, loop: TrainingLoop, folder: Path) -> bool:
        """The same for the optimizer."""
        optimizer = _plain(loop.optimizer)
        state = get_optimizer_state_dict(model_of(loop), optimizer, options=self.options)
        state_dict_loader.load(state, checkpoint_id=folder / OPTIMIZER)
        set_optimizer_state_dict(model_of(loop), optimizer, state, options=self.options)
        return True

    def settle(self, model: nn.Module) -> None:
        """After a forward pass without a backward one the outermost parameters are still whole."""
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def gathered(self, parameter: nn.Parameter) -> torch.Tensor | None:
        """Whole in every process for a moment, kept by the first."""
        assert isinstance(parameter, DTensor), "a parameter is not in its shards"
        whole: torch.Tensor = parameter.full_tensor()
        return whole.detach().to("cpu", copy=True) if self.attempt.leads else None


def blocks(model: Any) -> list[nn.Module]:
    """The modules that the model's authors call indivisible (its transformer layers), in the model's order."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    names = set(getattr(inner, "_no_split_modules", None) or ())
    return [module for module in inner.modules() if type(module).__name__ in names]


def model_of(loop: TrainingLoop) -> nn.Module:
    """The sharded model itself."""
    model: Any = loop.model
    assert isinstance(model, nn.Module)
    return model


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """Torch's own optimizer, without the library's wrapper."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner
