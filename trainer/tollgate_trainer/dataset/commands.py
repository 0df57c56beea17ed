"""`tollgate dataset`: analyze, preview, validate, sample, split, convert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tollgate_trainer.dataset import show
from tollgate_trainer.dataset.edge import JSON, counting, document, measured, reading
from tollgate_trainer.dataset.measure import lengths
from tollgate_trainer.dataset.statistics import Statistics, statistics
from tollgate_trainer.dataset.subject import Given, parts


@click.group(
    epilog="A first look at a file of your own:  tollgate dataset analyze data.jsonl  "
    "and what a model would learn from it:  tollgate dataset preview manifest.yaml"
)
def dataset() -> None:
    """Look at training data, check it, and make files of it.

    MANIFEST|DATA is a training manifest, whose data is read as the trainer reads it, or a file of data (.json, .jsonl,
    .csv, .parquet, .txt) or a folder of such files.
    """


@dataset.command(epilog="Example:  tollgate dataset analyze examples/manifest.yaml")
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
        click.echo(json.dumps(_document(subject.shown, unit.unit, unit.how, limit, figures), indent=2))
    else:
        show.analysis(Console(), subject.shown, unit, limit, figures)
    return 0


def _document(source: str, unit: str, how: str, limit: int | None, figures: dict[str, Statistics]) -> dict[str, Any]:
    return {
        "source": source,
        "unit": unit,
        "counted": how,
        "maxSeqLength": limit,
        "parts": {name: document(each) for name, each in figures.items()},
    }
