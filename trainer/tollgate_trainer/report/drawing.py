"""A chart in two sizes: text in a drawing shrinks with it, so that narrow screens get a drawing of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tollgate_trainer.report import charts


@dataclass(frozen=True, slots=True)
class Chart:
    """The same chart for wide and for narrow screens. legend: (name, style) of each line."""

    title: str
    wide: Markup
    narrow: Markup
    legend: tuple[tuple[str, str], ...] = ()


def chart(title: str, series: Sequence[charts.Series], wide: charts.Frame, marks: Sequence[float]) -> Chart | None:
    """Lines with a dashed line at each of `marks`; None when no series has a point."""
    drawn = charts.line_chart(title, series, wide, marks)
    if not drawn:
        return None
    legend = tuple((s.name, s.style) for s in series if s.points and len(series) > 1)
    if 'class="mark"' in drawn and wide.width == charts.WIDE.width:  # small ones stand below a wide one that says it
        legend += (("went on from a checkpoint", "restart"),)
    return Chart(title, Markup(drawn), Markup(charts.line_chart(title, series, charts.NARROW, marks)), legend)
