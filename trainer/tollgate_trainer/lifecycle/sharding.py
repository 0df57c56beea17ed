"""How the processes of an attempt hold the model between them, behind one small protocol.

The loop asks it at the few places where whole copies (one process, DDP) and shards (DeepSpeed's ZeRO, FSDP2) differ:
what a checkpoint consists of, how it is loaded, how the norm of a gradient is read, and how the weights become whole
again for the finished model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.parallelism import ALLOW_CPU, LayoutError, Strategy, strategy_for
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.refusal import ManifestRefused

if TYPE_CHECKING:
    from tollgate_trainer.lifecycle.batching import Batching
    from tollgate_trainer.lifecycle.loop import TrainingLoop


class Sharding(Protocol):
    """One strategy in one process. All methods but the plain answers are called by all processes together."""

    strategy: Strategy
    collective_forward: bool
    """Whether a forward pass talks to the other processes, so that all have to do equally many."""
    reshards: bool
    """Whether a checkpoint can be gone on from with another number of processes."""

    first_can_load: bool
    """Whether only the first process has to load a saved model: the others get their shards from it."""

    def facts(self) -> dict[str, Any]:
        """What has to be the same for the same numbers, for the topology."""
        ...

    def loading(self, from_files: bool) -> AbstractContextManager[object]:
        """Entered while the model is made (with seeded weights) or loaded from files."""
        ...

    def arguments(self, batching: Batching, precision: str) -> dict[str, Any]:
        """What the training library has to be told besides."""
        ...

    def shard(self, model: Any, precision: str, from_first: bool = False) -> Any:
        """The model as it is handed to the training library.

        Args: from_first: only the first process's model has weights; see `first_can_load`.
        """
        ...

    def check(self, loop: TrainingLoop) -> None:
        """The model is really held as was asked for. Raises: RuntimeError when it is not."""
        ...

    def expected(self, step: int) -> list[str]:
        """Files that a whole checkpoint has, over all processes, besides what every strategy writes."""
        ...

    def save(self, loop: TrainingLoop, folder: Path) -> bool:
        """Write weights and optimizer as shards; False leaves it to the training library."""
        ...

    def load_weights(self, loop: TrainingLoop, folder: Path) -> bool:
        """Put a checkpoint's weights in place; False leaves it to the training library."""
        ...

    def load_optimizer(self, loop: TrainingLoop, folder: Path) -> bool:
        """Put a checkpoint's optimizer in place; False leaves it to the training library."""
        ...

    def settle(self, model: nn.Module) -> None:
        """Bring every parameter back into its shards, before they are gathered one by one."""
        ...

    def gathered(self, parameter: nn.Parameter) -> torch.Tensor | None:
        """The whole parameter in the first process, None in the others; the same parameters in the same order."""
        ...


class Replicated:
    """Every process holds everything: one process, or DDP."""

    collective_forward = False
    reshards = True
    first_can_load = False

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy

    def facts(self) -> dict[str, Any]:
        """Nothing but its name."""
        return {"strategy": self.strategy}

    def loading(self, from_files: bool) -> AbstractContextManager[object]:
        """Nothing special."""
        return nullcontext()

    def arguments(self, batching: Batching, precision: str) -> dict[str, Any]:
        """None."""
        return {}

    def shard(self, model: Any, precision: str, from_first: bool = False) -> Any:
        """As it is."""
        return model

    def check(self, loop: TrainingLoop) -> None:
        """Nothing to check."""

    def expected(self, step: int) -> list[str]:
        """The library's own optimizer file."""
        return ["optimizer.pt"]

    def save(self, loop: TrainingLoop, folder: Path) -> bool:
        """The library does it."""
        return False

    def load_weights(self, loop: TrainingLoop, folder: Path) -> bool:
        """The library does it."""
        return False

    def load_optimizer(self, loop: TrainingLoop, folder: Path) -> bool:
        """The library does it."""
        return False

    def settle(self, model: nn.Module) -> None:
        """There are no shards."""

    def gathered(self, parameter: nn.Parameter) -> torch.Tensor | None:
        """It is whole."""
        return parameter.detach()


def strategy_here(manifest: TrainingManifest, attempt: Attempt, in_pod: bool) -> tuple[Strategy, str | None]:
    """The strategy of this attempt, and what to say aloud about it; torch has been asked for a GPU before.

    Raises: ManifestRefused when shards were asked for where there is no GPU and nobody said that it is for trying.
    """
    gpus = manifest.compute_target != "cpu" and torch.cuda.is_available()
    allowed = os.environ.get(ALLOW_CPU) == "1" and not in_pod
    try:
        strategy = strategy_for(manifest, attempt.world, gpus=gpus, cpu_allowed=allowed)
    except LayoutError as error:
        raise ManifestRefused(str(error), "parallelism") from error
    aloud = None
    if strategy not in ("single", "ddp") and not gpus:
        aloud = (
            f"parallelism {strategy} over {attempt.world} CPU processes because {ALLOW_CPU} is set: this is for trying "
            "it out; it is slower than ddp and saves no GPU memory"
        )
    return strategy, aloud


def sharding_for(manifest: TrainingManifest, strategy: Strategy, attempt: Attempt, device: torch.device) -> Sharding:
    """The strategy's code, imported only when it is needed. Raises: ManifestRefused when its library is missing."""
    if strategy in ("single", "ddp"):
        return Replicated(strategy)
    if strategy == "fsdp2":
        from tollgate_trainer.lifecycle.fsdp import FullyShard

        return FullyShard(manifest, attempt, device)
    from tollgate_trainer.lifecycle.deepspeed import Zero

    return Zero(manifest, strategy, attempt, device)


def make_whole(sharding: Sharding, model: nn.Module, frozen: bool) -> None:
    """Replace shards by whole CPU tensors in the first process, one after the other. The training is over after this.

    No process but the first ever holds more than one whole parameter, and the first holds one copy of the model.
    Args: frozen: also those that were not trained; an adapter over a saved base can do without.
    """
    if isinstance(sharding, Replicated):
        return
    sharding.settle(model)
    whole: dict[int, nn.Parameter] = {}
    for module, name, parameter in list(_parameters(model)):
        if not frozen and not parameter.requires_grad:
            continue
        if id(parameter) not in whole:
            tensor = sharding.gathered(parameter)
            if tensor is None:
                continue
            whole[id(parameter)] = nn.Parameter(tensor.cpu(), requires_grad=parameter.requires_grad)
        module._parameters[name] = whole[id(parameter)]


def _parameters(model: nn.Module) -> Iterable[tuple[nn.Module, str, nn.Parameter]]:
    """Every place where a parameter stands; one that two modules share comes twice."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield module, name, parameter
