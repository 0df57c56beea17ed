"""Reading training documents: one type for all formats, errors that name file, line and fix.

The suffix says how a file is read (records.py), `dataset.format` what its records mean (formats.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tollgate_trainer.data.document import ROLES, Answer, Document, Message
from tollgate_trainer.data.formats import Form, documents_of, expected
from tollgate_trainer.data.records import SUFFIXES, paragraphs, records
from tollgate_trainer.data.spans import Tally
from tollgate_trainer.extensions import DatasetSource
from tollgate_trainer.refusal import DatasetRefused

__all__ = ["ROLES", "SUFFIXES", "Answer", "Document", "Form", "Message", "Tally", "files_of", "read", "stream"]


def read(path: Path, form: Form, name: str) -> list[Document]:
    """All documents of a file, or of the files of a folder in the order of their names.

    Args: path: what to read; form: how; name: the path as the manifest says it, for messages.
    Raises: DatasetRefused, also when more than 1 % of the answers are not in their text.
    """
    tally = Tally()
    documents = list(stream(path, form, name, tally))
    tally.check()
    return documents


def stream(path: Path, form: Form, name: str, tally: Tally, reader: DatasetSource | None = None) -> Iterator[Document]:
    """The documents one by one, so that a file need not fit into memory; answers are counted in `tally`.

    Args: reader: reads all files, whatever their suffix.
    Raises: DatasetRefused, while iterating.
    """
    empty = True
    for file in files_of(path, name):
        shown = name if file == path else f"{name}/{file.relative_to(path).as_posix()}"
        if path.is_dir() and file.suffix not in SUFFIXES and reader is None:
            continue
        found = _read_file(file, shown, form, tally) if reader is None else _read_by(reader, file, shown, form, tally)
        for document in found:
            empty = False
            yield document
    if empty and path.is_file() and not path.stat().st_size:
        raise DatasetRefused(f"{name} is an empty file: it holds no document", "dataset.path")
    if empty and not tally.unaligned:
        raise DatasetRefused(f"{name} holds no document; expected {expected(form)}", "dataset.path")


def _read_by(reader: DatasetSource, file: Path, shown: str, form: Form, tally: Tally) -> Iterator[Document]:
    try:
        for origin, record in reader.records(file):
            yield from documents_of(record, origin, form, tally)
    except (OSError, ValueError) as error:
        raise DatasetRefused(f"{shown} can't be read by extensions.dataset_source: {error}", "dataset.path") from error


def files_of(path: Path, name: str) -> list[Path]:
    """The file itself, or every file below a folder sorted by its relative path; hidden ones are left out."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DatasetRefused(
            f"{name} does not exist below the dataset root ({path}); put it there or correct the path", "dataset.path"
        )
    found = (file for file in path.rglob("*") if file.is_file())
    return sorted(
        (f for f in found if not any(part.startswith(".") for part in f.relative_to(path).parts)),
        key=lambda file: file.relative_to(path).as_posix(),
    )


def _read_file(file: Path, shown: str, form: Form, tally: Tally) -> Iterator[Document]:
    if file.suffix == ".txt":
        if form.format not in ("auto", "text"):
            raise DatasetRefused(f"{shown} is plain text but dataset.format is {form.format}", "dataset.format")
        for origin, text in paragraphs(file, shown):
            yield Document(text, origin)
        return
    for origin, record in records(file, shown):
        yield from documents_of(record, origin, form, tally)
