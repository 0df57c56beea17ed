"""The most memory that a training has in use at once: Tollgate's against stock HF Trainer's."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from bench.trainer import stage
from bench.trainer.options import Options


def main(options: Options) -> int:
    """Each arm alone and to its end, one after the other; both start from the same process with all code loaded."""
    before = stage.machine()
    peaks: dict[str, list[int]] = {"tollgate": [], "stock": []}
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        root = Path(name)
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
    }
    print(stage.keep("memory", before, figures))
    return 0
