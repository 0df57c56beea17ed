"""Paths in a manifest: relative, and never out of their root."""

from __future__ import annotations

import posixpath
from pathlib import Path

from tollgate.manifest.errors import ManifestError, Problem


def stray(field: str, text: str) -> Problem | None:
    """What is wrong with a path by its text alone, or None. The same rule on a laptop, in the operator and in the
    pod.
    """
    if "\0" in text or "\\" in text:
        return Problem(
            field, text, "this path holds a character that paths here may not have", "Write it with forward slashes."
        )
    if "://" in text:
        return Problem(
            field,
            text,
            "this version reads files, not URLs",
            "Put the data on the dataset volume and name the file there.",
        )
    if text.startswith(("/", "~")):
        return Problem(
            field,
            text,
            "this path is absolute, and would be another file on a laptop, in a pod and on a colleague's machine",
            "Write it relative to the manifest's folder (on a cluster: to the volume's folder).",
        )
    if posixpath.normpath(text).split("/", 1)[0] == "..":
        return Problem(
            field,
            text,
            "this path leaves its root (the manifest's folder, on a cluster the volume's folder)",
            "Put the file below the root, or move the manifest up.",
        )
    return None


def resolve(root: Path, relative: str, field: str) -> Path:
    """The absolute path of `relative` below `root`; it need not exist.

    Args: root: a folder; relative: as the manifest says; field: its dotted name, for the message.
    Raises: ManifestError when the path is absolute or leaves the root, by `..` or by a symbolic link.
    """
    if problem := stray(field, relative):
        raise ManifestError(str(root), [problem])
    base = root.resolve()
    try:
        target = (base / relative).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop, until Python 3.13
        message = f"this path cannot be followed below {base}: {error}"
        raise ManifestError(str(root), [Problem(field, relative, message, "Mend the symbolic link.")]) from error
    if target != base and base not in target.parents:
        raise ManifestError(
            str(root),
            [
                Problem(
                    field,
                    relative,
                    f"this path leads out of {base} to {target} by a symbolic link",
                    "Put the file itself there, or let the root be the folder that holds both.",
                )
            ],
        )
    return target
