"""`tollgate dataset validate` on a screen: errors first, each with what to do and where to look."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tollgate_trainer.dataset.checks import Finding, Severity
from tollgate_trainer.dataset.show import line, plural

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
_ORDER = list(Severity)


def findings(console: Console, found: Sequence[Finding]) -> None:
    """Every finding, the gravest first."""
    for each in sorted(found, key=lambda one: _ORDER.index(one.severity)):
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=7, no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(each.severity.upper(), style=_STYLES[each.severity]), Text(each.message))
        for example in each.examples:
            grid.add_row("", Text(example, style="dim"))
        if each.fix:
            grid.add_row("", Text(f"-> {each.fix}"))
        console.print()
        console.print(grid)


def verdict(console: Console, found: Sequence[Finding], checked: Sequence[str]) -> None:
    """The last lines: what was looked at, and how it stands."""
    console.print()
    line(console, "checked: " + ", ".join(checked), "dim")
    errors, warnings = (sum(one.severity is kind for one in found) for kind in (Severity.ERROR, Severity.WARNING))
    if not errors and not warnings:
        line(console, "no errors, no warnings", "bold green")
        return
    style = "bold red" if errors else "bold yellow"
    line(console, f"{plural(errors, 'error')}, {plural(warnings, 'warning')}", style)
