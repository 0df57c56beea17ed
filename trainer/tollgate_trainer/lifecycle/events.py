"""What happened, for people and reports: one JSON object a line in logs/events.jsonl, written by rank 0."""

from __future__ import annotations

import json
import logging
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tollgate.contract import Files

_LOG = logging.getLogger(__name__)


class Events:
    """The log of a run over all its attempts. In processes that do not lead it is silent."""

    def __init__(self, output_root: Path, leads: bool, attempt: int) -> None:
        self._path = output_root / Files.EVENTS if leads else None
        self._attempt = attempt

    def add(self, event: str, **values: Any) -> None:
        """Append one event. Values are JSON; a number that is not finite becomes its name, as JSON has none."""
        _LOG.debug("%s %s", event, values)
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"time": now, "event": event, "attempt": self._attempt, **_plain(values)}
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
