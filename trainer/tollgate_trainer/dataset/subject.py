"""What a `tollgate dataset` command was given: a manifest, or a data file; read as the trainer reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollgate.manifest import paths
from tollgate.manifest.loader import load_document
from tollgate.manifest.sections import Dataset
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_cli.wishes import Wishes, effective
from tollgate_trainer.data import load_documents
from tollgate_trainer.data.document import Document
from tollgate_trainer.data.documents import SUFFIXES, Form, files_of
from tollgate_trainer.data.formats import TABLES
from tollgate_trainer.data.records import records
from tollgate_trainer.dataset import shapes
from tollgate_trainer.refusal import DatasetRefused

NOTHING = Wishes()
TRAIN, VALIDATION = "train", "validation"
DATA = "data"


@dataclass(frozen=True, slots=True)
class Given:
    """The manifest that was named, or one made around a data file. `root` is what its paths are relative to.

    own: whether the user wrote the manifest; without it lengths have no limit and nothing is held out.
    """

    shown: str
    manifest: TrainingManifest
    root: Path
    own: bool

    @property
    def limit(self) -> int | None:
        """max_seq_length of a manifest; None for a bare file."""
        return self.manifest.hyperparameters.max_seq_length if self.own else None

    def path_of(self, relative: str, field: str) -> Path:
        """The absolute path of a file that the manifest names. Raises: ManifestError when it leaves its root."""
        return paths.resolve(self.root, relative, field)


@dataclass(frozen=True, slots=True)
class Part:
    """The documents of one split; a bare file is one part called `data`."""

    name: str
    documents: tuple[Document, ...]


def given(file: Path, dataset: Mapping[str, Any], dataset_root: Path | None = None, wishes: Wishes = NOTHING) -> Given:
    """Find out whether `file` is a manifest or data, and load the manifest.

    Args: file: a manifest (or TrainingRun), a data file or a folder of them; dataset: fields of the manifest's
    `dataset` that the command line sets, None for not given; dataset_root: where a manifest's data lies when it is not
    beside it; wishes: what stands over a manifest.
    Raises: ManifestError; DatasetRefused when the file does not exist or a field is given twice.
    """
    if not file.exists():
        raise DatasetRefused(f"{file} does not exist; name a manifest, a data file or a folder of data files")
    fields = {name: value for name, value in dataset.items() if value is not None}
    if is_manifest(file):
        if fields:
            names = " and ".join(f"--{name.replace('_', '-')}" for name in fields)
            raise DatasetRefused(
                f"{names} cannot be combined with a manifest, which says it in `dataset`; change {file} or name the "
                "data file instead"
            )
        loaded = effective(file, wishes, os.environ).loaded
        return Given(str(file), loaded.manifest, (dataset_root or file.parent).resolve(), own=True)
    if wishes != NOTHING:
        raise DatasetRefused(f"--set and --overlay go with a manifest, and {file} is data; leave them out")
    fields.setdefault("format", guessed_format(file, fields))
    return around(file.resolve(), str(file), fields)


def around(file: Path, shown: str, fields: Mapping[str, Any]) -> Given:
    """A manifest around a data file, with nothing held out and the task that its format is for."""
    plain = load_document({"name": DATA, "dataset": {"path": DATA}}, shown).manifest
    dataset = Dataset.model_validate({"path": file.name, "splits": {"validation": 0}, **fields})
    task = dataset.format if dataset.format in TABLES else plain.task
    return Given(shown, plain.model_copy(update={"dataset": dataset, "task": task}), file.parent, own=False)


def guessed_format(file: Path, fields: Mapping[str, Any]) -> str:
    """What a file without a manifest seems to be: a table with targets shows by its first record's keys, else `auto`.

    Raises: DatasetRefused.
    """
    form = Form(text=fields.get("text_field", "text"), label=fields.get("label_field", "label"))
    record = first_record(file)
    if record is None:
        return "auto"
    span = ("question" in record or "criterion" in record) and bool({"answer", "answers", "answer_start"} & set(record))
    labelled = form.label in record and (form.text in record or span)
    return {(True, True): "joint", (True, False): "span", (False, True): "classification"}.get((span, labelled), "auto")


def first_record(file: Path) -> Mapping[str, Any] | None:
    """The first record of a file, or of the first file of a folder; None for plain text and for what is no object.

    Raises: DatasetRefused when it cannot be read.
    """
    first = next((each for each in files_of(file, str(file)) if each.suffix in SUFFIXES or file.is_file()), None)
    if first is None or first.suffix == ".txt":
        return None
    record = next(records(first, str(first) if file.is_dir() else str(file)), ("", None))[1]
    return record if isinstance(record, dict) else None


def format_of(subject: Given) -> str:
    """The format of the data by name, also where the manifest leaves it to be found out; `auto` when it can't be."""
    dataset = subject.manifest.dataset
    if dataset.format != "auto":
        return dataset.format
    if dataset.path.endswith(".txt"):
        return shapes.TEXT
    record = first_record(paths.resolve(subject.root, dataset.path, "dataset.path"))
    shape = None if record is None else shapes.shape_of(record, dataset.text_field)
    return "auto" if shape is None else shapes.READ_AS.get(shape, shape)


def refuse_foreign(subject: Given) -> None:
    """Raises: DatasetRefused for ShareGPT, which the trainer does not read, with the command that mends it."""
    path = paths.resolve(subject.root, subject.manifest.dataset.path, "dataset.path")
    record = first_record(path) if path.is_file() else None
    if record is not None and shapes.shape_of(record, subject.manifest.dataset.text_field) == shapes.SHAREGPT:
        raise DatasetRefused(
            f"{subject.manifest.dataset.path} is of ShareGPT's shape (`conversations` of `from` and `value`), which is "
            f"not trained on as it is; make chat of it: tollgate dataset convert {subject.shown} chat.jsonl"
        )


def is_manifest(file: Path) -> bool:
    """YAML is a manifest; JSON is one when it says `dataset` as an object, or is a TrainingRun."""
    suffix = file.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return True
    if suffix != ".json" or not file.is_file() or file.stat().st_size > 4 * 2**20:
        return False
    try:
        document = json.loads(file.read_bytes())
    except ValueError:
        return False
    if not isinstance(document, dict):
        return False
    return isinstance(document.get("dataset"), dict) or document.get("kind") == "TrainingRun"


def parts(subject: Given) -> tuple[Part, ...]:
    """The documents as the trainer would split them. Raises: DatasetRefused, ManifestError."""
    refuse_foreign(subject)
    documents = load_documents(subject.manifest, subject.root)
    if not subject.own:
        return (Part(DATA, tuple(documents.train)),)
    found = (Part(TRAIN, tuple(documents.train)), Part(VALIDATION, tuple(documents.validation)))
    return tuple(part for part in found if part.documents)
