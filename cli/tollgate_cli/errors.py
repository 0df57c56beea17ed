"""What ends a command without a traceback."""

from __future__ import annotations

import errno

# What a disk or an account refuses. Other errors of the system, such as a file that is not there, are for each command
# to foresee: where one is not, the place in our code matters more than the words.
_FIXES = {
    errno.ENOSPC: "Free space there, or name another folder.",
    errno.EDQUOT: "Free space there, or name another folder.",
    errno.EROFS: "Name another folder.",
    errno.EACCES: "Name another folder, or change its permissions.",
    errno.EPERM: "Name another folder, or change its permissions.",
}


class UserError(Exception):
    """Something the caller can mend. The text says what is wrong and what to do; the exit code is 64."""


def refused_by_the_machine(error: OSError) -> str | None:
    """An error of the disk in words, or None when it is of another kind."""
    fix = _FIXES.get(error.errno or 0)
    if fix is None:
        return None
    return f"{error.filename or 'the output'}: {error.strerror}. {fix}"
