"""Saying what is being done: a function that takes one line."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["Say", "quiet", "to_stderr"]

Say = Callable[[str], None]


def quiet(_line: str) -> None:
    """Say nothing."""


def to_stderr(line: str) -> None:
    """One line to standard error at once, so that `eval "$(...)"` of standard output stays possible."""
    print(line, file=sys.stderr, flush=True)
