"""What the lifecycle costs a step: Tollgate's loop against stock HF Trainer and stock against itself, in turns."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.trainer import figures, stage
from bench.trainer.options import Options

LENGTH = 64
TARGET_SECONDS = 0.24
"""What a step is sized for; it has to take 0.2."""

SMALL_STEPS = 5
"""So many times as many steps in a block where two processes make small ones."""


def rows_for(data: stage.Material) -> int:
    """Rows of LENGTH tokens that a step of this machine, when nobody disturbs it, takes TARGET_SECONDS for."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    make: Any = AutoModelForCausalLM.from_pretrained
    model = make(data.root / "base", dtype=torch.float32)
    rows, took = 4, []
    for _ in range(8):
        begun = time.perf_counter()
        ids = torch.randint(0, int(data.model["vocab_size"]), (rows, LENGTH))
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        took.append(time.perf_counter() - begun)
    return max(1, -(-int(1000 * TARGET_SECONDS) * rows // int(1000 * min(took))))


def compared(root: Path, data: stage.Material, options: Options, rows: int, ranks: int, block: int) -> dict[str, Any]:
    """Three arms in turns: stock, Tollgate, stock again."""
    context = stage.starting()
    steps = 2 * options.rounds * block + 1
    # Whole steps only: at an epoch's end Tollgate makes a smaller one, and stock begins the next epoch within it.
    whole = data.documents // (rows * ranks) * rows * ranks
    document = data.document(
        hyperparameters={"max_steps": steps, "per_device_train_batch_size": rows, "max_seq_length": LENGTH}
    )
    document["dataset"]["limit"] = whole
    arms = [
        stage.start(context, root / name, data.root, document, arm, block, ranks)
        for name, arm in (("stock", "stock"), ("tollgate", "tollgate"), ("again", "stock"))
    ]
    with stage.players(*arms):
        for arm in arms:
            arm.answers()
        stretches, losses = stage.turns(arms, options.rounds, options.skip, f"overhead, {ranks} processes")
        for arm in arms:
            arm.finish()
    seconds = stage.step_seconds(stretches)
    return {
        "ranks": ranks,
        "rows": rows,
        "tokens_per_row": LENGTH,
        "parameters": data.parameters,
        "blocks": 2 * len(stretches),
        "skipped_steps_of_each_block": options.skip,
        "measured_steps_of_each_block": options.steps,
        "step_seconds": stage.rounded(seconds),
        "losses": losses,
    }


def judged(raw: dict[str, Any]) -> dict[str, Any]:
    """The figures of raw measurements, and the verdict."""
    seconds, losses = raw["step_seconds"], raw["losses"]
    equal = losses["tollgate"] == losses["stock"] == losses["again"] and all(map(len, losses["stock"]))
    step_ms = 1000 * figures.median(seconds, "stock")
    if raw["ranks"] == 1:
        same = figures.interval(seconds, figures.ratio("stock", "again"))
        speed = figures.interval(seconds, figures.ratio("stock", "tollgate"))
        verdict = figures.overhead(same, speed, step_ms, raw["blocks"], equal)
    else:
        milli = [{arm: [1000 * value for value in values] for arm, values in one.items()} for one in seconds]
        same = figures.interval(milli, figures.difference("stock", "again"))
        speed = figures.interval(milli, figures.difference("tollgate", "stock"))
        verdict = figures.added(same, speed, raw["blocks"], equal)
    return {
        "same": asdict(same),
        "figure": asdict(speed),
        "stock_ms": round(step_ms, 3),
        "tollgate_ms": round(1000 * figures.median(seconds, "tollgate"), 3),
        "spread_ms": round(1000 * statistics.pstdev(v for one in seconds for v in one["stock"]), 3),
        "losses_equal": equal,
        "steps_compared": sum(map(len, losses["stock"])),
        "verdict": verdict.state,
        "because": verdict.because,
    }


def main(options: Options) -> int:
    """One process with steps of 200 ms and more, two with small ones; 1 when a bar is missed."""
    before = stage.machine()
    block = options.skip + options.steps
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        root = Path(name)
        texts = stage.even(stage.docstrings(), 480)
        large = stage.material(root / "large", texts, stage.config(256, 4, 2048))
        found = [compared(root / "one", large, options, options.rows or rows_for(large), 1, block)]
        small = stage.material(root / "small", texts, stage.config(64, 2, 1024))
        more = replace(options, steps=SMALL_STEPS * options.steps)  # they are short, and one is like another less
        found.append(compared(root / "two", small, more, 2, 2, more.skip + more.steps))
    results = [{**raw, **judged(raw)} for raw in found]
    path = stage.keep("overhead", before, {"results": results})
    for result in results:
        print(f"{result['ranks']} process(es): {result['verdict']}: {result['because']}")
    print(path)
    return int(any(result["verdict"] == figures.State.MISSED for result in results))
