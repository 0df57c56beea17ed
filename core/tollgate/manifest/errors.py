"""What is wrong with a manifest, told so that its author can mend it without reading code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_SHOWN = 80

ABSENT: Any = ...
"""The `value` of a problem with something that is not there (None is a value: YAML's null)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    `field`: dotted path such as `hyperparameters.learning_rate` or `tags[2]`, "" for the whole document; `value`: as
    found, ABSENT
    when nothing was; `message`: what is wrong; `fix`: what to do; `line`: 1-based, where the text is known.
    """

    field: str
    value: Any
    message: str
    fix: str
    line: int | None = None

    def __str__(self) -> str:
        where = ", ".join(part for part in (f"line {self.line}" if self.line else "", self.field) if part)
        found = "" if self.value is ABSENT else f" (found {show(self.value)})"
        return f"{where}{': ' if where else ''}{self.message}{found}. {self.fix}"


class ManifestError(ValueError):
    """A document that is refused: where it came from, and everything that is wrong with it at once."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        if not problems:
            raise AssertionError("a refusal needs a reason")
        self.source = source
        self.problems = problems
        super().__init__(source, problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"{self.source}: {self.problems[0]}"
        return "\n  ".join([f"{self.source}: {len(self.problems)} problems", *map(str, self.problems)])


def show(value: Any) -> str:
    """The value as the author would recognise it, in at most 80 characters."""
    text = (
        repr(value)
        if isinstance(value, str)
        else {True: "true", False: "false"}.get(value, str(value))
        if isinstance(value, bool)
        else "null"
        if value is None
        else str(value)
    )
    return text if len(text) <= _SHOWN else text[: _SHOWN - 4] + " ..."


def field_name(path: tuple[str | int, ...]) -> str:
    """`("splits", "files", 2)` -> `splits.files[2]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
