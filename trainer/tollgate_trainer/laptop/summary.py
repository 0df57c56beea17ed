"""The last lines of `tollgate run`: how it ended, what was measured, where things lie, and what can be done next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tollgate.api.quantities import format_cents, format_duration, format_usd
from tollgate.api.training_run import GateStatus
from tollgate.contract import Files, LastWords, Outcome, StopReason
from tollgate_trainer.laptop.allowance import cost
from tollgate_trainer.laptop.measured_table import show_metrics, show_verdicts


@dataclass(frozen=True, slots=True)
class Ending:
    """Everything that is told at the end.

    exit_code: of the launcher that decided; note: why something was left out; options: what stood over the manifest's
    file, as it has to be typed again; quick_test: it was one, without a word in the options; seconds: of all attempts
    and evaluations; evaluation_seconds: of this evaluation alone; per_hour: micro-USD. None is unknown.
    """

    file: Path
    output: Path
    run: str
    exit_code: int
    words: LastWords | None
    evaluation: LastWords | None
    gates: Sequence[GateStatus]
    spent_micro: int | None
    seconds: float
    report: Path | None
    log: Path
    note: str = ""
    profile: Path | None = None
    options: Sequence[str] = ()
    quick_test: bool = False
    evaluation_seconds: float | None = None
    per_hour: int | None = None

    @property
    def evaluation_micro(self) -> int | None:
        """Micro-USD of this evaluation, rounded up; None when its time or the price is unknown."""
        return None if self.evaluation_seconds is None else cost(self.evaluation_seconds, self.per_hour)


def document(ending: Ending) -> dict[str, Any]:
    """For `-o json`: one object, absent fields left out."""
    evaluated = ending.evaluation
    found = {
        "run": ending.run,
        "output": str(ending.output),
        "exitCode": ending.exit_code,
        "result": ending.words.model_dump(mode="json", by_alias=True, exclude_none=True) if ending.words else None,
        "evaluation": evaluated.evaluation.model_dump(mode="json", by_alias=True, exclude_none=True)
        if evaluated and evaluated.evaluation
        else None,
        "evaluationError": evaluated.error.message if evaluated and evaluated.error else None,
        "gates": [g.model_dump(mode="json", by_alias=True, exclude_none=True) for g in ending.gates] or None,
        "evaluationSeconds": round(ending.evaluation_seconds, 1) if ending.evaluation_seconds is not None else None,
        "evaluationUSD": format_usd(ending.evaluation_micro) if ending.evaluation_micro is not None else None,
        "seconds": round(ending.seconds, 1),
        "spentUSD": format_usd(ending.spent_micro) if ending.spent_micro is not None else None,
        "report": str(ending.report) if ending.report else None,
        "log": str(ending.log),
        "profile": str(ending.profile) if ending.profile else None,
        "note": ending.note or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def show(ending: Ending, console: Console) -> None:
    """For people."""

    def say(text: str | Text) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(_headline(ending))
    words = ending.words
    if words is not None:
        for line in _how_it_ended(words):
            say(f"  {line}")
    _show_evaluation(ending, console)
    if ending.gates:
        show_verdicts(ending.gates, console)
    say_all(console, _remarks(ending))
    for line in _times(ending):
        say(line)
    for name, path in _places(ending):
        say(f"  {name:<9} {shorten(path)}")
    say("Next:")
    for command, purpose in _next(ending):
        say(f"  {command}   # {purpose}")


def _show_evaluation(ending: Ending, console: Console) -> None:
    evaluated = ending.evaluation
    if evaluated is not None and evaluated.evaluation is not None:
        show_metrics(evaluated.evaluation.metrics, console)
    elif _evaluation_stopped(ending):
        say_all(console, [Text("The evaluation was stopped before it had a result.", style="yellow")])
    elif evaluated is not None and evaluated.error is not None:
        text = f"The evaluation failed ({evaluated.reason}): {evaluated.error.message}"
        say_all(console, [Text(text, style="red")])


def _times(ending: Ending) -> Iterator[str]:
    price = f" at {format_usd(ending.per_hour)} USD an hour" if ending.per_hour is not None else ""
    if ending.evaluation_seconds is not None:
        yield f"This evaluation took {took(ending.evaluation_seconds, ending.evaluation_micro)}{price}"
    all_told = took(ending.seconds, ending.spent_micro)
    yield f"Training and evaluations, all attempts: {all_told}" + (price if ending.evaluation_seconds is None else "")


def took(seconds: float, micro: int | None) -> str:
    """`1m12s, 0.07 USD`; less than a cent is told to the millionth, so that it never looks free."""
    if micro is None:
        return format_duration(round(seconds))
    amount = format_cents(micro) if micro >= 10_000 else format_usd(micro)
    return f"{format_duration(round(seconds))}, {amount} USD"


def say_all(console: Console, texts: Iterable[str | Text]) -> None:
    """Each text as it is, however wide."""
    for text in texts:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _remarks(ending: Ending) -> Iterator[str | Text]:
    if ending.profile is not None:
        yield ending.profile.read_text(encoding="utf-8")
    if ending.note:
        yield Text(ending.note, style="yellow")


def _how_it_ended(words: LastWords) -> Iterator[str]:
    if words.error is not None:
        yield words.error.message
    if words.outcome is not Outcome.COMPLETED and words.checkpoint is not None:
        yield f"The checkpoint of step {words.checkpoint.step} is kept."
    elif words.outcome is Outcome.STOPPED:
        yield "There is no checkpoint yet."


def _headline(ending: Ending) -> Text:
    words = ending.words
    if words is None:
        return Text(f"The launcher ended with exit code {ending.exit_code} and said nothing.", style="bold red")
    at = f" at step {words.step} of {words.total_steps}" if words.step is not None and words.total_steps else ""
    if words.outcome is Outcome.COMPLETED:
        how = (
            "Nothing to train: the finished model of the same manifest and data is here" if words.adopted else "Trained"
        )
        return Text(f"{how}{at}", style="bold green")
    if words.outcome is Outcome.STOPPED:
        return Text(f"Stopped ({words.reason}){at}", style="bold yellow")
    return Text(f"Failed ({words.reason}){at}", style="bold red")


def _places(ending: Ending) -> list[tuple[str, Path]]:
    places = [("model", ending.output / Files.MODEL), ("evidence", ending.output / Files.EVIDENCE)]
    found = [(name, path) for name, path in places if path.exists()]
    if ending.report is not None:
        found.append(("report", ending.report))
    if ending.profile is not None:
        found.append(("profile", ending.profile.parent))
    return [*found, ("log", ending.log)]


def shorten(path: Path) -> str:
    """Relative to the working folder where that is shorter to read."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _evaluation_stopped(ending: Ending) -> bool:
    evaluated = ending.evaluation
    return evaluated is not None and evaluated.evaluation is None and evaluated.reason == StopReason.SIGNAL


def _next(ending: Ending) -> list[tuple[str, str]]:
    file, output = shlex.quote(shorten(ending.file)), shlex.quote(shorten(ending.output))
    words = ending.words
    again = " ".join(["tollgate run", file, *map(shlex.quote, ending.options)])
    if words is not None and words.outcome is Outcome.COMPLETED and ending.quick_test:
        # Four steps prove that the run works, and nothing that a gate could judge.
        return [(again, "the run itself; the quick test went through")]
    if words is not None and words.outcome is Outcome.COMPLETED:
        commands = [(f"tollgate report {output}", "refresh and show the report")]
        if not (ending.output / Files.EVIDENCE).exists():
            return [(f"tollgate evaluate {output}", "measure it"), *commands]
        if not ending.gates:
            commands.append((f"tollgate gate {output} --policy policy.yaml", "judge it by a promotion policy"))
        return commands
    if words is not None and words.outcome is Outcome.STOPPED:
        purpose = "go on from the newest checkpoint" if words.checkpoint else "begin again"
        return [(again, purpose)]
    log = (f"less {shlex.quote(shorten(ending.log))}", "everything that the processes said")
    if words is None or words.checkpoint is None:
        return [log]
    return [log, (again, "when it is mended: go on from the newest checkpoint")]
