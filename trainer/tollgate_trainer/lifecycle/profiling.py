"""`tollgate run --profile`: what a few steps spend their time on, as a trace for a viewer and a table for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tollgate_trainer.lifecycle.session import Session

FOLDER = "logs/profile"
WARM_STEPS = 2
STEPS = 3
ROWS = 20


class StepProfile(TrainerCallback):
    """Records STEPS steps after WARM_STEPS (all of them in a shorter training) with torch.profiler, in each process."""

    def __init__(self, session: Session, steps_left: int, device: torch.device) -> None:
        self.session = session
        self._skip = WARM_STEPS if steps_left >= WARM_STEPS + STEPS else 0
        self._cuda = device.type == "cuda"
        self._seen = self._recorded = 0
        self._first = 0
        self._profiler: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start when the warm steps are over."""
        if self._seen == self._skip:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if self._cuda:
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._first = state.global_step + 1
            self._profiler = torch.profiler.profile(activities=activities)
            self._profiler.start()
        self._seen += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop after enough steps."""
        if self._profiler is None:
            return
        self._recorded += 1
        if self._recorded >= STEPS:
            self._finish(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A training that ended early still leaves what was recorded."""
        if self._profiler is not None:
            self._finish(state.global_step)

    def _finish(self, last: int) -> None:
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        attempt = self.session.attempt
        folder = attempt.output_root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        name = f"attempt-{attempt.number}-rank-{attempt.rank}"
        trace, table = folder / f"trace-{name}.json", folder / f"top-ops-{name}.txt"
        profiler.export_chrome_trace(str(trace))
        order = "self_device_time_total" if self._cuda else "self_cpu_time_total"
        words: str = profiler.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=40)
        table.write_text(f"steps {self._first} to {last}, {self._recorded} in all\n{words}\n", encoding="utf-8")
        root: Path = attempt.output_root
        self.session.say(
            "profile",
            first_step=self._first,
            last_step=last,
            trace=trace.relative_to(root).as_posix(),
            table=table.relative_to(root).as_posix(),
        )
