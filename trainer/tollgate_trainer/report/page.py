"""From a record to one page of HTML that needs no network, no script and no other file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from tollgate.api.quantities import format_cents, format_duration, parse_usd
from tollgate.api.training_run import CheckStatus
from tollgate.contract import Files, Outcome
from tollgate_trainer import durable
from tollgate_trainer.report import charts
from tollgate_trainer.report import sections as optional
from tollgate_trainer.report.advice import recommendations
from tollgate_trainer.report.drawing import Chart, chart
from tollgate_trainer.report.format import number, short, size, span, when
from tollgate_trainer.report.record import Record, read

STATES = (
    ("step", "training steps", "s1"),
    ("evaluate", "evaluating", "s2"),
    ("save", "saving", "s3"),
    ("restore", "restoring", "s4"),
    ("import", "starting", "s5"),
    ("data", "reading data", "s6"),
    ("load", "loading the model", "s7"),
    ("compile", "compiling", "s7"),
    ("stop", "stopping", "s8"),
    ("idle", "waiting", "s8"),
    ("lost", "lost (done again after a restart)", "s9"),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the headline."""

    name: str
    value: str
    note: str = ""


def write(root: Path) -> Path:
    """Make or refresh the report of an output folder; answers where it lies. Raises: OSError."""
    path = root / Files.REPORT
    durable.write(path, build(root).encode())
    return path


def build(root: Path) -> str:
    """The report of an output folder as HTML, from its files only."""
    return render(read(root))


def render(record: Record) -> str:
    """The page of a record; pure."""
    return template("page.html.j2").render(
        record=record,
        status=status(record),
        figures=figures(record),
        loss=loss_chart(record),
        small=[chart for chart in small_charts(record) if chart is not None],
        goodput=goodput(record),
        metrics=metrics(record),
        unmeasured=unmeasured(record),
        settings=sections(record.manifest),
        data=statistics(record),
        files=record.model.get("files", []),
        paths=paths(record.root),
        advice=recommendations(record),
        outlook=optional.outlook(record),
        memory=optional.memory(record),
        changes=optional.changes(record),
        experts=optional.experts(record),
        facts=optional.data_facts(record),
        checks=optional.checks(record),
        samples=optional.samples(record),
        classes=optional.classes(record),
        spans=optional.spans(record),
    )


