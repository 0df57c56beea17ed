"""All checks over what a manifest or a file holds, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tollgate_trainer.data.digest import checked_digest
from tollgate_trainer.data.document import Document
from tollgate_trainer.data.sources import Source, form_of, held_out_source, name_of, sources_of
from tollgate_trainer.data.split import split
from tollgate_trainer.dataset import checks
from tollgate_trainer.dataset.checks import Finding, Severity
from tollgate_trainer.dataset.inspection import inspect
from tollgate_trainer.dataset.lesson import sums
from tollgate_trainer.dataset.measure import Measure, encoded
from tollgate_trainer.dataset.subject import DATA, TRAIN, VALIDATION, Given, refuse_foreign
from tollgate_trainer.refusal import DatasetRefused

Part = tuple[str, Sequence[Document]]


@dataclass(frozen=True, slots=True)
class Report:
    """parts: documents that could be read, by split; checked: what was looked at, in words."""

    parts: Mapping[str, int]
    findings: tuple[Finding, ...]
    checked: tuple[str, ...]

    def failed(self, strict: bool) -> bool:
        """Errors fail; with `strict` warnings too."""
        kinds = {one.severity for one in self.findings}
        return Severity.ERROR in kinds or (strict and Severity.WARNING in kinds)


def validate(
    subject: Given,
    against: Sequence[Path],
    measure_of: Callable[[tuple[Document, ...]], Measure | None],
    threshold: float,
    least_per_label: int,
) -> Report:
    """Args: against: files of other splits, to be compared with a bare file; measure_of: training documents -> what
    lengths are counted in, None when they can't be; threshold: of near-duplicates, in (0, 1]; least_per_label: how
    many examples a label should have.

    Raises: DatasetRefused when a file is not there; ModelRefused; ManifestError.
    """
    parts, found = _read(subject, against)
    checked = ["records", "duplicates", "characters"]
    for name, documents in parts:
        found += checks.repeated(name, documents)
        found += checks.miscoded(name, documents)
        if any(document.messages for document in documents):
            found += checks.turns(name, documents)
    if not parts:
        return Report({}, tuple(found), ("records",))
    if any(document.messages for _, documents in parts for document in documents):
        checked.append("roles")
    train = parts[0][1]
    for name, documents in parts[1:]:
        found += checks.parted_groups(name, documents, train)
        found += checks.leaks(name, documents, train, threshold)
    if len(parts) > 1:
        checked.append(f"leakage between {' and '.join(name for name, _ in parts)}")
    found += checks.labels(parts, least_per_label)
    if any(document.label is not None for document in train):
        checked.append("labels")
    if lengths := _lengths(subject, parts, measure_of):
        found += lengths[0]
        checked.append(lengths[1])
    redacted = subject.manifest.dataset.privacy_preservation_enabled
    for name, documents in parts:
        found += checks.personal(name, documents, redacted)
    checked.append("personal data with a form (e-mail, phone, card, IBAN; no names)")
    return Report({name: len(documents) for name, documents in parts}, tuple(found), tuple(checked))


def _read(subject: Given, against: Sequence[Path]) -> tuple[list[Part], list[Finding]]:
    refuse_foreign(subject)
    found: list[Finding] = []
    if subject.own:
        try:
            checked_digest(subject.manifest, subject.root)
        except DatasetRefused as error:
            if "sha256" not in str(error.field) and "size_bytes" not in str(error.field):
                raise
            found.append(Finding(Severity.ERROR, "digest", str(error)))
    main = TRAIN if subject.own or against else DATA
    documents = _part(sources_of(subject.manifest, subject.root), main, found)
    parts: list[Part] = [(main, documents)]
    apart = held_out_source(subject.manifest, subject.root)
    if apart is not None:
        parts.append((VALIDATION, _part([apart], VALIDATION, found)))
    elif subject.own and documents:
        try:
            train, held_out = split(documents, subject.manifest.dataset.splits.validation)
            parts = [(main, train), (VALIDATION, held_out)]
        except DatasetRefused as error:
            found.append(Finding(Severity.ERROR, "split", str(error)))
    form = form_of(subject.manifest)
    for other in against:
        source = Source(name_of(str(other)), other, str(other), form)
        parts.append((str(other), _part([source], str(other), found)))
    return [(name, each) for name, each in parts if each], found


def _part(sources: Sequence[Source], name: str, found: list[Finding]) -> list[Document]:
    documents: list[Document] = []
    for source in sources:
        inspected = inspect(source.path, source.form, source.shown)
        found += checks.unreadable(name, inspected.problems, inspected.stopped)
        if not inspected.documents and not inspected.problems:
            message = f"{name}: {source.shown} holds no document"
            found.append(Finding(Severity.ERROR, "records", message, "Name another file."))
        documents += [replace(document, source=source.name) for document in inspected.documents]
    return documents


def _lengths(
    subject: Given, parts: Sequence[Part], measure_of: Callable[[tuple[Document, ...]], Measure | None]
) -> tuple[list[Finding], str] | None:
    """(findings, what was checked); None without a limit or without tokens."""
    limit = subject.limit
    if limit is None:
        return None
    measure = measure_of(tuple(parts[0][1]))
    if measure is None or measure.tokenizer is None:
        return None
    found: list[Finding] = []
    for name, documents in parts:
        try:
            found += checks.too_long(
                name, documents, sums(documents, encoded(documents, measure.tokenizer), limit), limit
            )
        except DatasetRefused as error:
            found.append(Finding(Severity.ERROR, "template", f"{name}: {error}"))
    return found, f"lengths against max_seq_length {limit:,}"
