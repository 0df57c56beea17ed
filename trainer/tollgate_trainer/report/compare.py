"""Two runs side by side: what was set otherwise, what was measured, what it took. Pure but for reading and writing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tollgate.gates.evidence import Measured
from tollgate_trainer import durable
from tollgate_trainer.report import charts
from tollgate_trainer.report.drawing import Chart, chart
from tollgate_trainer.report.format import DASH, number, share, span
from tollgate_trainer.report.page import flatten, spent, template
from tollgate_trainer.report.record import Record, read


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of the manifest that differs; None: not given, so the default holds."""

    name: str
    a: str | None
    b: str | None


@dataclass(frozen=True, slots=True)
class Pair:
    """One metric of both runs, None where it was not measured. apart: whether the intervals do not meet, None when
    unknown.
    """

    name: str
    a: Measured | None
    b: Measured | None
    apart: bool | None


@dataclass(frozen=True, slots=True)
class Amount:
    """One number of both runs with its unit; None is unknown."""

    name: str
    unit: str
    a: float | None
    b: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs. notes: why numbers of the two may not be held against each other."""

    a: Record
    b: Record
    settings: tuple[Setting, ...]
    metrics: tuple[Pair, ...]
    amounts: tuple[Amount, ...]
    notes: tuple[str, ...]


def compare(a: Record, b: Record) -> Comparison:
    """The differences of two records; pure."""
    return Comparison(a, b, tuple(_settings(a, b)), tuple(_metrics(a, b)), tuple(_amounts(a, b)), tuple(_notes(a, b)))


def names(found: Comparison) -> tuple[str, str]:
    """What the two are called: their folders' names, in full where these are the same."""
    a, b = found.a.root.absolute(), found.b.root.absolute()
    return (a.name, b.name) if a.name != b.name else (str(a), str(b))


def _settings(a: Record, b: Record) -> list[Setting]:
    first, second = dict(flatten(a.manifest)), dict(flatten(b.manifest))
    return [
        Setting(name, first.get(name), second.get(name))
        for name in dict.fromkeys((*first, *second))
        if first.get(name) != second.get(name)
    ]


def _metrics(a: Record, b: Record) -> list[Pair]:
    first, second = _measured(a), _measured(b)
    return [
        Pair(name, first.get(name), second.get(name), _apart(first.get(name), second.get(name)))
        for name in dict.fromkeys((*first, *second))
    ]


def _measured(record: Record) -> dict[str, Measured]:
    return {metric.name: metric for metric in record.evidence.metrics} if record.evidence else {}


def _apart(a: Measured | None, b: Measured | None) -> bool | None:
    if a is None or b is None or None in (a.lower, a.upper, b.lower, b.upper):
        return None
    return bool(a.upper < b.lower or b.upper < a.lower)  # type: ignore[operator]


def _amounts(a: Record, b: Record) -> list[Amount]:
    rows = [
        Amount("Steps", "", _last_step(a), _last_step(b)),
        Amount("Training loss", "", _loss(a), _loss(b)),
        Amount("Held-out loss", "", _held_out(a), _held_out(b)),
        Amount("Tokens", "", _tokens(a), _tokens(b)),
        Amount("Tokens a second, median", "", _speed(a), _speed(b)),
        Amount("Parameters trained", "", _of(a.plan, "trainable_parameters"), _of(b.plan, "trainable_parameters")),
        Amount("Attempts", "", len(a.attempts) or None, len(b.attempts) or None),
        Amount("Share of time in steps", "%", _in_steps(a), _in_steps(b)),
        Amount("Time", "s", a.seconds_used, b.seconds_used),
        Amount("Cost", "USD", _cost(a), _cost(b)),
    ]
    return [row for row in rows if row.a is not None or row.b is not None]


def _last_step(record: Record) -> float | None:
    if record.result is not None and record.result.step is not None:
        return record.result.step
    return record.steps[-1].step if record.steps else None


def _loss(record: Record) -> float | None:
    return next((point.loss for point in reversed(record.steps) if point.loss is not None), None)


def _held_out(record: Record) -> float | None:
    return next((value for e in reversed(record.evaluations) if (value := _of(e, "eval_loss")) is not None), None)


