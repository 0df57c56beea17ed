"""Data files as rows that can be written again: each record as it stood in the file, with the document it makes.

What is written is whole or not there: beside its place, read back and compared, then renamed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollgate_trainer.data.document import Document
from tollgate_trainer.data.documents import SUFFIXES, Form, Tally
from tollgate_trainer.data.formats import documents_of
from tollgate_trainer.data.records import Refuse, at_once, paragraphs, records
from tollgate_trainer.durable import flush_folder
from tollgate_trainer.refusal import DatasetRefused


@dataclass(frozen=True, slots=True)
class Row:
    """One document and what the file said. record: of a plain text {"text": ...}."""

    record: Mapping[str, Any]
    document: Document


@dataclass(frozen=True, slots=True)
class Table:
    """A file. whole: the JSON object around `conversations` (without them), or None; left_out: records that make no
    document, because their answers do not stand in their text.
    """

    path: Path
    rows: tuple[Row, ...]
    whole: Mapping[str, Any] | None = None
    is_list: bool = False
    left_out: int = 0


def load(path: Path, shown: str, form: Form, refuse: Refuse = at_once) -> Table:
    """All rows of one file. Raises: DatasetRefused, also for a folder.

    Args: refuse: gets each record that can't be read; when it returns, the others are read.
    """
    if path.is_dir():
        raise DatasetRefused(f"{shown} is a folder; name one of its files, because the answer is written as one file")
    if not path.is_file():
        raise DatasetRefused(f"{shown} does not exist; correct the path", "dataset.path")
    if path.suffix == ".txt":
        if form.format not in ("auto", "text"):
            raise DatasetRefused(f"{shown} is plain text but --format is {form.format}", "dataset.format")
        made = tuple(Row({"text": text}, Document(text, origin)) for origin, text in paragraphs(path, shown))
        return Table(path, _some(made, shown))
    tally = Tally()
    rows: list[Row] = []
    left_out = count = 0
    whole: Mapping[str, Any] | None = None
    is_list = False
    for origin, record in records(path, shown, refuse):
        count += 1
        is_list = is_list or (path.suffix == ".json" and origin.endswith("]"))
        try:
            found = [Row(part, document) for part, document in _parts(record, origin, form, tally)]
        except DatasetRefused as error:
            refuse(error)
            continue
        left_out += not found
        rows += found
        if path.suffix == ".json" and not is_list and isinstance(record, dict) and "conversations" in record:
            whole = {key: value for key, value in record.items() if key != "conversations"}
    tally.check()
    return Table(
        path,
        tuple(rows) if refuse is not at_once else _some(tuple(rows), shown),
        whole if count == 1 else None,
        is_list,
        left_out,
    )


def _some(rows: tuple[Row, ...], shown: str) -> tuple[Row, ...]:
    if not rows:
        raise DatasetRefused(f"{shown} holds no document", "dataset.path")
    return rows


def _parts(record: Any, origin: str, form: Form, tally: Tally) -> Iterator[tuple[Mapping[str, Any], Document]]:
    documents = list(documents_of(record, origin, form, tally))
    entries = record.get("conversations")
    if form.format in ("auto", "conversations") and isinstance(entries, list) and len(entries) == len(documents):
        rest = {key: value for key, value in record.items() if key != "conversations"}
        for entry, document in zip(entries, documents, strict=True):
            yield {**rest, "conversations": [entry]}, document
        return
    for document in documents:
        yield record, document


# --- writing ----------------------------------------------------------------------------------------------------------


def like(table: Table, rows: Sequence[Row], suffix: str) -> bytes:
    """Rows of a table as a file of the same shape. suffix: of the file; the same as the table's."""
    kept = [dict(row.record) for row in rows]
    if suffix == ".parquet":
        return _parquet(kept, _schema(table.path))
    if suffix == ".json" and table.whole is not None:
        entries = [entry for record in kept for entry in record["conversations"]]
        return _pretty({**table.whole, "conversations": entries})
    if suffix == ".json" and not table.is_list and len(table.rows) > 1:
        return encoded(kept, ".jsonl")  # JSON lines under another name
    return encoded(kept, suffix)


