"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed over it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Put `data` at `path`; a reader sees the old file or the new one, never a part, also after a power cut.

    The folder is created. Raises: OSError of the file system, and nothing is left beside the place then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # mkstemp makes 0600; the evaluation and people read these files too
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk is told without its place
        raise
    flush_folder(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Put `data` at `path` only if nothing is there; True if it was put. Two writers at once: exactly one gets True."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            return False
        except OSError:
            # No hard links here (some network and FUSE file systems): the exclusive open decides as well, but a
            # reader may see the file before its content.
            return _create_in_place(path, data)
    finally:
        os.unlink(name)
    flush_folder(path.parent)
    return True


def _create_in_place(path: Path, data: bytes) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return True


def flush_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut; a file system that cannot flush folders refuses, and is let be."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
