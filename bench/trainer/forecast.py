"""How often the first live forecast's 90 % interval holds the time that a run then takes, and how wide it is."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench.trainer import figures, stage
from bench.trainer.options import Options

SHAPES: list[dict[str, Any]] = [
    {"max_seq_length": 64, "per_device_train_batch_size": 8},
    {"max_seq_length": 256, "per_device_train_batch_size": 4},
    {"max_seq_length": 128, "per_device_train_batch_size": 2, "packing": True},
    {"max_seq_length": 128, "per_device_train_batch_size": 4, "group_by_length": True},
]
"""Even steps, uneven ones, packed ones, and grouped ones; all with evaluations and saves on the way."""


def told(folder: Path) -> dict[str, Any]:
    """The forecast that a finished run has held against what came. Raises: SystemExit when it made none."""
    ends = [event for event in stage.events(folder, "forecast") if event["source"] == "end"]
    if not ends or "covered" not in ends[-1]:
        raise SystemExit("bench: the run made no forecast; give it more --steps (at least 30)")
    keys = ("forecast_at_step", "forecast_seconds", "forecast_low", "forecast_high", "actual_seconds", "covered")
    return {key: ends[-1][key] for key in keys}


def main(options: Options) -> int:
    """One run after the other."""
    before = stage.machine()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        root = Path(name)
        data = stage.material(root / "data", stage.docstrings(), stage.config(128, 2, 1024))
        context = stage.starting()
        for number in range(options.runs):
            shape = SHAPES[number % len(SHAPES)]
            steps = options.steps + 10 * (number % 3)
            asked = {"max_steps": steps, "eval_steps": steps // 3, "save_steps": steps // 2, "learning_rate": 1e-3}
            document = data.document(hyperparameters={**asked, **shape}, reproducibility={"seed": number})
            document["dataset"] = {"path": "data.json", "limit": 1500, "splits": {"validation": 0.05}}
            folder = root / f"run-{number}"
            player = stage.start(context, folder, data.root, document, "tollgate", 0)
            with stage.players(player):
                player.ended()
            runs.append({"shape": shape, "steps": steps, **told(folder)})
            print(f"forecast: run {number + 1} of {options.runs}: {runs[-1]}", flush=True)
    widths = [(run["forecast_high"] - run["forecast_low"]) / run["forecast_seconds"] for run in runs]
    verdict = figures.forecasts([run["covered"] for run in runs], widths)
    path = stage.keep(
        "forecast",
        before,
        {
            "runs": runs,
            "covered": sum(run["covered"] for run in runs),
            "median_width": statistics.median(widths),
            "median_error": statistics.median(abs(run["forecast_seconds"] / run["actual_seconds"] - 1) for run in runs),
            "verdict": verdict.state,
            "because": verdict.because,
        },
    )
    print(f"{verdict.state}: {verdict.because}\n{path}")
    return int(verdict.state == figures.State.MISSED)
