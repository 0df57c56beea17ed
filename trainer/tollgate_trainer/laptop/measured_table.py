"""Metrics and verdicts as lines of text: columns of numbers, with what has to be said in words on lines of its own.

A table of rich squeezes its last column until a reason stands there one word a line. Here a row keeps to one line, also
at 80 columns, and its reason follows below over the whole width; in a pipe each reason is one line, for grep.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from tollgate.api.training_run import CheckStatus, GateStatus
from tollgate.contract import Metric

UNKNOWN = "?"
_COLOURS = {"Passed": "green", "Failed": "red", "Inconclusive": "yellow"}
_CHECK = ("check", "value", "bound", "n", "must be", "verdict")
_METRIC = ("metric", "value", "lower", "upper", "n")
_RIGHT = frozenset({"value", "bound", "lower", "upper", "n"})
_NOTE = "    "


@dataclass(frozen=True, slots=True)
class Line:
    """One row. style: of its last cell; note: what is said below it; heading: a row that is words alone."""

    cells: tuple[str, ...]
    style: str = ""
    note: str = ""
    heading: bool = False


def show_verdicts(gates: Sequence[GateStatus], console: Console) -> None:
    """One row per check with value, bound, threshold and n, and why it did not pass."""
    _show(_CHECK, [line for gate in gates for line in _stage(gate)], console)


def show_metrics(found: Sequence[Metric], console: Console) -> None:
    """One row per metric; one that no gate may rest on says why."""
    lines = [
        Line(
            (metric.name, _number(metric.value), _number(metric.lower), _number(metric.upper), str(metric.samples)),
            note=f"advisory: {metric.advisory}" if metric.advisory else "",
        )
        for metric in found
    ]
    _show(_METRIC, lines, console)


def lines(header: Sequence[str], rows: Sequence[Line], width: int | None) -> Iterator[Text]:
    """The table in `width` columns, None: as wide as it likes. A name that has no room stands on a line of its own."""
    numbers = [row for row in rows if not row.heading]
    sizes = [max(len(text) for text in column) for column in zip(header, *(row.cells for row in numbers), strict=True)]
    gap = 2 if width is None or sum(sizes) + 2 * (len(sizes) - 1) <= width else 1
    rest = sum(sizes[1:]) + gap * (len(sizes) - 1)
    if width is not None:
        sizes[0] = max(min(sizes[0], width - rest), len(header[0]))
    yield Text(_row(header, header, sizes, gap), style="dim")
    for row in rows:
        if row.heading:
            yield Text.assemble((row.cells[0], "bold"), ": ", (row.cells[1], f"bold {row.style}"))
        elif len(row.cells[0]) > sizes[0]:
            yield Text(row.cells[0])
            yield _styled(_row(header, ("", *row.cells[1:]), sizes, gap), row)
        else:
            yield _styled(_row(header, row.cells, sizes, gap), row)
        for text in _wrapped(row.note, width):
            yield Text(_NOTE + text, style="dim")


def _show(header: Sequence[str], rows: Sequence[Line], console: Console) -> None:
    for line in lines(header, rows, console.width if console.is_terminal else None):
        console.print(line, highlight=False, soft_wrap=True)


def _stage(gate: GateStatus) -> Iterable[Line]:
    own = "" if any(check.verdict != "Passed" for check in gate.checks) else gate.reason
    yield Line((gate.stage, gate.verdict), _COLOURS.get(gate.verdict, ""), own or "", heading=True)
    for check in gate.checks:
        yield Line(_cells(check), _COLOURS.get(check.verdict, ""), check.reason if check.verdict != "Passed" else "")


def _cells(check: CheckStatus) -> tuple[str, ...]:
    end = "value" if check.bound == "point" else check.bound
    samples = str(check.samples) if check.samples is not None else UNKNOWN
    asked = f"{end} {check.op} {check.threshold:g}"
    return f"  {check.metric}", _number(check.value), _number(check.bound_value), samples, asked, check.verdict


def _number(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def _row(header: Sequence[str], cells: Sequence[str], sizes: Sequence[int], gap: int) -> str:
    placed = (
        cell.rjust(size) if name in _RIGHT else cell.ljust(size)
        for name, cell, size in zip(header, cells, sizes, strict=True)
    )
    return (" " * gap).join(placed).rstrip()


def _styled(text: str, row: Line) -> Text:
    styled = Text(text)
    if row.style:
        styled.stylize(row.style, len(text) - len(row.cells[-1]))
    return styled


def _wrapped(note: str, width: int | None) -> list[str]:
    if not note:
        return []
    if width is None:
        return [" ".join(note.split())]
    return textwrap.wrap(note, max(width - len(_NOTE), 20), break_long_words=False, break_on_hyphens=False)
