"""The cache folder: what is built once and shared by all clusters of a user, safe against two builders at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tollgate_local.progress import Say

__all__ = ["cache_folder", "digest_of", "locked"]


def cache_folder(*parts: str) -> Path:
    """A folder below `$TOLLGATE_CACHE`, else below `~/.cache/tollgate`; made if missing."""
    root = os.environ.get("TOLLGATE_CACHE")
    folder = (Path(root) if root else Path.home() / ".cache/tollgate").absolute().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digest_of(*parts: bytes | str) -> str:
    """Twelve hex digits that change when any part does; parts cannot run into each other."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def locked(path: Path, say: Say, what: str) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel gives it back when the holder dies, so it never goes stale."""
    with contextlib.ExitStack() as stack:
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = stack.enter_context(path.open("a"))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process is {what}; waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            # who held it before may have removed the whole folder: then this is the lock of nothing
            if path.exists() and path.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                break
        yield
