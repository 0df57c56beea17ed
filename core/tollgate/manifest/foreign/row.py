"""A row of the mapping table."""

from __future__ import annotations

from dataclasses import dataclass

from tollgate.manifest.foreign.conversions import Convert, same

HYPER = "hyperparameters."


@dataclass(frozen=True, slots=True)
class Row:
    """names: foreign keys; field: the manifest's, "" when there is none; note: told beside what was mapped, or why not.

    important: leaving it out changes what is trained, judged or spent.
    """

    names: tuple[str, ...]
    field: str
    convert: Convert = same
    note: str = ""
    important: bool = True


def row(
    names: str | tuple[str, ...], field: str, convert: Convert = same, note: str = "", important: bool = True
) -> Row:
    """A row; names: separated by white space."""
    return Row(tuple(names.split()) if isinstance(names, str) else names, field, convert, note, important)


def nowhere(names: str, why: str, important: bool = True) -> Row:
    """A row of names that have no field here, and why."""
    return row(names, "", same, why, important)
