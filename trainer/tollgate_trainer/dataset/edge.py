"""What the dataset commands share: how they are given data, and how they refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from tollgate.contract import ExitCode
from tollgate.manifest.sections import Dataset
from tollgate_cli.options import Named, form, overriding
from tollgate_cli.wishes import Wishes
from tollgate_trainer.data.document import Document
from tollgate_trainer.dataset import measure
from tollgate_trainer.dataset.measure import Measure
from tollgate_trainer.dataset.subject import Given, given
from tollgate_trainer.refusal import Refused

C = TypeVar("C", bound=Callable[..., Any])

FILE = click.argument(
    "file",
    metavar="MANIFEST|DATA",
    type=Named("Name a manifest, a data file or a folder of data files.", folders=True),
)
JSON = form("text", "json")
FORMATS: tuple[str, ...] = get_args(Dataset.model_fields["format"].annotation)
FORMAT = click.option(
    "--format",
    "format",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help=f"Of a data file: {', '.join(FORMATS)}.  [default: by what it holds]",
)
TEXT_FIELD = click.option("--text-field", metavar="NAME", help="Where a data file's text stands.  [default: text]")
LABEL_FIELD = click.option("--label-field", metavar="NAME", help="Where a data file's label stands.  [default: label]")
GROUP_FIELD = click.option("--group-field", metavar="NAME", help="Records with one value here belong together.")
ROOT = click.option(
    "--dataset-root",
    type=click.Path(file_okay=False, path_type=Path),
    help="What a manifest's dataset.path is relative to.  [default: its folder]",
)
TOKENIZER = click.option(
    "--tokenizer",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Count with this tokenizer.  [default: the manifest's or its base's, else one trained on the data]",
)
_WORDS = click.option("--words", is_flag=True, help="Count words instead of tokens; needs no tokenizer.")


class DatasetError(click.ClickException):
    """Something that the person at the keyboard can mend; exit code 64."""

    exit_code = ExitCode.USER


def reading(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and the options that say what to read; the command gets a Given as its first argument."""

    @wraps(command)
    def read(
        file: Path,
        format: str | None,
        text_field: str | None,
        label_field: str | None,
        group_field: str | None,
        dataset_root: Path | None,
        wishes: Wishes,
        **options: Any,
    ) -> Any:
        names = {"format": format, "text_field": text_field, "label_field": label_field, "group_field": group_field}
        with in_words():
            return command(given(file, names, dataset_root, wishes), **options)

    wrapped: Callable[..., Any] = overriding(read)
    for option in (ROOT, GROUP_FIELD, LABEL_FIELD, TEXT_FIELD, FORMAT, FILE):
        wrapped = option(wrapped)
    return wrapped


def counting(command: C) -> C:
    """The options that say what lengths are counted in."""
    return TOKENIZER(_WORDS(command))


@contextmanager
def in_words() -> Iterator[None]:
    """Refusals and a disk's errors become one line for the user instead of a traceback."""
    try:
        yield
    except Refused as error:
        raise DatasetError(str(error)) from error
    except OSError as error:
        raise DatasetError(f"{error.filename or 'a file'}: {error.strerror or error}") from error


def measured(subject: Given, documents: tuple[Document, ...], tokenizer: Path | None, words: bool) -> Measure:
    """The measure that the options ask for. Raises: Refused, ManifestError, DatasetError."""
    if words and tokenizer is not None:
        raise DatasetError("--words and --tokenizer ask for two units; keep one")
    if words:
        return measure.by_words()
    try:
        return measure.by_tokens(subject, documents, tokenizer)
    except ModuleNotFoundError as error:
        raise DatasetError(
            f"tokens need the Python package {error.name}, which is not installed: pip install 'tollgate[trainer]', or "
            "count words with --words"
        ) from error


def document(value: Any) -> Any:
    """A value of ours for `-o json`: fields of dataclasses in camelCase, keys of mappings (labels, roles) as they are.

    Documents are told by where they stand, not by their whole text.
    """
    if isinstance(value, Document):
        return {"origin": value.origin, "text": value.text[:200]}
    if is_dataclass(value) and not isinstance(value, type):
        return {_camel(each.name): document(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): document(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [document(each) for each in value]
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
