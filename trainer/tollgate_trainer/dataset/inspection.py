"""Reading a file to the end although some of its records are wrong, so that all problems are told at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollgate_trainer.data.document import Document
from tollgate_trainer.data.documents import SUFFIXES, Form, Tally, files_of
from tollgate_trainer.data.formats import documents_of
from tollgate_trainer.data.records import Refuse, paragraphs, records
from tollgate_trainer.refusal import DatasetRefused


@dataclass(frozen=True, slots=True)
class Inspected:
    """documents: of the records that can be read; problems: one of each record that can't, in the order of the file.

    stopped: files that could not be read to their end (they are not UTF-8, no JSON, no CSV), by their names.
    """

    documents: tuple[Document, ...]
    problems: tuple[DatasetRefused, ...]
    stopped: tuple[str, ...]


def inspect(path: Path, form: Form, name: str) -> Inspected:
    """Args: path: a file or folder; form: how records are read; name: the path as messages say it.

    Raises: DatasetRefused when there is nothing at the path.
    """
    documents: list[Document] = []
    problems: list[DatasetRefused] = []
    stopped: list[str] = []
    tally = Tally()
    for file in files_of(path, name):
        if path.is_dir() and file.suffix not in SUFFIXES:
            continue
        shown = name if file == path else f"{name}/{file.relative_to(path).as_posix()}"
        try:
            for record, origin in _records(file, shown, form, problems.append):
                if isinstance(record, str):
                    documents.append(Document(record, origin))
                    continue
                for problem_or_document in _each(record, origin, form, tally):
                    if isinstance(problem_or_document, Document):
                        documents.append(problem_or_document)
                    else:
                        problems.append(problem_or_document)
        except DatasetRefused as error:
            problems.append(error)
            stopped.append(shown)
    try:
        tally.check()
    except DatasetRefused as error:
        problems.append(error)
    return Inspected(tuple(documents), tuple(problems), tuple(stopped))


def _records(file: Path, shown: str, form: Form, refuse: Refuse) -> Iterator[tuple[Any, str]]:
    """(record, or the text of a plain text's document, and where it stands)."""
    if file.suffix == ".txt":
        if form.format not in ("auto", "text"):
            raise DatasetRefused(f"{shown} is plain text but dataset.format is {form.format}", "dataset.format")
        yield from ((text, origin) for origin, text in paragraphs(file, shown))
        return
    for origin, record in records(file, shown, refuse):
        yield ([record] if isinstance(record, str) else record), origin


def _each(record: Any, origin: str, form: Form, tally: Tally) -> Iterator[Document | DatasetRefused]:
    """A record's documents; of `conversations` each entry by itself, so that one wrong entry hides no other."""
    entries = record.get("conversations") if isinstance(record, dict) else None
    if form.format in ("auto", "conversations") and isinstance(entries, list) and entries:
        rest = {key: value for key, value in record.items() if key != "conversations"}
        for index, entry in enumerate(entries):
            try:
                for document in documents_of({**rest, "conversations": [entry]}, origin, form, tally):
                    where = f"{origin}.conversations[{index}]"
                    yield Document(document.text, where, document.messages, group=document.group)
            except DatasetRefused as error:
                right = str(error.args[0]).replace(".conversations[0]", f".conversations[{index}]", 1)
                yield DatasetRefused(right, error.field)
        return
    try:
        yield from documents_of(record, origin, form, tally)
    except DatasetRefused as error:
        yield error
