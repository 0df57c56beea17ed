"""What the demo draws: the live state of a run, the verdict table, the attempts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_CEILING, Decimal
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

COLOURS = {
    "Succeeded": "green",
    "Passed": "green",
    "Failed": "red",
    "Stopped": "yellow",
    "Stopping": "yellow",
    "Inconclusive": "yellow",
    "Running": "cyan",
    "Evaluating": "magenta",
}


class Screen:
    """One console; a live panel on a terminal, a line for each change otherwise."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._last: tuple[Any, ...] = ()

    def title(self, number: int, text: str) -> None:
        """The head of a scene."""
        self.console.print()
        self.console.rule(f"[bold]Scene {number}: {text}", align="left")

    def say(self, text: str) -> None:
        """What is going on, in a sentence."""
        self.console.print(text)

    def command(self, text: str) -> None:
        """A command that a person would type."""
        self.console.print(Text(f"$ {text}", style="bold blue"))

    @contextmanager
    def live(self) -> Iterator[Any]:
        """A function that shows a run's newest state."""
        if not self.console.is_terminal:
            yield self._line
            return
        with Live(console=self.console, refresh_per_second=4, transient=True) as live:

            def update(run: dict[str, Any]) -> None:
                live.update(panel(run))

            yield update

    def _line(self, run: dict[str, Any]) -> None:
        status = run.get("status", {})
        # Spend grows all the time: it is shown with a line, it does not make one.
        key = (status.get("phase"), status.get("progress", {}).get("step"))
        if key != self._last:
            self._last = key
            self.console.print(f"  {summary(run)}", highlight=False)

    def verdicts(self, run: dict[str, Any]) -> None:
        """The gate table: every check with its value, the compared end of its interval, and its verdict."""
        table = Table(title="Gates", title_justify="left", title_style="bold")
        for column in ("stage", "check", "value", "compared", "samples", "result"):
            table.add_column(column, justify="right" if column in ("value", "samples") else "left", no_wrap=True)
        for gate in run["status"].get("gates", []):
            for check in gate["checks"]:
                table.add_row(
                    gate["stage"],
                    f"{check['metric']} {check['op']} {check['threshold']:g}",
                    number(check.get("value")),
                    f"{check['bound']} {number(check.get('boundValue'))}",
                    str(check.get("samples", "-")),
                    Text(check["verdict"], style=COLOURS.get(check["verdict"], "white")),
                )
        self.console.print(table)
        for gate in run["status"].get("gates", []):
            if gate["verdict"] != "Passed":
                self.say(f"  {gate['stage']} {gate['verdict']}: {gate['reason']}")

    def attempts(self, run: dict[str, Any]) -> None:
        """Each attempt: what it did, why it ended, what it cost."""
        table = Table(title="Attempts", title_justify="left", title_style="bold")
        for column in ("attempt", "for", "outcome", "why", "cost USD"):
            table.add_column(column, justify="right" if column == "cost USD" else "left")
        for attempt in run["status"].get("attempts", []):
            failure = attempt.get("failure") or {}
            why = attempt.get("stopReason") or failure.get("reason") or ""
            where = " ".join(str(failure[k]) for k in ("pod", "exitCode") if k in failure)
            text = f"{why} {where}".strip() + (f": {failure['message']}" if failure.get("message") else "")
            table.add_row(
                str(attempt["number"]),
                attempt.get("role", "train"),
                Text(attempt.get("outcome", "-"), style=COLOURS.get(attempt.get("outcome", ""), "white")),
                text,
                cents(attempt["costUSD"]) if "costUSD" in attempt else "-",
            )
        self.console.print(table)


def number(value: float | None) -> str:
    """Four significant digits, or a dash for what is not known."""
    return "-" if value is None else f"{value:.4g}"


def cents(usd: str) -> str:
    """Dollars and cents, rounded up: what was spent is never shown as less."""
    return str(Decimal(usd).quantize(Decimal("0.01"), ROUND_CEILING))


def summary(run: dict[str, Any]) -> str:
    """One line: phase, step, loss, money."""
    status = run.get("status", {})
    progress, cost = status.get("progress", {}), status.get("cost", {})
    parts = [status.get("phase", "Pending")]
    if progress.get("totalSteps"):
        parts.append(f"step {progress.get('step', 0)} of {progress['totalSteps']}")
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.3f}")
    if "spentUSD" in cost:
        parts.append(f"spent {cents(cost['spentUSD'])} of {cost.get('limitUSD', 'no limit')} USD")
    if status.get("message") and status.get("phase") != "Running":
        parts.append(status["message"])
    return " | ".join(parts)


def panel(run: dict[str, Any]) -> Panel:
    """The live view of one run."""
    status = run.get("status", {})
    progress, cost = status.get("progress", {}), status.get("cost", {})
    phase = status.get("phase", "Pending")
    rows = Table.grid(padding=(0, 2))
    rows.add_row("phase", Text(phase, style=f"bold {COLOURS.get(phase, 'white')}"), status.get("message", ""))
    total = progress.get("totalSteps") or 0
    step = progress.get("step", 0)
    rows.add_row("step", f"{step} of {total or '?'}", ProgressBar(total=max(total, 1), completed=step, width=40))
    loss = progress.get("loss")
    rows.add_row("loss", "-" if loss is None else f"{loss:.3f}", "")
    spent, limit = cost.get("spentUSD"), cost.get("limitUSD")
    if spent is not None and limit is not None:
        bar = ProgressBar(total=float(limit), completed=float(spent), width=40, complete_style="yellow")
        rows.add_row("spend", f"{cents(spent)} of {limit} USD", bar)
    for gate in status.get("gates", []):
        rows.add_row("gate", gate["stage"], Text(gate["verdict"], style=COLOURS.get(gate["verdict"], "white")))
    return Panel(Group(rows), title=run["metadata"]["name"], title_align="left", expand=False)
