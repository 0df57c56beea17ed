"""Answers that stand in a text: read from the shapes that people have, and put where they really are.

Shapes: a text (`"answer": "blue", "answer_start": 4`), without a start when it occurs once; offsets alone
(`answer_start` and `answer_end`); lists of both; SQuAD's `"answers": {"text": [...], "answer_start": [...]}`, or a list
of such objects. Empty, null or an empty list is "the text has no answer".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tollgate_trainer.data.document import Answer
from tollgate_trainer.refusal import DatasetRefused

END = "answer_end"
UNALIGNED_SHARE = 0.01
"""More answers than this that are not in their text, and the data is wrong rather than blemished."""


@dataclass(slots=True)
class Tally:
    """What was found while reading. answers: that were given; realigned: found elsewhere than said; unaligned: not
    found, or more than once where none is said; first: the origin and text of the first of those.
    """

    answers: int = 0
    realigned: int = 0
    unaligned: int = 0
    first: str | None = None

    def check(self) -> None:
        """Raises: DatasetRefused when more than UNALIGNED_SHARE of the answers are unaligned."""
        if self.unaligned > UNALIGNED_SHARE * self.answers:
            raise DatasetRefused(
                f"{self.unaligned} of {self.answers} answers ({self.unaligned / self.answers:.1%}) do not stand in "
                f"their text where they should, more than {UNALIGNED_SHARE:.0%}; the first: {self.first}. Offsets "
                "count characters of the text from 0; an answer without one must occur exactly once",
                "dataset.answer_field",
            )


def answers_of(
    record: dict[str, Any], text: str, origin: str, answer: str, answer_start: str, tally: Tally
) -> tuple[Answer, ...] | None:
    """The answers at their places; () when there is none to be found, None when none of those given is in the text.

    Raises: DatasetRefused for a shape that is none of the known ones.
    """
    given = _given(record, text, origin, answer, answer_start)
    found = []
    for wanted, start in given:
        tally.answers += 1
        place = _place(text, wanted, start)
        if place is None:
            tally.unaligned += 1
            tally.first = tally.first or f"{origin}, {wanted[:80]!r} at {start if start is not None else 'no offset'}"
            continue
        tally.realigned += start is not None and place.start != start
        found.append(place)
    return tuple(found) if found or not given else None


def _place(text: str, wanted: str, start: int | None) -> Answer | None:
    """Where it was said to be, else the only place where it is."""
    for answer in dict.fromkeys((wanted, wanted.strip())):
        if start is not None and start >= 0 and text.startswith(answer, start):
            return Answer(answer, start)
        first = text.find(answer)
        if first >= 0 and text.find(answer, first + 1) < 0:
            return Answer(answer, first)
    return None


def _given(
    record: dict[str, Any], text: str, origin: str, answer: str, answer_start: str
) -> list[tuple[str, int | None]]:
    """(text, start or None) of each answer that the record gives."""
    if record.get("is_impossible") in (True, "true", "True"):
        return []
    if answer in record:
        value = record[answer]
        if isinstance(value, dict):
            return _paired(value.get("text"), value.get(answer_start, value.get("answer_start")), origin, answer)
        if isinstance(value, list) and any(isinstance(one, dict) for one in value):
            return _listed(value, origin, answer, answer_start)
        return _paired(value, record.get(answer_start), origin, answer)
    if answer == "answer" and "answers" in record:
        return _given({**record, "answer": record["answers"]}, text, origin, answer, answer_start)
    if answer_start in record and END in record:
        return _by_offsets(record, text, origin, answer_start)
    raise DatasetRefused(
        f"{origin}: the answer field {answer!r} is missing (keys: {sorted(map(str, record))}); a text without an "
        "answer says so with an empty one",
        "dataset.answer_field",
    )


def _listed(value: list[Any], origin: str, answer: str, answer_start: str) -> list[tuple[str, int | None]]:
    found = []
    for index, one in enumerate(value):
        if not isinstance(one, dict):
            raise DatasetRefused(f"{origin}: {answer}[{index}] is no object", "dataset.answer_field")
        found += _paired(one.get("text"), one.get(answer_start, one.get("start")), origin, f"{answer}[{index}]")
    return found


def _paired(texts: Any, starts: Any, origin: str, name: str) -> list[tuple[str, int | None]]:
    many = texts if isinstance(texts, list) else [] if texts in (None, "") else [texts]
    places = starts if isinstance(starts, list) else [starts] * len(many)
    if len(places) != len(many):
        raise DatasetRefused(
            f"{origin}: {name} has {len(many)} texts and {len(places)} starts; give one start per text",
            "dataset.answer_start_field",
        )
    found = []
    for text, start in zip(many, places, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise DatasetRefused(f"{origin}: the answer {text!r} in {name!r} is no text", "dataset.answer_field")
        found.append((text, _whole(start, origin, "dataset.answer_start_field")))
    return found


def _by_offsets(record: dict[str, Any], text: str, origin: str, answer_start: str) -> list[tuple[str, int | None]]:
    start = _whole(record[answer_start], origin, "dataset.answer_start_field")
    end = _whole(record[END], origin, "dataset.answer_start_field")
    if start is None and end is None:
        return []
    if start is None or end is None or not 0 <= start < end <= len(text):
        raise DatasetRefused(
            f"{origin}: {answer_start}={start} and {END}={end} are no part of a text of {len(text)} characters",
            "dataset.answer_start_field",
        )
    return [(text[start:end], start)]


def _whole(value: Any, origin: str, field: str) -> int | None:
    """An offset; text from a CSV and a whole float from a table with gaps are numbers too."""
    if value is None or value == "":
        return None
    try:
        number = int(value)
        if isinstance(value, bool) or number != float(value):
            raise ValueError(value)
    except (TypeError, ValueError) as error:
        raise DatasetRefused(f"{origin}: the offset {value!r} is no whole number", field) from error
    return number
