"""One process's weights spread over all: the others never hold a whole copy, in no memory.

Eight processes that each load a 70B base before they keep their share would need 1.1 TB of host memory. Here the first
one loads; the others make the same model without weights and receive their shards, one tensor after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

__all__ = ["spread"]


def spread(model: Any, device: torch.device, leads: bool, shard: Callable[[Any], None]) -> None:
    """Shard a model that only the first process has weights of, in place; all processes call it.

    Args: model: whole on the CPU in the first process, without weights in the others; device: of the shards; shard:
    cuts the parameters of a model in place, whether they have memory or not.
    """
    weights = {name: tensor.detach() for name, tensor in model.state_dict(keep_vars=True).items()} if leads else {}
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers() if not buffer.is_meta}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    _agree_on_types(model, leads)
    if leads:
        model.to("meta")
    model.tie_weights()
    shard(model)
    model.to_empty(device=device)
    model.tie_weights()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    # Rotary frequencies and their like are in no state dict.
    for name, buffer in sorted(model.named_buffers()):
        if leads:
            buffer.copy_(buffers[name])
        distributed.broadcast(buffer, 0)


def _agree_on_types(model: nn.Module, leads: bool) -> None:
    """The others' weights get the first process's types: files may hold some layers in fp32 whatever was asked for.

    Raises: RuntimeError when the models differ.
    """
    own = {name: (tuple(parameter.shape), parameter.dtype) for name, parameter in model.named_parameters()}
    told: list[Any] = [own if leads else None]
    distributed.broadcast_object_list(told, 0)
    given: dict[str, tuple[tuple[int, ...], torch.dtype]] = told[0]
    if {name: shape for name, (shape, _) in own.items()} != {name: shape for name, (shape, _) in given.items()}:
        odd = sorted(name for name in own.keys() | given.keys() if own.get(name, ((),))[0] != given.get(name, ((),))[0])
        raise RuntimeError(f"the first process loaded another model than its config describes: {', '.join(odd[:5])}")
    for name, parameter in model.named_parameters():
        if parameter.dtype != given[name][1]:
            parameter.data = parameter.data.to(given[name][1])
