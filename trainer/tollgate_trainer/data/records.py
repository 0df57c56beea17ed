"""Files as records: (origin, mapping) of JSON, JSON lines, CSV, TSV and Parquet, read as they are asked for.

`origin` is what messages call a record: file:line, or file row N where a file has no lines.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tollgate_trainer.data import mending
from tollgate_trainer.refusal import DatasetRefused

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt")
BATCH = 1000
"""Rows of a Parquet file that are in memory at a time."""

Record = tuple[str, Any]
Refuse = Callable[[DatasetRefused], None]


def at_once(refused: DatasetRefused) -> None:
    """What a training does about a line or a row that can't be read."""
    raise refused


def records(file: Path, shown: str, refuse: Refuse = at_once) -> Iterator[Record]:
    """The records of a file by its suffix; a file without a known one is read as JSON.

    Args: refuse: gets each line or row that can't be read by itself; when it returns, the rest of the file is read.
    Raises: DatasetRefused, while iterating, for what ends the file.
    """
    if file.suffix in (".csv", ".tsv"):
        return _csv(file, shown, refuse)
    if file.suffix == ".parquet":
        return _parquet(file, shown)
    return _json(file, shown, refuse)


def paragraphs(file: Path, shown: str) -> Iterator[tuple[str, str]]:
    """(origin, text) of a plain text whose documents are separated by blank lines."""
    held: list[str] = []
    first = 1
    for number, line in lines(file, shown):
        if line.strip():
            if not held:
                first = number
            held.append(line)
        elif held:
            yield f"{shown}:{first}", "\n".join(held)
            held = []
    if held:
        yield f"{shown}:{first}", "\n".join(held)


def lines(file: Path, shown: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end).

    Raises: DatasetRefused when the file cannot be read or is not UTF-8.
    """
    try:
        with file.open(encoding="utf-8-sig") as opened:
            for number, line in enumerate(opened, 1):
                yield number, line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise DatasetRefused(mending.encoding(file, shown), "dataset.path") from error
    except OSError as error:
        raise DatasetRefused(f"{shown} cannot be read: {error}", "dataset.path") from error


def _json(file: Path, shown: str, refuse: Refuse) -> Iterator[Record]:
    """JSON lines when the first line is an object of its own and not the only one; else one JSON document."""
    filled = ((number, line) for number, line in lines(file, shown) if line.strip())
    start, second = next(filled, None), next(filled, None)
    if start is None:
        return
    if second is not None and _is_object(start[1]):
        for number, line in itertools.chain((start, second), filled):
            try:
                record = json.loads(line)
            except ValueError as error:
                fault = mending.json_fault(error, line, one_line=True)
                refuse(DatasetRefused(f"{shown}:{number} is not JSON: {fault}", "dataset.path"))
                continue
            yield f"{shown}:{number}", record
        return
    text = "\n".join(line for _, line in lines(file, shown))
    try:
        whole = json.loads(text)
    except ValueError as error:
        fault = mending.json_fault(error, text, one_line=False)
        raise DatasetRefused(f"{shown} is not JSON: {fault}", "dataset.path") from error
    for index, record in enumerate(whole if isinstance(whole, list) else [whole]):
        yield (f"{shown}[{index}]" if isinstance(whole, list) else shown), record


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _csv(file: Path, shown: str, refuse: Refuse) -> Iterator[Record]:
    """Rows as mappings by the header. Every row must have exactly the header's fields; empty rows say nothing."""
    csv.field_size_limit(sys.maxsize)  # the library's limit of 128 KB is shorter than many documents
    raw = (line + "\n" for _, line in lines(file, shown))
    reader = csv.reader(raw, delimiter="\t" if file.suffix == ".tsv" else _delimiter(file, shown), strict=True)
    begins = 1
    header: list[str] = []
    try:
        for row in reader:
            number, begins = begins, reader.line_num + 1
            if not any(cell.strip() for cell in row):
                continue  # a spreadsheet leaves such rows behind its table
            if not header:
                header = _header(row, f"{shown}:{number}")
                continue
            if len(row) != len(header):
                refuse(DatasetRefused(_misfit(row, header, f"{shown}:{number}"), "dataset.path"))
                continue
            yield f"{shown}:{number}", dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DatasetRefused(
            f"{shown}:{begins}: the row that begins here is not CSV ({error}); a field with quotes, commas or line "
            'breaks stands in "..." and quotes in it are doubled',
            "dataset.path",
        ) from error


def _delimiter(file: Path, shown: str) -> str:
    """Of a `.csv`: a comma, or what parts the header where it has none: Excel writes semicolons in half of Europe."""
    header = next((line for _, line in lines(file, shown) if line.strip()), "")
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def _header(row: list[str], origin: str) -> list[str]:
    names = [name.strip() for name in row]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DatasetRefused(f"{origin}: the header names {', '.join(map(repr, twice))} twice", "dataset.path")
    return names


def _misfit(row: list[str], header: list[str], origin: str) -> str:
    if len(row) < len(header):
        return (
            f"{origin}: the row has {len(row)} fields, the header {len(header)}; the first that is missing is "
            f"{header[len(row)]!r}"
        )
    return (
        f"{origin}: the row has {len(row)} fields, the header {len(header)}; {row[len(header)][:40]!r} comes after "
        f"the last, {header[-1]!r}: put a field that holds a comma in quotes"
    )


def _parquet(file: Path, shown: str) -> Iterator[Record]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(file) as opened:
            number = 0
            for batch in opened.iter_batches(batch_size=BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{shown} row {number}", row
    except (OSError, arrow.ArrowException) as error:
        raise DatasetRefused(f"{shown} cannot be read as Parquet: {error}", "dataset.path") from error
