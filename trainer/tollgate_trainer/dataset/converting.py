"""A whole file from one shape and type to another: what is read, what is left out and why, what is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tollgate_trainer.data.document import Document
from tollgate_trainer.data.documents import SUFFIXES, Form, Tally
from tollgate_trainer.data.formats import documents_of
from tollgate_trainer.data.records import records
from tollgate_trainer.dataset import rows, shapes
from tollgate_trainer.dataset.rows import Output
from tollgate_trainer.dataset.shapes import ALPACA, CHAT, CONVERSATIONS, SHAREGPT, TEXT, DoesNotFitError
from tollgate_trainer.refusal import DatasetRefused

NAMED = 5


@dataclass(frozen=True, slots=True)
class Conversion:
    """source, target: shapes; read: documents in the input; unfit: those left out, as (where, why)."""

    source: str
    target: str
    read: int
    unfit: tuple[tuple[str, str], ...]
    output: Output
    form: Form

    @property
    def written(self) -> int:
        """Documents in the output."""
        return len(self.output.documents)


def convert(path: Path, shown: str, form: Form, target: str | None, to: Path) -> Conversion:
    """Read `path` and make the bytes of `to`; nothing is written yet.

    Args: form: how the input is read; target: a shape, None for the input's own (`chat` for other tools' shapes).
    Raises: DatasetRefused.
    """
    if to.suffix not in SUFFIXES:
        raise DatasetRefused(f"{to}: the suffix says the file type; use one of {', '.join(SUFFIXES)}")
    source = _source(path, shown, form)
    wanted = target or (CHAT if source in (SHAREGPT, ALPACA) else source)
    if to.suffix == ".txt":
        wanted = TEXT if target is None and wanted == CONVERSATIONS else wanted
        if wanted != TEXT:
            raise DatasetRefused(f"{to}: a .txt holds text only, not {wanted}; write .jsonl instead")
    unfit: list[tuple[str, str]] = []
    kept: list[tuple[Mapping[str, Any], Document]] = []
    count = 0
    for record, document in _read(path, shown, form, source, unfit):
        count += 1
        try:
            kept.append((shapes.converted(record, document, source if source != SHAREGPT else CHAT, wanted), document))
        except DoesNotFitError as error:
            unfit.append((document.origin, str(error)))
    count += sum(1 for _, why in unfit if why.startswith(_UNREADABLE))
    if not kept:
        why = f": {unfit[0][0]}: {unfit[0][1].removeprefix(_UNREADABLE)}" if unfit else ""
        raise DatasetRefused(f"none of {count:,} documents of {shown} can be written as {wanted}{why}")
    made = [record for record, _ in kept]
    if to.suffix == ".json" and wanted == CONVERSATIONS:
        made = [{"conversations": [entry for record in made for entry in record["conversations"]]}]
        data = rows.encoded(made, ".jsonl")
    else:
        data = rows.encoded(_flat(made) if to.suffix in (".csv", ".tsv") else made, to.suffix)
    again = replace(form, format=wanted, text="text" if wanted != source and wanted == TEXT else form.text)
    explained = tuple((where, why.removeprefix(_UNREADABLE)) for where, why in unfit)
    return Conversion(source, wanted, count, explained, Output(to, data, [document for _, document in kept]), again)


_UNREADABLE = "\0"


def refuse_unfit(conversion: Conversion, shown: str) -> None:
    """Raises: DatasetRefused with the first reasons when some document would be left out."""
    if not conversion.unfit:
        return
    reasons = "; ".join(f"{where}: {why}" for where, why in conversion.unfit[:NAMED])
    more = f"; and {len(conversion.unfit) - NAMED:,} more" if len(conversion.unfit) > NAMED else ""
    raise DatasetRefused(
        f"{len(conversion.unfit):,} of {conversion.read:,} documents of {shown} cannot be written as "
        f"{conversion.target}: {reasons}{more}. Nothing was written; --drop leaves them out"
    )


def _source(path: Path, shown: str, form: Form) -> str:
    if form.format != "auto":
        return form.format
    if path.suffix == ".txt":
        return TEXT
    origin, first = next(records(path, shown, lambda _: None), (shown, None))
    found = shapes.shape_of(first, form.text) if isinstance(first, dict) else None
    if found is None:
        keys = f"the keys {sorted(map(str, first))} are" if isinstance(first, dict) else "the first record is"
        raise DatasetRefused(
            f"{origin}: {keys} of no known shape; say --format, or name the text's field with --text-field",
            "dataset.format",
        )
    return found


def _read(
    path: Path, shown: str, form: Form, source: str, unfit: list[tuple[str, str]]
) -> Sequence[tuple[Mapping[str, Any], Document]]:
    """(record, document); ShareGPT records as chat. What can't be read, or can't be chat, goes into `unfit`."""

    def refuse(error: DatasetRefused) -> None:
        where, _, why = str(error.args[0]).partition(": ")
        if where.endswith(no_json := " is not JSON"):
            where, why = where.removesuffix(no_json), f"not JSON: {why}"
        unfit.append((where, _UNREADABLE + why))

    if source != SHAREGPT:
        read_as = replace(form, format=shapes.READ_AS.get(source, source))
        return [(row.record, row.document) for row in rows.load(path, shown, read_as, refuse).rows]
    found: list[tuple[Mapping[str, Any], Document]] = []
    tally = Tally()
    for origin, record in records(path, shown, refuse):
        try:
            if not isinstance(record, dict):
                raise DoesNotFitError(f"expected an object, found {type(record).__name__}")
            chat = shapes.chat_of_sharegpt(record)
        except DoesNotFitError as error:
            unfit.append((origin, _UNREADABLE + str(error)))
            continue
        try:
            found += [(chat, document) for document in documents_of(chat, origin, replace(form, format=CHAT), tally)]
        except DatasetRefused as error:
            refuse(error)
    return found


def _flat(made: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """SQuAD's nested answers as two cells, where there is one answer or none; the rest is the writer's to refuse."""
    flat: list[Mapping[str, Any]] = []
    for record in made:
        answers = record.get("answers")
        if isinstance(answers, dict) and isinstance(answers.get("text"), list) and len(answers["text"]) <= 1:
            starts = answers.get("answer_start") or [None]
            rest = {key: value for key, value in record.items() if key != "answers"}
            flat.append({**rest, "answer": (answers["text"] or [""])[0], "answer_start": starts[0]})
        else:
            flat.append(record)
    return flat
