"""`tollgate evaluate` on a model folder that is no run: measured in a process of its own, shown, never judged."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from tollgate.api.quantities import format_usd
from tollgate.contract import Metric
from tollgate.manifest.sections import Evaluation
from tollgate_trainer.evaluate import DEFAULT_CONFIDENCE
from tollgate_trainer.laptop import subject, summary
from tollgate_trainer.laptop.allowance import cost
from tollgate_trainer.laptop.measured_table import show_metrics
from tollgate_trainer.laptop.preparation import LaptopError


def measure(folder: Path, asked: subject.Settings, root: Path | None, form: str, per_hour: int | None = None) -> int:
    """Measure and show the model; returns the exit code. per_hour: micro-USD of this machine, None when nobody said.

    Raises: LaptopError for what has to be mended.
    """
    if not subject.is_model(folder):
        raise LaptopError(
            f"{folder} holds neither a run with a finished model nor a saved model; name a folder that does, such as "
            "runs/my-model"
        )
    section = subject.effective(Evaluation(), asked)
    if not section.suites or not asked.given:
        raise LaptopError("say what to measure with --suite, such as --suite toxicity --prompts prompts.jsonl")
    place = root or (asked.settings.parent if asked.settings is not None else Path.cwd())
    request = {
        "model": str(folder.absolute()),
        "suites": list(section.suites),
        "settings": section.model_dump(mode="json"),
        "root": str(place.absolute()),
        "confidence": DEFAULT_CONFIDENCE,
    }
    command = [sys.executable, "-m", "tollgate_trainer.evaluate.loose"]
    started = time.monotonic()
    done = subprocess.run(command, input=json.dumps(request), stdout=subprocess.PIPE, text=True, check=False)
    answer = json.loads(done.stdout or '{"error": "the evaluation ended without an answer"}')
    if "error" in answer:
        raise LaptopError(answer["error"])
    seconds = time.monotonic() - started
    micro = cost(seconds, per_hour)
    if form == "json":
        answer["evaluationSeconds"] = round(seconds, 1)
        if micro is not None:
            answer["evaluationUSD"] = format_usd(micro)
        click.echo(json.dumps(answer, indent=1))
    else:
        show_metrics([Metric.model_validate(metric) for metric in answer["metrics"]], Console())
        click.echo(f"This evaluation took {summary.took(seconds, micro)}")
        click.echo(f"model {answer['model']}; no evidence is written, because nobody knows what it was made from")
    return done.returncode
