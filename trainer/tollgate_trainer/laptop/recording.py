"""The manifest as it was trained, kept beside the outcome of its attempt."""

from __future__ import annotations

from pathlib import Path

from tollgate.contract import Files
from tollgate_cli.wishes import Effective
from tollgate_trainer import durable


def keep(output: Path, attempt: int, found: Effective) -> Path:
    """Write the effective manifest beside the attempt's outcome; answers the file."""
    path = output / Files.OUTCOMES / f"attempt-{attempt}" / "manifest.yaml"
    durable.write(path, found.record().encode())
    return path
