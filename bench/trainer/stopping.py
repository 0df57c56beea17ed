"""Stop, save and resume in seconds, of processes that start from nothing; stock HF Trainer beside it.

Stock does not stop on a signal (it dies without a checkpoint), so there is no figure of it for that.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import rig
from bench.trainer import stage
from bench.trainer.options import Options

EVERY = 10
"""Steps between saves."""


@contextmanager
def running(command: list[str], environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=file, stderr=file, cwd=rig.CHECKOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def until(process: subprocess.Popen[bytes], log: Path, condition: Callable[[], Any]) -> Any:
    """Poll until it holds. Raises: SystemExit when the process ends before, or too much time passes."""
    end = time.monotonic() + stage.PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        if process.poll() is not None and not (found := condition()):
            break
        time.sleep(0.01)
    raise SystemExit(f"bench: it ended too soon; it said:\n{log.read_text(errors='replace')[-3000:]}")


def instant(event: dict[str, Any]) -> float:
    """Epoch seconds of an event."""
    return datetime.fromisoformat(event["time"]).timestamp()


def tollgate(folder: Path, data: stage.Material, document: dict[str, Any], after: int) -> dict[str, Any]:
    """Stopped after a step, and gone on from there until its first new step."""
    command, log = [sys.executable, "-m", "tollgate_trainer", "train"], folder / "said.txt"
    environ = stage.environment(folder, data.root, document)
    with running(command, environ, log) as process:
        until(process, log, lambda: any(one["step"] >= after for one in stage.events(folder, "step")))
        asked = time.time()
        process.send_signal(signal.SIGTERM)
        code = process.wait(stage.PATIENCE)
        stop = time.time() - asked
    saves = stage.events(folder, "save")
    if code != 75 or not saves:
        raise SystemExit(f"bench: SIGTERM was answered by exit {code}, not 75; give more --steps\n{log.read_text()}")
    environ = stage.environment(folder, data.root, document, attempt=2)
    begun = time.time()
    with running(command, environ, log) as process:

        def gone_on() -> dict[str, Any] | None:
            return next((one for one in stage.events(folder, "step") if one["attempt"] == 2), None)

        first = until(process, log, gone_on)
    if first["step"] != saves[-1]["step"] + 1:
        raise SystemExit(f"bench: resumed at step {first['step']} after a checkpoint of step {saves[-1]['step']}")
    return {
        "stop_seconds": stop,
        "resume_seconds": instant(first) - begun,
        "save_seconds": [one["seconds"] for one in saves],
    }


def stock(folder: Path, data: stage.Material, document: dict[str, Any], after: int) -> dict[str, Any]:
    """Killed after a step, and gone on from its newest checkpoint until its first new step."""
    folder.mkdir()
    told, log = folder / "told.jsonl", folder / "said.txt"
    command = [sys.executable, "-m", "bench.trainer.arms", str(told)]

    def lines(event: str) -> list[dict[str, Any]]:
        text = told.read_text(encoding="utf-8") if told.exists() else ""
        return [one for line in text.splitlines() if line.endswith("}") and (one := json.loads(line))["event"] == event]

    environ = stage.environment(folder, data.root, document)
    with running(command, environ, log) as process:
        until(process, log, lambda: any(one["step"] >= after for one in lines("step")) and lines("save"))
    before, begun = len(lines("step")), time.time()
    with running([*command, "resume"], environ, log) as process:
        first = until(process, log, lambda: lines("step")[before:])[0]
    return {"resume_seconds": first["at"] - begun, "save_seconds": [one["seconds"] for one in lines("save")]}


def main(options: Options) -> int:
    """Both in turns."""
    before = stage.machine()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        root = Path(name)
        data = stage.material(root / "data", stage.even(stage.docstrings(), 480), stage.config(256, 4, 2048))
        asked = {"max_steps": 10**4, "save_steps": EVERY, "logging_steps": 1, "max_seq_length": 64}
        document = data.document(hyperparameters={**asked, "per_device_train_batch_size": 2})
        after = max(options.steps, EVERY) + EVERY // 2  # between two saves: stock can't go on from a half-written one
        for number in range(options.runs):
            ours.append(tollgate(root / f"tollgate-{number}", data, document, after))
            theirs.append(stock(root / f"stock-{number}", data, document, after))
            print(f"stop: {number + 1} of {options.runs}: {ours[-1]} stock {theirs[-1]}", flush=True)

    def seconds(runs: list[dict[str, Any]], key: str) -> dict[str, float]:
        values = [v for run in runs for v in (run[key] if isinstance(run[key], list) else [run[key]])]
        return {"median": statistics.median(values), "most": max(values), "count": len(values)}

    path = stage.keep(
        "stop",
        before,
        {
            "parameters": data.parameters,
            "tollgate": {key: seconds(ours, f"{key}_seconds") for key in ("stop", "save", "resume")},
            "stock": {key: seconds(theirs, f"{key}_seconds") for key in ("save", "resume")},
            "raw": {"tollgate": ours, "stock": theirs},
        },
    )
    print(path)
    return 0
