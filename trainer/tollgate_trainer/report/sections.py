"""The report's parts that only some runs have. Each function answers nothing when there is nothing to show."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tollgate_trainer.report import charts
from tollgate_trainer.report.drawing import Chart, chart
from tollgate_trainer.report.format import DASH, between, number, share, size, span
from tollgate_trainer.report.record import Record
from tollgate_trainer.report.told import Check, Samples

MOST_LAYERS = 16
MOST_CLASSES = 30
MOST_WRONG = 8
EXCERPT = 300


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's experts: (share of the tokens' choices, how far the cell is shaded from 0 to 1)."""

    name: str
    cells: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class ExpertsShown:
    """The last figures of the experts. hidden: layers that are not listed, which are more even than those that are."""

    layers: tuple[Layer, ...]
    hidden: int
    step: int
    top_k: int | None
    balance_loss: float | None
    drawing: Chart | None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of planned against actual."""

    name: str
    planned: str
    actual: str
    note: str = ""


def outlook(record: Record) -> list[Row]:
    """Time and cost as they were planned and as they came. What nobody planned, or measured, is a dash."""
    said = record.outlook
    if said is None:
        return []
    rows = []
    if said.planned_hours is not None or said.actual_hours is not None:
        planned = None if said.planned_hours is None else (said.planned_hours[0] * 3600, said.planned_hours[1] * 3600)
        actual = None if said.actual_hours is None else said.actual_hours * 3600
        rows.append(Row("Time of the run", between(planned), span(actual), _held(planned, actual, said.finished)))
    if said.planned_usd is not None or said.actual_usd is not None:
        rows.append(
            Row(
                "Cost",
                between(said.planned_usd, _usd),
                DASH if said.actual_usd is None else _usd(said.actual_usd),
                _held(said.planned_usd, said.actual_usd, said.finished),
            )
        )
    if said.forecast_low is not None and said.forecast_high is not None and said.actual_seconds is not None:
        ends = (said.forecast_low, said.forecast_high)
        name = f"What was left at step {number(said.forecast_at_step)}"
        rows.append(Row(name, between(ends), span(said.actual_seconds), _held(ends, said.actual_seconds, True)))
    return rows


def _usd(amount: float) -> str:
    return f"{amount:,.2f} USD" if amount >= 0.01 else f"{amount:.2g} USD"


def _held(planned: tuple[float, float] | None, actual: float | None, finished: bool) -> str:
    if not finished:
        return "stopped before its end"
    if planned is None or actual is None:
        return ""
    low, high = planned
    if low <= actual <= high:
        return "as planned"
    if actual > high:
        return f"{actual / high:.1f} times the upper end" if high > 0 else "above"
    return f"{share(actual / low, 0)} of the lower end"


def memory(record: Record) -> list[tuple[str, str]]:
    """The estimate of memory by part, with the limit; nothing where none was made."""
    parts = record.plan.get("memory")
    if not isinstance(parts, Mapping):
        return []
    known = {str(name): amount for name, amount in parts.items() if isinstance(amount, int)}
    rows = [(name.replace("_", " "), size(amount)) for name, amount in known.items() if name != "total"]
    rows.append(("in all", size(sum(amount for name, amount in known.items() if name != "total"))))
    if isinstance(limit := record.plan.get("memory_limit"), int):
        rows.append(("there is", size(limit)))
    return rows


def changes(record: Record) -> list[str]:
    """What the plan chose in the place of the manifest."""
    found = record.plan.get("changes")
    return [str(change) for change in found] if isinstance(found, list) else []


def experts(record: Record) -> ExpertsShown | None:
    """The use of the experts of each layer at the end, the most uneven layers first, and its evenness over time."""
    if not record.experts:
        return None
    last = record.experts[-1]
    usage = {name: shares for name, shares in last.usage.items() if shares}
    chosen = sorted(usage, key=lambda name: -max(usage[name]) * len(usage[name]))[:MOST_LAYERS]
    listed = [name for name in usage if name in chosen]
    cut = len(_shared(listed))
    lines = [
        charts.Series(
            title, [(float(e.step), value) for e in record.experts if (value := getattr(e, field)) is not None], style
        )
        for title, field, style in (
            ("use of the experts", "load_entropy", "line-1"),
            ("choice for a token", "routing_entropy", "line-2"),
        )
    ]
    return ExpertsShown(
        layers=tuple(
            Layer(name[cut:], tuple((share(part, 0), min(1.0, part / max(usage[name]))) for part in usage[name]))
            for name in listed
        ),
        hidden=len(usage) - len(listed),
        step=last.step,
        top_k=last.top_k,
        balance_loss=last.balance_loss,
        drawing=chart("Evenness (1: all experts alike)", lines, charts.WIDE, []),
    )


def _shared(names: Sequence[str]) -> str:
    """What all dotted names begin with, in whole parts and up to a dot; of one name nothing."""
    parts = [name.split(".")[:-1] for name in names]
    same = itertools.takewhile(lambda group: len(set(group)) == 1, zip(*parts, strict=False))
    return "".join(f"{group[0]}." for group in same) if len(names) > 1 else ""


def data_facts(record: Record) -> list[tuple[str, str]]:
    """Where documents came from, what was redacted, how rows were filled, how they were read."""
    rows: list[tuple[str, str]] = []
    for field, name in (("sources", "sources"), ("redacted", "redacted"), ("answers", "answers"), ("cache", "cache")):
        counts = record.data.get(field)
        if isinstance(counts, Mapping) and counts:
            rows.append((name, ", ".join(f"{key} {number(value)}" for key, value in counts.items())))
    packing = record.packing
    if packing is not None:
        if packing.on and packing.fill is not None:
            text = (
                f"{number(packing.documents)} documents in {number(packing.rows)} rows of {number(packing.row_tokens)} "
                f"tokens, {share(packing.fill)} full; padding {share(packing.padding)}, without packing "
                f"{share(packing.padding_without)}"
            )
        else:
            text = ("on" if packing.on else "off") + (f": {packing.because}" if packing.because else "")
        rows.append(("packing", text))
    if record.reading is not None:
        because = f" ({record.reading.because})" if record.reading.because else ""
        rows.append(("reading processes", f"{record.reading.workers}{because}"))
    if record.compiled is not None:
        took = f" in {span(record.compiled.seconds)}" if record.compiled.on and record.compiled.seconds else ""
        because = f": {record.compiled.because}" if record.compiled.because else ""
        rows.append(("compiled", ("yes" if record.compiled.on else "no") + took + because))
    return rows


def checks(record: Record) -> list[Check]:
    """What preflight looked at before the first step."""
    return list(record.preflight)


def samples(record: Record) -> list[tuple[str, list[tuple[int, str]]]]:
    """(prompt, [(step, what was written)]): the first, a middle and the last evaluation, so that change is seen."""
    told: list[Samples] = list(record.samples)
    if not told:
        return []
    last = told[-1]
    shown = sorted({0, len(told) // 2, len(told) - 1})
    found = []
    for one in last.samples:
        texts = [
            (told[index].step, match.text[:EXCERPT])
            for index in shown
            if (match := next((s for s in told[index].samples if s.prompt == one.prompt), None)) is not None
        ]
        found.append((one.prompt[-EXCERPT:], texts))
    return found


def classes(record: Record) -> dict[str, Any] | None:
    """The table of the classes, the confusion matrix with shaded cells, and the most wrong documents."""
    found = record.classes
    if found is None:
        return None
    few = len(found.labels) <= MOST_CLASSES
    matrix = [
        (label, [(count, count / max(1, sum(row)), place == at) for at, count in enumerate(row)])
        for place, (label, row) in enumerate(zip(found.labels, found.confusion, strict=True))
    ]
    return {
        "documents": found.documents,
        "labels": found.labels,
        "rows": [
            (c.label, number(c.support), number(c.predicted), *map(_fraction, (c.precision, c.recall, c.f1)))
            for c in found.classes
        ],
        "matrix": matrix if few else [],
        "worst": found.worst[:MOST_WRONG],
    }


def _fraction(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def spans(record: Record) -> dict[str, Any] | None:
    """How no answer was decided, and the worst answers."""
    found = record.spans
    if found is None:
        return None
    if found.threshold is None:
        threshold = "A span is always given: no training document is without an answer."
    else:
        how = (
            f"chosen on {found.calibrated_on} other held-out documents"
            if found.calibrated_on is not None
            else "not chosen: too few held-out documents with and without an answer"
        )
        threshold = f"No answer is given when it scores more than {found.threshold:.3f} above the span ({how})."
    return {
        "documents": found.documents,
        "silent": found.without_answer,
        "threshold": threshold,
        "worst": found.worst[:MOST_WRONG],
    }
