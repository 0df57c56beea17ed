"""Whether a report may quote documents: as the manifest says, and as whoever made the report said last.

Training text may be private, and a page is mailed easily. `report.quotes: false` keeps text out of the run's files in
the first place; `tollgate report --no-quotes` keeps it out of the page, also when the page is refreshed later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tollgate.contract import Files, LastWords
from tollgate_trainer import durable
from tollgate_trainer.report import told

SETTINGS = "report/settings.json"
_QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
"""As Python's repr writes text; an apostrophe within a word opens nothing."""


def may_quote(root: Path) -> bool:
    """Whether neither a manifest of the run nor the report's own note forbids it; a note that can't be read does."""
    return not forbidden(root) and _noted(root)


def forbidden(root: Path) -> bool:
    """Whether an attempt's manifest says `report.quotes: false`."""
    return any(_says_no(path) for path in (root / Files.OUTCOMES).glob("attempt-*/manifest.json"))


def note(root: Path, quotes: bool) -> None:
    """Remember what was asked for, so that a refresh does not bring text back. Raises: OSError."""
    durable.write(root / SETTINGS, json.dumps({"quotes": quotes}).encode() + b"\n")


def classes(found: told.Classes | None, quotes: bool) -> told.Classes | None:
    """Without text where it may not be quoted; which documents they are stays."""
    if found is None or quotes:
        return found
    return found.model_copy(update={"worst": [one.model_copy(update={"text": None}) for one in found.worst]})


def spans(found: told.Spans | None, quotes: bool) -> told.Spans | None:
    """As `classes`."""
    if found is None or quotes:
        return found
    nothing: dict[str, Any] = {"question": None, "right": None, "given": None}
    return found.model_copy(update={"worst": [one.model_copy(update=nothing) for one in found.worst]})


def words(found: LastWords | None, quotes: bool) -> LastWords | None:
    """With its error's quoted values masked: a refusal of the data quotes what has to be mended."""
    if found is None or found.error is None or quotes:
        return found
    return found.model_copy(update={"error": found.error.model_copy(update={"message": masked(found.error.message)})})


def texts(found: Iterable[str], quotes: bool) -> tuple[str, ...]:
    """Messages, masked where nothing may be quoted."""
    return tuple(found if quotes else map(masked, found))


def masked(message: str) -> str:
    """The message without what stands in quotes."""
    return _QUOTED.sub("'...'", message)


def _says_no(manifest: Path) -> bool:
    try:
        section = json.loads(manifest.read_text(encoding="utf-8")).get("report")
    except (OSError, ValueError, AttributeError):
        return False  # no manifest, so no run under it wrote anything
    return isinstance(section, dict) and section.get("quotes") is False


def _noted(root: Path) -> bool:
    try:
        return json.loads((root / SETTINGS).read_text(encoding="utf-8")).get("quotes") is not False
    except FileNotFoundError:
        return True
    except (OSError, ValueError, AttributeError):
        return False
