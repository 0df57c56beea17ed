"""The launcher with real processes. Its commands are small Python programs that leave outcome files as the trainer
does.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tollgate.contract import MAX_LAST_WORDS, Files, LastWords

PATIENCE = 60.0

PREAMBLE = """
import json, os, signal, subprocess, sys, time
from datetime import datetime, timezone
from pathlib import Path

def leave(outcome, reason, name="node-0.json", **more):
    folder = Path(os.environ["TOLLGATE_OUTPUT_ROOT"], "outcomes", "attempt-" + os.environ["TOLLGATE_ATTEMPT"])
    folder.mkdir(parents=True, exist_ok=True)
    ended = datetime.now(timezone.utc).isoformat()
    words = {"schema": 1, "outcome": outcome, "reason": reason, "endedAt": ended, **more}
    (folder / name).write_text(json.dumps(words))

def say(text):
    print(text, flush=True)
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.02)


@dataclass
class Pod:
    """One run of the launcher."""

    folder: Path
    environ: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    wrapped: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def start(self, program: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        name = f"program-{len(self.started)}.py"
        (self.folder / name).write_text(PREAMBLE + program)
        command = [
            *self.wrapped,
            sys.executable,
            "-m",
            "tollgate_trainer.launch",
            "--",
            sys.executable,
            name,
            *arguments,
        ]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def run(self, program: str, *arguments: str, **environ: str) -> int:
        return self.finish(self.start(program, *arguments, **environ))[0]

    def message(self) -> LastWords:
        text = (self.folder / "termination").read_text()
        assert len(text.encode()) <= MAX_LAST_WORDS
        words = LastWords.parse(text)
        assert words is not None, text
        return words

    def error(self) -> str:
        error = self.message().error
        assert error is not None
        return error.message

    def result(self) -> LastWords:
        words = LastWords.parse((self.output / Files.RESULT).read_text())
        assert words is not None
        return words

    def wait_for_file(self, name: str) -> str:
        path = self.folder / name
        wait_for(lambda: path.exists() and path.read_text().strip() != "", name)
        return path.read_text().strip()


def is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
