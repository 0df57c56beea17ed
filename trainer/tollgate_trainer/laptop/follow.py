"""Shows a run while it works: a bar on a terminal, plain lines elsewhere, both fed by the run's own events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tollgate.api.quantities import format_cents

Event = dict[str, Any]
TRAINING = "training"
_UNSHOWN = {"eval_tokens", "eval_documents"}  # counts that say nothing about the model


class Printed:
    """New whole lines of a text file, from where it ended when this was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def new(self) -> Iterator[str]:
        """Lines that were added since the last call. A file that became shorter was moved aside; it begins anew."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._at:
                    self._at, self._rest = 0, b""
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            self._at, self._rest = 0, b""
            return
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", errors="replace")


class Follower:
    """New events of an events file."""

    def __init__(self, path: Path) -> None:
        self._lines = Printed(path)

    def new(self) -> Iterator[Event]:
        """Events that were added since the last call."""
        for line in self._lines.new():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a line that an earlier kill cut off
            if isinstance(event, dict) and "event" in event:
                yield event


class Display(Protocol):
    """Where events are shown."""

    def show(self, event: Event) -> None:
        """One event."""

    def say(self, text: str) -> None:
        """One line besides the events."""

    def begin(self, what: str, seconds_before: float) -> None:
        """Something else begins; `seconds_before`: what the run has used until now."""

    def tick(self, seconds: float) -> None:
        """Called now and then with the seconds since the last `begin`."""

    def close(self) -> None:
        """No more events."""


def sentence(event: Event) -> str | None:
    """An event in words, or None when it is none for people. Steps are shown by other means."""
    kind, step = event["event"], event.get("step")
    if kind == "data" and isinstance(event.get("train"), dict):
        train, held_out = event["train"], event.get("validation") or {}
        return (
            f"data: {train.get('samples', 0):,} samples to train on ({train.get('tokens', 0):,} tokens), "
            f"{held_out.get('samples', 0):,} held out"
        )
    if kind == "packing" and event.get("on"):
        return (
            f"packing: {event['documents']:,} documents in {event['rows']:,} rows of {event['row_tokens']:,} tokens, "
            f"{event['fill']:.0%} full"
        )
    if kind == "plan":
        trained = _count(event.get("trainable_parameters"))
        return f"model: {_count(event.get('parameters'))} parameters, {trained} of them trained"
    if kind == "eval":
        values = ", ".join(
            f"{k} {v:.4g}"
            for k, v in event.items()
            if k.startswith("eval_") and isinstance(v, float) and k not in _UNSHOWN
        )
        whose = f"step {step}, whose weights become the model" if event.get("chosen") else f"step {step}"
        return f"{whose}: {values}" if values else None
    if kind == "save":
        return f"step {step}: checkpoint saved"
    if kind == "restore":
        return f"going on from the checkpoint of step {step}{_likeness(event)}"
    if kind == "profile":
        return f"steps {event.get('first_step')} to {event.get('last_step')} were profiled: {event.get('trace')}"
    if kind in ("warning", "adopt", "early_stop"):
        return f"{'warning: ' if kind == 'warning' else ''}{event.get('message', kind)}"
    return None


def _likeness(event: Event) -> str:
    """What a resumed run has in common with one that was never stopped, and why no more."""
    if event.get("equality") != "statistical":
        return f" ({event['equality']})" if event.get("equality") else ""
    because = ", ".join(map(str, event.get("because") or ()))
    return " with the same samples, but not bit for bit" + (f": {because}" if because else "")


def _count(value: object) -> str:
    if not isinstance(value, int):
        return "?"
    for unit, factor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return str(value)


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, event: Event) -> None:
        """A line for what matters, and for each logged step."""
        if event["event"] == "step":
            loss = f"loss {event['loss']:.4f}" if isinstance(event.get("loss"), float) else "loss ?"
            speed = event.get("tokens_per_second")
            rest = f", {speed:,.0f} tokens/s" if isinstance(speed, float) else ""
            self.say(f"step {event.get('step')}/{event.get('total_steps', '?')}: {loss}{rest}")
        elif (text := sentence(event)) is not None:
            self.say(text)

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, what: str, seconds_before: float) -> None:
        """A line; the training introduces itself."""
        if what != TRAINING:
            self.say(what)

    def tick(self, seconds: float) -> None:
        """Plain lines do not tick."""

    def close(self) -> None:
        """Nothing is open."""


class Bar:
    """A progress bar with loss, speed, time left and spend; other events stand above it."""

    def __init__(self, console: Console, cost: Callable[[float], int | None]) -> None:
        self._cost = cost
        self._before = 0.0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[speed]}", style="dim"),
            _Left(),
            TextColumn("{task.fields[spend]}", style="yellow"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None, loss="", speed="", spend="")
        self._progress.start()

    def show(self, event: Event) -> None:
        """Move the bar, or print the event above it."""
        kind = event["event"]
        if kind == "step":
            speed, loss = event.get("tokens_per_second"), event.get("loss")
            self._progress.update(
                self._task,
                description="training",
                completed=event.get("step", 0),
                total=event.get("total_steps"),
                loss=f"loss {loss:.4f}" if isinstance(loss, float) else "",
                speed=f"{speed:,.0f} tokens/s" if isinstance(speed, float) else "",
            )
            return
        if kind in ("start", "data"):
            self._progress.update(
                self._task, description="reading the data" if kind == "start" else "loading the model"
            )
        if kind == "plan":
            self._progress.update(self._task, description="checking the machine", total=event.get("total_steps"))
        if (text := sentence(event)) is not None:
            self.say(text)

    def say(self, text: str) -> None:
        """One line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def begin(self, what: str, seconds_before: float) -> None:
        """A bar of its own for each part."""
        self._before = seconds_before
        if what != TRAINING:
            # A task of its own: `reset` keeps the old total, and drops the fields that are not given again.
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(what, total=None, loss="", speed="", spend=self._spend(0.0))

    def tick(self, seconds: float) -> None:
        """Spend goes on between steps."""
        self._progress.update(self._task, spend=self._spend(seconds))

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _spend(self, seconds: float) -> str:
        """The cost up to `seconds` after the last `begin`, or nothing when nobody gave a price."""
        cost = self._cost(self._before + seconds)
        return "" if cost is None else f"{format_cents(cost)} USD"


class _Left(ProgressColumn):
    """Time left, nothing while it is unknown."""

    def __init__(self) -> None:
        super().__init__()
        self._inner = TimeRemainingColumn(compact=True)

    def render(self, task: Task) -> Text:
        """`02:31 left`, or nothing."""
        if task.time_remaining is None or not task.total:
            return Text("")
        return Text(f"{self._inner.render(task)} left", style="cyan")
