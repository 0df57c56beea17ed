"""`tollgate dataset`: analyze, preview, validate, sample, split, convert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tollgate_cli.helping import ending
from tollgate_trainer.data.document import Document
from tollgate_trainer.dataset import packed, show, show_findings, show_lesson, validating
from tollgate_trainer.dataset.edge import JSON, TOKENIZER, DatasetError, counting, document, measured, reading
from tollgate_trainer.dataset.leakage import THRESHOLD
from tollgate_trainer.dataset.lesson import Sums, segments, spread, sums, warnings
from tollgate_trainer.dataset.making import convert, sample, split
from tollgate_trainer.dataset.measure import Measure, encoded, lengths
from tollgate_trainer.dataset.show_lesson import Shown
from tollgate_trainer.dataset.statistics import Statistics, statistics
from tollgate_trainer.dataset.subject import Given, format_of, parts


@click.group(
    epilog=ending(
        "tollgate dataset analyze data.jsonl       # a first look at a file",
        "tollgate dataset preview manifest.yaml    # what a model would learn",
    )
)
def dataset() -> None:
    """Look at training data, check it, and make files of it.

    MANIFEST|DATA is a training manifest, whose data is read as the trainer reads it, or a file of data (.json, .jsonl,
    .csv, .parquet, .txt) or a folder of such files.
    """


@dataset.command(
    epilog=ending("tollgate dataset analyze manifest.yaml", "tollgate dataset analyze data.jsonl --words -o json")
)
@reading
@counting
@JSON
def analyze(subject: Given, tokenizer: Path | None, words: bool, form: str) -> int:
    """Count what is there: lengths, duplicates, labels, roles, sources.

    With a manifest each split is told by itself, and lengths are held against its max_seq_length.
    """
    found = parts(subject)
    unit = measured(subject, found[0].documents, tokenizer, words)
    limit = subject.limit if unit.tokenizer is not None else None
    figures = {part.name: statistics(part.documents, lengths(part.documents, unit), limit) for part in found}
    if form == "json":
        click.echo(json.dumps(_document(subject, unit, limit, figures), indent=2))
    else:
        show.analysis(Console(), subject.shown, unit, limit, figures)
    return 0


@dataset.command(epilog=ending("tollgate dataset preview manifest.yaml -n 2"))
@reading
@click.option("-n", "count", type=click.IntRange(min=0), default=3, show_default=True, help="Documents to show.")
@click.option("--max-length", type=click.IntRange(min=8), help="Cut at so many tokens.  [default: max_seq_length]")
@TOKENIZER
@JSON
def preview(subject: Given, count: int, max_length: int | None, tokenizer: Path | None, form: str) -> int:
    """Show what a model is taught, token by token.

    The rendered template, and which tokens carry loss. Documents are taken evenly from the training split. The figures
    at the end are over all of it. With packing the rows of the first batch follow.
    """
    part = parts(subject)[0]
    limit = max_length or subject.limit
    if any(each.label is not None or each.answers is not None for each in part.documents):
        chosen = [Shown(place, part.documents[place], None, None) for place in spread(len(part.documents), count)]
        if form == "json":
            targets = [_target(one.document) for one in chosen]
            click.echo(json.dumps({"source": subject.shown, "maxSeqLength": limit, "documents": targets}, indent=2))
            return 0
        show_lesson.preview(Console(), chosen, len(part.documents), part.name)
        return 0
    unit = measured(subject, part.documents, tokenizer, False)
    assert unit.tokenizer is not None
    samples = list(encoded(part.documents, unit.tokenizer))
    whole = sums(part.documents, samples, limit)
    alarms = warnings(whole, any(document.messages for document in part.documents), limit)
    chosen = [
        Shown(place, part.documents[place], segments(samples[place], limit, unit.tokenizer), len(samples[place].labels))
        for place in spread(len(samples), count)
    ]
    rows = packed.packed(subject.manifest, part.documents, samples, limit, count) if subject.own and limit else None
    if form == "json":
        lesson = _lesson(subject, unit.how, limit, whole, alarms, chosen)
        click.echo(json.dumps(lesson | ({"packing": document(rows)} if rows else {}), indent=2))
        return 0
    console = Console()
    show.line(console, subject.shown, "bold")
    show.line(console, unit.how, "dim")
    show_lesson.preview(console, chosen, len(samples), part.name)
    show_lesson.totals(console, part.name, whole, limit)
    if rows is not None:
        packed.show(console, rows)
    show_lesson.warn(console, alarms)
    return 0


def _target(taught: Document) -> dict[str, Any]:
    """What a task with targets is taught by one document; `answers` is empty where the text has none."""
    told = {"label": taught.label, "question": taught.question}
    answers = {} if taught.answers is None else {"answers": [document(answer) for answer in taught.answers]}
    return {"origin": taught.origin, "text": taught.text} | {k: v for k, v in told.items() if v is not None} | answers


def _lesson(
    subject: Given, how: str, limit: int | None, whole: Sums, alarms: list[str], chosen: list[Shown]
) -> dict[str, Any]:
    return {
        "source": subject.shown,
        "counted": how,
        "maxSeqLength": limit,
        "trainedShare": whole.share,
        "sums": document(whole),
        "warnings": alarms,
        "documents": [{"origin": one.document.origin, "segments": document(one.segments)} for one in chosen],
    }


@dataset.command(
    epilog=ending(
        "tollgate dataset validate manifest.yaml",
        "tollgate dataset validate train.jsonl --against test.jsonl",
        then="Exit codes: 0 without errors, 1 with errors (with --strict also with warnings), 2 wrong usage, 64 "
        "what cannot be looked at.",
    )
)
@reading
@click.option(
    "--against",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Another split of a data file, to look for leakage; can be repeated.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=THRESHOLD,
    show_default=True,
    help="Jaccard similarity from which two texts are nearly the same.",
)
@click.option("--min-per-label", type=click.IntRange(min=1), default=10, show_default=True, help="Examples per label.")
@click.option("--strict", is_flag=True, help="Warnings fail, too.")
@counting
@JSON
def validate(
    subject: Given,
    against: tuple[Path, ...],
    threshold: float,
    min_per_label: int,
    strict: bool,
    tokenizer: Path | None,
    words: bool,
    form: str,
) -> int:
    """Look for what spoils a training, before it is paid for.

    Records that can't be read, duplicates, texts that leak between splits (also nearly the same ones), lengths, labels,
    roles, and what looks like personal data.
    """
    if against and subject.own:
        raise DatasetError(
            "--against goes with a data file; a manifest's held-out file is dataset.splits.validation_path"
        )

    def measure_of(train: tuple[Document, ...]) -> Measure | None:
        return None if words else measured(subject, train, tokenizer, False)

    report = validating.validate(subject, against, measure_of, threshold, min_per_label)
    failed = report.failed(strict)
    if form == "json":
        answer = {"source": subject.shown, "passed": not failed, "strict": strict, **document(report)}
        click.echo(json.dumps(answer, indent=2))
    else:
        console = Console()
        show.line(console, subject.shown, "bold")
        counts = ", ".join(f"{name} {show.plural(count, 'document')}" for name, count in report.parts.items())
        show.line(console, counts or "no document can be read", "dim")
        show_findings.findings(console, report.findings)
        show_findings.verdict(console, report.findings, report.checked)
    return 1 if failed else 0


def _document(subject: Given, unit: Measure, limit: int | None, figures: dict[str, Statistics]) -> dict[str, Any]:
    return {
        "source": subject.shown,
        "format": format_of(subject),
        "unit": unit.unit,
        "counted": unit.how,
        "vocabulary": None if unit.tokenizer is None else len(unit.tokenizer),
        "maxSeqLength": limit,
        "parts": {name: document(each) for name, each in figures.items()},
    }


for _command in (sample, split, convert):
    dataset.add_command(_command)
