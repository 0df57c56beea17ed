"""DeepSpeed's ZeRO: optimizer, gradients and (stage 3) weights cut into one shard per process.

Not imported unless `parallelism` asks for it: DeepSpeed looks for accelerators and compilers when it is imported.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.parallelism import ZERO_STAGE, Batch, Strategy, deepspeed_config
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.refusal import ManifestRefused

if TYPE_CHECKING:
    from tollgate_trainer.lifecycle.batching import Batching
    from tollgate_trainer.lifecycle.loop import TrainingLoop

Precision = Literal["bf16", "fp16", "fp32"]

SHARED_MEMORY_OP = "deepspeed_shm_comm"
"""Compiled at the first use on CPUs, and used by nothing that trains."""


class Zero:
    """zero1, zero2 or zero3 in one process."""

    reshards = False
    first_can_load = False

    def __init__(self, manifest: TrainingManifest, strategy: Strategy, attempt: Attempt, device: torch.device) -> None:
        """Prepare the process for DeepSpeed; its process group exists. Raises: ManifestRefused without DeepSpeed."""
        try:
            self.version = version("deepspeed")
        except PackageNotFoundError as error:
            raise ManifestRefused(
                f"parallelism {strategy} needs DeepSpeed, which is not installed; install tollgate[gpu], or use fsdp2",
                "parallelism",
            ) from error
        self.manifest = manifest
        self.strategy = strategy
        self.stage = ZERO_STAGE[strategy]
        self.attempt = attempt
        self.gpus = device.type == "cuda"
        self.collective_forward = self.stage == 3
        # DeepSpeed's own Adam is several times faster on a host than torch's, but it is compiled at the first use.
        self.native_adam = self.gpus and all(shutil.which(tool) for tool in ("ninja", "c++"))
        self._precision = "fp32"
        self._prepare()

    def _prepare(self) -> None:
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(extensions_folder(self.version)))
        os.environ.setdefault("DS_ACCELERATOR", "cuda" if self.gpus else "cpu")
        import deepspeed
        from deepspeed import comm

        if not self.gpus:
            deepspeed.ops.__compatible_ops__[SHARED_MEMORY_OP] = False
        comm.init_distributed(dist_backend="nccl" if self.gpus else "gloo", auto_mpi_discovery=False, verbose=False)
        if not self.gpus:
            from accelerate import PartialState
            from accelerate.utils import DistributedType

            # The library knows DeepSpeed only on accelerators; on CPUs it would count a single process.
            state: Any = PartialState(cpu=True)
            state.distributed_type = DistributedType.DEEPSPEED

    def facts(self) -> dict[str, Any]:
        """Stage, version, where the optimizer lies and whose Adam it is."""
        offload = self.manifest.parallelism_options.offload
        adam = ("deepspeed" if self.native_adam else "torch") if offload == "cpu" else "torch"
        return {"strategy": self.strategy, "deepspeed": self.version, "offload": offload, "adam": adam}

    def loading(self, from_files: bool) -> AbstractContextManager[object]:
        """Stage 3 cuts files into shards while it reads them: the first process reads, no other holds a whole copy.

        Weights from a seed are made whole in each process, as with every other strategy, so that they are the same.
        """
        if self.stage < 3 or not from_files:
            return nullcontext()
        hyper = self.manifest.hyperparameters
        batch = Batch(hyper.per_device_train_batch_size, hyper.gradient_accumulation_steps, self.attempt.world)
        return _partitioned(self._config(batch, self._precision_of_weights()))

    def _precision_of_weights(self) -> Precision:
        from tollgate_trainer.models.build import precision_for

        found: Any = precision_for(self.manifest, self.gpus)
        return cast("Precision", found)

    def _config(self, batch: Batch, precision: Precision) -> dict[str, Any]:
        return deepspeed_config(
            self.manifest, self.strategy, precision, batch, gpus=self.gpus, native_adam=self.native_adam
        )

    def arguments(self, batching: Batching, precision: str) -> dict[str, Any]:
        """DeepSpeed's configuration, and the process count that was found out before."""
        self._precision = precision
        batch = Batch(batching.micro_batch, batching.accumulation, batching.world)
        more: dict[str, Any] = {"deepspeed": self._config(batch, cast("Precision", precision))}
        if not self.gpus:
            more["accelerator_config"] = {"use_configured_state": True}
        if self.manifest.parallelism_options.offload == "cpu":
            more["optim"] = "adamw_torch"  # the fused one wants its states on the GPU
        return more

    def shard(self, model: Any, precision: str, from_first: bool = False) -> Any:
        """As it is: DeepSpeed shards when the engine is made."""
        return model

    def check(self, loop: TrainingLoop) -> None:
        """The engine runs the stage that was asked for, over all processes."""
        engine: Any = loop.deepspeed
        model: Any = loop.model
        if engine is None:
            raise RuntimeError(f"parallelism is {self.strategy}, but the training library made no DeepSpeed engine")
        stage, world = engine.zero_optimization_stage(), engine.dp_world_size
        if (int(stage), int(world)) != (self.stage, self.attempt.world):
            raise RuntimeError(
                f"DeepSpeed runs stage {int(stage)} over {world} processes instead of {self.stage} over "
                f"{self.attempt.world}"
            )
        if self.stage == 3 and not any(hasattr(p, "ds_id") for p in model.parameters()):
            raise RuntimeError("no parameter was partitioned, although parallelism is zero3")

    def expected(self, step: int) -> list[str]:
        """Weights once (stage 3: a shard per process) and a shard of the optimizer per process."""
        folder = f"global_step{step}"
        ranks = range(self.attempt.world)
        weights = (
            [f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in ranks]
            if self.stage == 3
            else ["mp_rank_00_model_states.pt"]
        )
        prefix = "bf16_" if self._precision == "bf16" else ""
        optimizer = [f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in ranks]
        return ["latest", *(f"{folder}/{name}" for name in [*weights, *optimizer])]

    def save(self, loop: TrainingLoop, folder: Path) -> bool:
        """The library asks the engine."""
        return False

    def load_weights(self, loop: TrainingLoop, folder: Path) -> bool:
        """By the engine, which also holds the optimizer's copies of the weights; made first where there is none."""
        from transformers.integrations.deepspeed import deepspeed_load_checkpoint

        engine: Any = loop.deepspeed
        load: Any = deepspeed_load_checkpoint
        if engine is None:
            prepare: Any = loop._prepare_for_training
            prepare(loop.plan.total_steps, None, str(folder))
        else:
            load(engine, str(folder), load_module_strict=self.manifest.adapter.type == "none")
        return True

    def load_optimizer(self, loop: TrainingLoop, folder: Path) -> bool:
        """The library does it, with the weights."""
        return False

    def settle(self, model: nn.Module) -> None:
        """They are there: hooks put them back after each pass."""

    def gathered(self, parameter: nn.Parameter) -> torch.Tensor | None:
        """Whole in every process for a moment, kept by the first."""
        if self.stage < 3 or not hasattr(parameter, "ds_id"):
            return parameter.detach() if self.attempt.leads else None
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().to("cpu", copy=True) if self.attempt.leads else None


@contextmanager
def _partitioned(config: dict[str, Any]) -> Iterator[None]:
    """The library looks for this object, which it holds only weakly, when it loads weights."""
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    make: Any = HfDeepSpeedConfig
    forget: Any = unset_hf_deepspeed_config
    kept = make(config)
    try:
        yield
    finally:
        del kept
        forget()


def extensions_folder(deepspeed: str) -> Path:
    """Where compiled operators are kept: below the (writable) home, one folder per set of versions."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = f"torch-{torch.__version__}-deepspeed-{deepspeed}-python-{platform.python_version()}-{platform.machine()}"
    folder = root / "tollgate" / "extensions" / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder
