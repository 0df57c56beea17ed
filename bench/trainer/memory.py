"""The most memory that a training has in use at once: Tollgate's against stock HF Trainer's, and its loss in chunks."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench.trainer import stage
from bench.trainer.options import Options

WIDE_VOCABULARY, WIDE_ROWS, WIDE_TOKENS = 65536, 4, 256
"""Logits of 256 MiB in fp32: the shape of a large model's, whose hidden states are small beside them."""


def main(options: Options) -> int:
    """Each arm alone and to its end, one after the other; both start from the same process with all code loaded."""
    before = stage.machine()
    peaks: dict[str, list[int]] = {"tollgate": [], "stock": []}
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        root = Path(name)
        losses = _losses(root, options.runs)
        data = stage.material(root / "data", stage.even(stage.docstrings(), 480), stage.config(256, 4, 2048))
        asked = {"max_steps": options.steps, "max_seq_length": 64, "per_device_train_batch_size": 8, "save_steps": 10}
        document, context = data.document(hyperparameters=asked), stage.starting()
        for number in range(options.runs):
            for arm, found in peaks.items():
                player = stage.start(context, root / f"{arm}-{number}", data.root, document, arm, 0)
                with stage.players(player):
                    found += player.ended()
                print(f"memory: {arm}: {found[-1] / 2**20:.0f} MiB", flush=True)
    medians = {arm: statistics.median(found) for arm, found in peaks.items()}
    figures = {
        "parameters": data.parameters,
        "peak_bytes": peaks,
        "median_bytes": medians,
        "ratio": medians["tollgate"] / medians["stock"],
        "cross_entropy": losses,
    }
    print(stage.keep("memory", before, figures))
    return 0


def _losses(root: Path, runs: int) -> dict[str, Any]:
    """Peaks of a small model with a large vocabulary, by how its loss is computed."""
    peaks: dict[str, list[int]] = {"plain": [], "chunked": []}
    texts = stage.even(stage.docstrings(), 1500)
    data = stage.material(root / "wide", texts, stage.config(64, 1, WIDE_VOCABULARY))
    context = stage.starting()
    for number in range(runs):
        for how, found in peaks.items():
            asked = {"max_steps": 6, "max_seq_length": WIDE_TOKENS, "per_device_train_batch_size": WIDE_ROWS}
            document = data.document(hyperparameters=asked | {"cross_entropy": how})
            player = stage.start(context, root / f"{how}-{number}", data.root, document, "tollgate", 0)
            with stage.players(player):
                found += player.ended()
            print(f"memory: cross_entropy {how}: {found[-1] / 2**20:.0f} MiB", flush=True)
    return {
        "vocabulary": WIDE_VOCABULARY,
        "rows": WIDE_ROWS,
        "tokens": WIDE_TOKENS,
        "logits_bytes": 4 * WIDE_VOCABULARY * WIDE_ROWS * WIDE_TOKENS,
        "peak_bytes": peaks,
        "median_bytes": {how: statistics.median(found) for how, found in peaks.items()},
    }