def _tokens(record: Record) -> float | None:
    return next((point.tokens for point in reversed(record.steps) if point.tokens is not None), None)


def _speed(record: Record) -> float | None:
    speeds = sorted(p.tokens_per_second for p in record.steps if p.tokens_per_second is not None)
    return speeds[len(speeds) // 2] if speeds else None


def _in_steps(record: Record) -> float | None:
    seconds = record.result.goodput_seconds if record.result else None
    total = sum(seconds.values()) if seconds else 0.0
    return seconds.get("step", 0.0) / total if seconds and total > 0 else None


def _cost(record: Record) -> float | None:
    micro = spent(record)
    return None if micro is None else micro / 1e6


def _of(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _notes(a: Record, b: Record) -> list[str]:
    notes = []
    first, second = a.data.get("digest"), b.data.get("digest")
    if first and second and first != second:
        notes.append("The two were trained on different data, so their held-out documents differ too.")
    if a.evidence is not None and b.evidence is not None and a.evidence.suite_digest != b.evidence.suite_digest:
        notes.append("The two were not asked the same in the evaluation; their metrics are not of the same thing.")
    for record in (a, b):
        if record.evidence_problem:
            notes.append(f"{record.root}: {record.evidence_problem}")
    return notes


# --- telling ----------------------------------------------------------------------------------------------------------


def told(amount: float | None, unit: str) -> str:
    """An amount for people; a dash when unknown."""
    if amount is None:
        return DASH
    if unit == "s":
        return span(amount)
    if unit == "%":
        return share(amount)
    return f"{amount:,.2f} USD" if unit == "USD" else number(amount)


def document(found: Comparison) -> dict[str, Any]:
    """The comparison for scripts; null is unknown, or not given."""

    def metric(one: Measured | None) -> dict[str, Any] | None:
        kept = {"value", "lower", "upper", "confidence", "samples", "advisory"}
        return None if one is None else one.model_dump(mode="json", include=kept)

    return {
        "schema_version": 1,
        "a": str(found.a.root),
        "b": str(found.b.root),
        "settings": [{"field": s.name, "a": s.a, "b": s.b} for s in found.settings],
        "metrics": [
            {"metric": pair.name, "a": metric(pair.a), "b": metric(pair.b), "apart": pair.apart}
            for pair in found.metrics
        ],
        "amounts": [{"name": r.name, "unit": r.unit or None, "a": r.a, "b": r.b} for r in found.amounts],
        "notes": list(found.notes),
    }


def curves(found: Comparison) -> Chart | None:
    """The losses of both runs in one drawing; None when neither logged a step."""
    series = []
    for name, record, style in zip(names(found), (found.a, found.b), ("line-1", "line-2"), strict=True):
        points = [(float(p.step), p.loss) for p in record.steps if p.loss is not None]
        smoothed = charts.smooth(points, max(len(points) // 20, 3)) if len(points) > 8 else points
        series.append(charts.Series(name, smoothed, style))
    for name, record, style in zip(names(found), (found.a, found.b), ("line-1", "line-2"), strict=True):
        held = [(float(e["step"]), v) for e in record.evaluations if (v := _of(e, "eval_loss")) is not None]
        series.append(charts.Series(f"{name}, held out", held, f"{style} dashed", dots=True))
    return chart("Loss", series, charts.WIDE, [])


def render(found: Comparison) -> str:
    """The page; pure."""
    drawings = {}
    for pair in found.metrics:
        ends = [x for one in (pair.a, pair.b) if one for x in (one.value, one.lower, one.upper) if x is not None]
        drawings[pair.name] = [
            Markup(charts.interval(one.value, one.lower, one.upper, None, within=(min(ends), max(ends))))
            if one
            else Markup("")
            for one in (pair.a, pair.b)
        ]
    return template("compare.html.j2").render(
        found=found, names=names(found), loss=curves(found), drawings=drawings, told=told
    )


def write(a: Path, b: Path, target: Path) -> tuple[Comparison, Path]:
    """Compare two output folders and write the page. Raises: OSError."""
    found = compare(read(a), read(b))
    durable.write(target, render(found).encode())
    return found, target
