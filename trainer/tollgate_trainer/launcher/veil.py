"""Output without secrets: what libraries print and exceptions quote must not carry a credential into a pod's log."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["HIDDEN", "Veil"]

HIDDEN = b"[hidden]"


class Veil:
    """Replaces values in a stream of bytes, also where a value is cut in two by the pipe. One per stream."""

    def __init__(self, values: Sequence[str]) -> None:
        """`values`: longest first, so that a value that holds another one is hidden whole."""
        self._values = tuple(value.encode() for value in values if value)
        self._held = b""

    def through(self, data: bytes) -> bytes:
        """What of the stream so far can be passed on; the beginning of a possible value is held back."""
        text = self._held + data
        for value in self._values:
            text = text.replace(value, HIDDEN)
        held = max((_overlap(text, value) for value in self._values), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> bytes:
        """What was held back, once the stream has ended."""
        held, self._held = self._held, b""
        return held


def _overlap(text: bytes, value: bytes) -> int:
    """How many bytes at the end of `text` may be the beginning of `value`."""
    most = min(len(text), len(value) - 1)
    return next((size for size in range(most, 0, -1) if value.startswith(text[-size:])), 0)
