"""What ends a command without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the caller can mend. The text says what is wrong and what to do; the exit code is 64."""