def template(name: str) -> Template:
    """A template of this package; everything that it shows is escaped."""
    environment = Environment(
        loader=PackageLoader("tollgate_trainer.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(short=short, when=when, number=number, size=size)
    return environment.get_template(name)


# --- words and numbers ------------------------------------------------------------------------------------------------


def status(record: Record) -> tuple[str, str, str]:
    """(style, word, sentence) of how the run stands."""
    said = record.result
    if said is None:
        return ("open", "Not finished", "There is no result yet; this shows what is known so far.")
    if said.outcome is Outcome.COMPLETED:
        return ("good", "Completed", "Trained to the end.")
    sentence = said.error.message if said.error else ""
    if said.outcome is Outcome.STOPPED:
        kept = f" The checkpoint of step {said.checkpoint.step} is kept; the run can go on." if said.checkpoint else ""
        return ("warn", f"Stopped: {said.reason}", (sentence + kept).strip())
    return ("bad", f"Failed: {said.reason}", sentence)


def figures(record: Record) -> list[Figure]:
    """The headline's numbers; what is unknown is left out."""
    said, found = record.result, []
    steps = record.steps
    step = said.step if said and said.step is not None else steps[-1].step if steps else None
    total = said.total_steps if said and said.total_steps is not None else record.plan.get("total_steps")
    if step is not None:
        found.append(Figure("Steps", number(step), f"of {number(total)}" if total else ""))
    losses = [point.loss for point in steps if point.loss is not None]
    if losses:
        found.append(Figure("Training loss", number(losses[-1]), f"began at {number(losses[0])}"))
    checked = [e["eval_loss"] for e in record.evaluations if isinstance(e.get("eval_loss"), int | float)]
    if checked:
        found.append(Figure("Held-out loss", number(checked[-1]), f"lowest {number(min(checked))}"))
    if steps and steps[-1].tokens:
        found.append(Figure("Tokens", charts.label(steps[-1].tokens), _speed(record)))
    if record.seconds_used:
        found.append(Figure("Time", format_duration(math.ceil(record.seconds_used)), _attempts(record)))
        micro = spent(record)
        if micro is not None:
            found.append(Figure("Spend", f"{format_cents(micro)} USD", f"at {record.usd_per_hour} USD an hour"))
    return found


def spent(record: Record) -> int | None:
    """Millionths of a USD that the run has cost by its time and price; None when one of them is unknown."""
    if record.seconds_used is None or record.usd_per_hour is None:
        return None
    return math.ceil(Decimal(parse_usd(record.usd_per_hour)) * Decimal(record.seconds_used) / 3600)


def _speed(record: Record) -> str:
    speeds = sorted(p.tokens_per_second for p in record.steps if p.tokens_per_second is not None)
    return f"median {speeds[len(speeds) // 2]:,.0f} a second" if speeds else ""


def _attempts(record: Record) -> str:
    count = len(record.attempts)
    return f"in {count} attempts" if count > 1 else ""


# --- charts -----------------------------------------------------------------------------------------------------------


def _restarts(record: Record) -> list[float]:
    return [float(row.restored_from) for row in record.attempts if row.restored_from]


def _points(record: Record, name: str) -> list[tuple[float, float]]:
    values = ((point.step, getattr(point, name)) for point in record.steps)
    return [(float(step), float(value)) for step, value in values if value is not None]


def loss_chart(record: Record) -> Chart | None:
    """Training loss as logged and smoothed, and the held-out loss; None without a logged step."""
    raw = _points(record, "loss")
    held_out = [
        (float(e["step"]), float(e["eval_loss"]))
        for e in record.evaluations
        if isinstance(e.get("eval_loss"), int | float)
    ]
    many, window = len(raw) > 8, max(len(raw) // 20, 3)
    series = [
        charts.Series("training, as logged", raw, "faint" if many else "line-1"),
        charts.Series("training, averaged", charts.smooth(raw, window) if many else [], "line-1"),
        charts.Series("held out", held_out, "line-2", dots=True),
    ]
    return chart("Loss", series, charts.WIDE, _restarts(record))


def small_charts(record: Record) -> list[Chart | None]:
    """Learning rate, gradient norm, throughput."""
    marks = _restarts(record)
    return [
        chart(title, [charts.Series(title, _points(record, name))], charts.HALF, marks)
        for title, name in (
            ("Learning rate", "learning_rate"),
            ("Gradient norm", "grad_norm"),
            ("Tokens per second", "tokens_per_second"),
        )
    ]


def goodput(record: Record) -> dict[str, Any] | None:
    """Where the time went: the bar, its legend with seconds and shares; None when nobody said."""
    seconds = record.result.goodput_seconds if record.result else None
    if not seconds or sum(seconds.values()) <= 0:
        return None
    total = sum(seconds.values())
    parts = [(words, seconds[name], style) for name, words, style in STATES if seconds.get(name, 0) > 0]
    return {
        "bar": Markup(charts.stacked_bar(parts)),
        "parts": [(words, style, span(s), f"{s / total:.1%}") for words, s, style in parts],
        "share": f"{seconds.get('step', 0) / total:.0%}",
    }


# --- tables -----------------------------------------------------------------------------------------------------------


def metrics(record: Record) -> list[dict[str, Any]]:
    """The evaluation's metrics with their intervals, and the checks that look at each."""
    if record.evidence is None:
        return []
    rows = []
    for metric in record.evidence.metrics:
        checks = [(gate.stage, check) for gate in record.gates for check in gate.checks if check.metric == metric.name]
        threshold = checks[0][1].threshold if checks else None
        rows.append(
            {
                "metric": metric,
                "drawing": Markup(charts.interval(metric.value, metric.lower, metric.upper, threshold)),
                "checks": [(stage, demand(check), check) for stage, check in checks],
            }
        )
    return rows


def unmeasured(record: Record) -> list[tuple[str, list[str]]]:
    """(metric, [stage and demand]) of checks on metrics that the evaluation does not give."""
    known = {metric.name for metric in record.evidence.metrics} if record.evidence else set()
    found: dict[str, list[str]] = {}
    for gate in record.gates:
        for check in gate.checks:
            if check.metric not in known:
                found.setdefault(check.metric, []).append(f"{gate.stage}: {demand(check)}")
    return list(found.items())


def demand(check: CheckStatus) -> str:
    """`upper bound <= 50`."""
    end = "value" if check.bound == "point" else f"{check.bound} bound"
    return f"{end} {check.op} {check.threshold:g}"


def flatten(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text) rows."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += flatten(value, f"{before}{name}.")
        else:
            rows.append((before + name, _text(value)))
    return rows


def sections(manifest: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The manifest's settings by section, those outside of any first."""
    plain = [(name, _text(value)) for name, value in manifest.items() if not isinstance(value, Mapping)]
    nested = [(name, flatten(value)) for name, value in manifest.items() if isinstance(value, Mapping)]
    return ([("general", plain)] if plain else []) + nested


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def statistics(record: Record) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Counts per split of the data, as the trainer counted them."""
    return [
        (str(split), [(str(name).replace("_", " "), value) for name, value in counts.items()])
        for split in ("train", "validation", "test")
        if isinstance(counts := record.data.get(split), Mapping)
    ]


def paths(root: Path) -> list[tuple[str, str]]:
    """Where the run's products lie below the output folder, those that are there."""
    names = (
        (Files.MODEL, "the model"),
        (Files.EVIDENCE, "evidence of the evaluation"),
        (Files.RESULT, "how it ended"),
        (Files.EVENTS, "what happened, line by line"),
        (Files.PLAN, "the plan"),
        (Files.CHECKPOINTS, "checkpoints"),
    )
    return [(name, words) for name, words in names if (root / name).exists()]