def encoded(kept: Sequence[Mapping[str, Any]], suffix: str) -> bytes:
    """Records as the bytes of a file. suffix: one of SUFFIXES.

    Raises: DatasetRefused when a record cannot stand in such a file.
    """
    if suffix == ".jsonl":
        return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in kept)
    if suffix == ".json":
        return _pretty(list(kept))
    if suffix in (".csv", ".tsv"):
        return _csv(kept, "," if suffix == ".csv" else "\t")
    if suffix == ".parquet":
        return _parquet(kept, None)
    if suffix == ".txt":
        return ("\n\n".join(_paragraph(record) for record in kept) + "\n").encode()
    raise DatasetRefused(f"files of type {suffix or '(none)'} are not written; use one of {', '.join(SUFFIXES)}")


def _pretty(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"


def _paragraph(record: Mapping[str, Any]) -> str:
    text = str(record["text"])
    if any(not line.strip() for line in text.splitlines()):
        raise DatasetRefused(
            f"the text {text[:40]!r} has a blank line in it, which separates documents in a .txt; write .jsonl instead"
        )
    return text


def _csv(kept: Sequence[Mapping[str, Any]], delimiter: str) -> bytes:
    columns = list(dict.fromkeys(key for record in kept for key in record))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    for record in kept:
        cells = []
        for column in columns:
            value = record.get(column)
            if isinstance(value, dict | list):
                raise DatasetRefused(
                    f"the field {column!r} holds {type(value).__name__} {str(value)[:60]!r}, and a table's cell holds "
                    "text; write .jsonl or .parquet instead"
                )
            cells.append("" if value is None else value)
        writer.writerow(cells)
    return out.getvalue().encode()


def _schema(path: Path) -> Any:
    import pyarrow.parquet as parquet

    return parquet.read_schema(path)


def _parquet(kept: Sequence[Mapping[str, Any]], schema: Any) -> bytes:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    out = io.BytesIO()
    try:
        parquet.write_table(arrow.Table.from_pylist([dict(record) for record in kept], schema=schema), out)
    except arrow.ArrowException as error:
        raise DatasetRefused(f"the records have fields of different types, so they are no table: {error}") from error
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Output:
    """A file to be written, what it holds, and what must be read from it again (None: not compared)."""

    path: Path
    data: bytes
    documents: Sequence[Document]


def write(outputs: Sequence[Output], form: Form, force: bool) -> None:
    """All files or none. Each is read back before any takes its place.

    Raises: DatasetRefused when a file exists and `force` is not given, or would not read as what was written; OSError.
    """
    for output in outputs:
        if output.path.is_dir():
            raise DatasetRefused(f"{output.path} is a folder; name a file")
        if output.path.exists() and not force:
            raise DatasetRefused(f"{output.path} exists; name another file, or add --force to write over it")
        output.path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(outputs) as places:
        for output, place in zip(outputs, places, strict=True):
            place.write_bytes(output.data)
            place.chmod(0o644)
            with place.open("rb") as file:
                os.fsync(file.fileno())
            _compare(place, output, form)
        for output, place in zip(outputs, places, strict=True):
            os.replace(place, output.path)
    for folder in {output.path.parent for output in outputs}:
        flush_folder(folder)


@contextmanager
def _beside(outputs: Sequence[Output]) -> Iterator[list[Path]]:
    """A name beside each output, with its suffix, which says how it is read; nothing is left there in the end."""
    places: list[Path] = []
    try:
        for output in outputs:
            handle, name = tempfile.mkstemp(
                dir=output.path.parent, prefix=f".{output.path.stem}.", suffix=output.path.suffix
            )
            os.close(handle)
            places.append(Path(name))
        yield places
    finally:
        for place in places:
            with suppress(FileNotFoundError):
                place.unlink()


def _compare(place: Path, output: Output, form: Form) -> None:
    again = [row.document for row in load(place, output.path.name, form).rows] if output.documents else []
    if len(again) != len(output.documents):
        raise DatasetRefused(
            f"{output.path} would hold {len(again):,} documents instead of {len(output.documents):,}; nothing was "
            "written. Use another file type"
        )
    for wanted, found in zip(output.documents, again, strict=True):
        if _content(wanted) != _content(found):
            raise DatasetRefused(
                f"{wanted.origin} would not read back from {output.path} as it is (line ends, or white space at its "
                "ends); nothing was written. Use .jsonl, which keeps every character"
            )


def _content(document: Document) -> tuple[Any, ...]:
    return document.text, document.messages, document.label, document.question, document.answers
