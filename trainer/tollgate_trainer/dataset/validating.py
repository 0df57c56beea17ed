"""All checks over what a manifest or a file holds, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tollgate_trainer.data.digest import checked_digest
from tollgate_trainer.data.document import Document
from tollgate_trainer.data.documents import Form
from tollgate_trainer.data.split import split
from tollgate_trainer.data.splits import form_of
from tollgate_trainer.dataset import checks
from tollgate_trainer.dataset.checks import Finding, Severity
from tollgate_trainer.dataset.inspection import inspect
from tollgate_trainer.dataset.lesson import sums
from tollgate_trainer.dataset.measure import Measure, encoded
from tollgate_trainer.dataset.subject import DATA, TRAIN, VALIDATION, Given
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
    checked = ["records", "duplicates"]
    for name, documents in parts:
        found += checks.repeated(name, documents)
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
    redacted = bool(getattr(subject.manifest, "privacy_preservation_enabled", False))
    for name, documents in parts:
        found += checks.personal(name, documents, redacted)
    checked.append("personal data with a form (e-mail, phone, card, IBAN; no names)")
    return Report({name: len(documents) for name, documents in parts}, tuple(found), tuple(checked))


def _read(subject: Given, against: Sequence[Path]) -> tuple[list[Part], list[Finding]]:
    dataset, form = subject.manifest.dataset, form_of(subject.manifest)
    found: list[Finding] = []
    if subject.own:
        try:
            checked_digest(subject.manifest, subject.root)
        except DatasetRefused as error:
            if error.field not in ("dataset.size_bytes", "dataset.sha256"):
                raise
            found.append(Finding(Severity.ERROR, "digest", str(error)))
    main = TRAIN if subject.own or against else DATA
    documents = _part(subject.path_of(dataset.path, "dataset.path"), form, dataset.path, main, found)
    parts: list[Part] = [(main, documents)]
    if subject.validation_path is not None:
        path = subject.path_of(subject.validation_path, "dataset.splits.validation_path")
        parts.append((VALIDATION, _part(path, form, subject.validation_path, VALIDATION, found)))
    elif subject.own and documents:
        try:
            train, held_out = split(documents, dataset.splits.validation)
            parts = [(main, train), (VALIDATION, held_out)]
        except DatasetRefused as error:
            found.append(Finding(Severity.ERROR, "split", str(error)))
    parts += [(str(other), _part(other, form, str(other), str(other), found)) for other in against]
    return [(name, each) for name, each in parts if each], found


def _part(path: Path, form: Form, shown: str, name: str, found: list[Finding]) -> list[Document]:
    inspected = inspect(path, form, shown)
    found += checks.unreadable(name, inspected.problems, inspected.stopped)
    if not inspected.documents and not inspected.problems:
        found.append(Finding(Severity.ERROR, "records", f"{name}: {shown} holds no document", "Name another file."))
    return list(inspected.documents)


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
        chat = any(document.messages for document in documents)
        try:
            found += checks.too_long(name, sums(documents, encoded(documents, measure.tokenizer), limit), chat, limit)
        except DatasetRefused as error:
            found.append(Finding(Severity.ERROR, "template", f"{name}: {error}"))
    return found, f"lengths against max_seq_length {limit:,}"
