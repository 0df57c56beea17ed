"""How fast this machine's CPU trains the run's own model: a few steps of it, or a matrix product where it is too large.

Only for `tollgate plan`; a training measures its own steps.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from tollgate.estimate import Pace
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.devices import Interval
from tollgate.planning.shapes import Shape

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MOST_PARAMETERS = 150_000_000
"""A larger model is not made for a probe: the answer has to come within seconds."""
STEPS = 4
LEAST = 2
BUDGET_SECONDS = 6.0


def product_flops() -> float:
    """FLOP/s of a matrix product in fp32 on this CPU: the best of a few, which is what the peak of a table is."""
    import torch

    size = 768
    own = torch.Generator().manual_seed(1)
    left, right = (torch.randn(size, size, generator=own) for _ in range(2))
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - begun)
    return 2.0 * size**3 / min(times)


def model_pace(
    manifest: TrainingManifest, config: PretrainedConfig, shape: Shape, rows: int, width: int
) -> Pace | None:
    """Seconds per padded token and per update of a few steps of the very model; None when it is too large for that.

    The weights are random, which changes no time. With an adapter the frozen part's gradients are left out, as in LoRA.
    """
    if shape.parameters > MOST_PARAMETERS:
        return None
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    from tollgate_trainer.lifecycle.processes import fit_threads
    from tollgate_trainer.tasks.inputs import forward

    fit_threads(shape.parameters)
    torch.manual_seed(1)
    causal = manifest.task == "causal-lm"
    make: Any = AutoModelForCausalLM if causal else AutoModel  # other heads are small beside the rest
    model = make.from_config(config, dtype=torch.float32)
    model.train()
    adapted = manifest.adapter.type != "none"
    if adapted:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        model.enable_input_require_grads()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5) if trained else None
    ids = torch.randint(0, shape.vocabulary, (rows, width))
    steps, updates = [], []
    begun = time.perf_counter()
    for done in range(STEPS + 1):
        before = time.perf_counter()
        if causal:
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        else:
            loss = forward(model, {"input_ids": ids}).last_hidden_state.square().mean()
        loss.backward()
        middle = time.perf_counter()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        steps.append(middle - before)
        updates.append(time.perf_counter() - middle)
        if done >= LEAST and time.perf_counter() - begun > BUDGET_SECONDS:
            break
    measured = steps[1:]  # the first pays for what is loaded
    encoders = 2 if manifest.task == "joint" and manifest.joint.encoders == "two" else 1
    each = encoders * statistics.median(measured) / (rows * width)
    update = encoders * statistics.median(updates[1:])
    because = f"measured on this CPU: {len(measured)} steps of the model with {rows} x {width} tokens"
    # Padding, data loading and a busier machine make a run slower than its probe more often than faster.
    return Pace(Interval(0.8 * each, 1.7 * each), Interval(0.8 * update, 1.7 * update), True, because)
