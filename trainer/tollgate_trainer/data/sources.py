"""The files that a manifest names, and their documents one by one: read, redacted and marked with their source."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from tollgate.manifest import paths
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.document import Document
from tollgate_trainer.data.documents import stream
from tollgate_trainer.data.formats import TABLES, Form
from tollgate_trainer.data.order import Share
from tollgate_trainer.data.redaction import redacted
from tollgate_trainer.data.spans import Tally
from tollgate_trainer.extensions import DatasetSource, extension


@dataclass(frozen=True, slots=True)
class Source:
    """One of the things that are read. shown: its path as the manifest says it; field: where it says so."""

    name: str
    path: Path
    shown: str
    form: Form
    weight: float = 1.0
    field: str = "dataset.path"
    reader: DatasetSource | None = None


@dataclass(slots=True)
class Reading:
    """What was met while reading, for the `data` event."""

    tally: Tally = field(default_factory=Tally)
    redactions: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)

    def event(self, *, private: bool) -> dict[str, Any]:
        """Documents by source where there are several, what became of answers, and what was redacted."""
        said: dict[str, Any] = {"sources": dict(self.documents)} if len(self.documents) > 1 else {}
        if self.tally.answers:
            said["answers"] = {
                "given": self.tally.answers,
                "realigned": self.tally.realigned,
                "unaligned": self.tally.unaligned,
            }
        if private:
            said["redacted"] = {kind: self.redactions[kind] for kind in ("email", "phone", "card", "iban")}
        return said


def sources_of(manifest: TrainingManifest, dataset_root: Path) -> list[Source]:
    """What is trained on: `dataset.path`, then `dataset.sources` in their order.

    Raises: ManifestError for a path that leaves its root.
    """
    dataset, form = manifest.dataset, form_of(manifest)
    main = paths.resolve(dataset_root, dataset.path, "dataset.path")
    reader = reader_of(manifest)
    found = [Source(name_of(dataset.path), main, dataset.path, form, dataset.weight, reader=reader)]
    for index, source in enumerate(dataset.sources):
        field = f"dataset.sources[{index}].path"
        path = paths.resolve(dataset_root, source.path, field)
        own = form if source.format is None else replace(form, format=_format(manifest, source.format))
        name = source.name or name_of(source.path)
        found.append(Source(name, path, source.path, own, source.weight, field, reader))
    return found


def reader_of(manifest: TrainingManifest) -> DatasetSource | None:
    """Somebody else's code that reads the files, where the manifest names it. Raises: ManifestRefused."""
    found = extension(manifest, "dataset_source")
    return None if found is None else cast("DatasetSource", found.code)


def held_out_source(manifest: TrainingManifest, dataset_root: Path) -> Source | None:
    """The file of held-out documents, if they have one of their own. Raises: ManifestError."""
    shown, field = manifest.dataset.splits.validation_path, "dataset.splits.validation_path"
    if shown is None:
        return None
    path, form = paths.resolve(dataset_root, shown, field), form_of(manifest)
    return Source(name_of(shown), path, shown, form, field=field, reader=reader_of(manifest))


def name_of(path: str) -> str:
    """A source's name when it is given none: the last part of its path without suffix, in letters that metrics may
    have.
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem).strip("-") or "data"


def form_of(manifest: TrainingManifest) -> Form:
    """How the dataset's records are read; a task with targets reads them unless the manifest says otherwise."""
    dataset = manifest.dataset
    return Form(
        format=_format(manifest, dataset.format),
        text=dataset.text_field,
        label=dataset.label_field,
        question=dataset.question_field,
        answer=dataset.answer_field,
        answer_start=dataset.answer_start_field,
        group=dataset.group_field,
    )


def _format(manifest: TrainingManifest, asked: str) -> str:
    return manifest.task if asked == "auto" and manifest.task in TABLES else asked


def documents_of(sources: Sequence[Source], reading: Reading, *, private: bool) -> Iterator[Document]:
    """The documents of the sources, one source after the other. private: whether personal data is redacted.

    Raises: DatasetRefused, while iterating.
    """
    for source in sources:
        for document in stream(source.path, source.form, source.shown, reading.tally, source.reader):
            clean = redacted(document, reading.redactions) if private else document
            reading.documents[source.name] += 1
            yield replace(clean, source=source.name)


def shares_of(manifest: TrainingManifest, samples: Sequence[Document]) -> tuple[Share, ...]:
    """How much of each source makes an epoch: its weight times its samples, at least one. () when all weigh 1.

    Args: samples: the document of each sample; those of a source follow each other.
    """
    weights = weights_of_sources(manifest)
    if all(weight == 1 for weight in weights.values()):
        return ()
    parts = groupby(document.source for document in samples)
    return shared_out([(weights[name], sum(1 for _ in own)) for name, own in parts])


def weights_of_sources(manifest: TrainingManifest) -> dict[str, float]:
    """How much each source weighs, by its name."""
    dataset = manifest.dataset
    weights = {name_of(dataset.path): dataset.weight}
    return weights | {source.name or name_of(source.path): source.weight for source in dataset.sources}


def shared_out(parts: Sequence[tuple[float, int]]) -> tuple[Share, ...]:
    """The shares of (weight, samples), one after the other; () when all weigh 1. Without samples there is none."""
    if all(weight == 1 for weight, _ in parts):
        return ()
    shares, first = [], 0
    for weight, size in parts:
        if size:
            shares.append(Share(first, size, max(1, round(weight * size))))
        first += size
    return tuple(shares)
