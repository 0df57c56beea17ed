"""What was being held when memory ran out."""

from __future__ import annotations

import resource
from typing import Any

from tollgate.contract import MAX_REPLANS
from tollgate_trainer.lifecycle.session import Session

FIELD = "hyperparameters.max_seq_length"


def advice(session: Session | None) -> tuple[str, str | None]:
    """(what will be done about it or what the user can do, the field to change when no smaller plan is left)."""
    topology = session.state.topology if session is not None else {}
    if session is None or "micro_batch" not in topology:
        return "the model itself does not fit: use a profile with more memory, a smaller model or an adapter", None
    length = session.loaded.manifest.hyperparameters.max_seq_length
    held = f"{topology['micro_batch']} sequences of at most {length} tokens per process and pass"
    halved = session.attempt.replan
    if topology["micro_batch"] > 1 and halved < MAX_REPLANS:
        text = f"{held}; the next attempt halves them and accumulates twice as often, so a step sees the same samples"
        return text, None
    why = f"they were halved {halved} times" if topology["micro_batch"] > 1 else "it cannot be halved"
    return (
        f"{held}: {why}; lower {FIELD}, set gradient_checkpointing: true, train an adapter (adapter.type: lora), or "
        "use a profile with more memory",
        FIELD,
    )


def situation(session: Session | None) -> dict[str, Any]:
    """Peak memory in bytes, the step, and the batch's shape as far as they are known."""
    import torch

    found: dict[str, Any] = {"peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if torch.cuda.is_available():
        found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
        found["gpu_bytes"] = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    if session is not None:
        found["step"] = (session.progress.step or 0) + 1
        found["topology"] = session.state.topology
        found["max_seq_length"] = session.loaded.manifest.hyperparameters.max_seq_length
    return found
