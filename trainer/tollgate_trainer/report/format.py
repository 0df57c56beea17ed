"""Numbers, times and sizes as the report writes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tollgate.api.quantities import format_duration

DASH = "-"


def short(digest: str | None) -> str:
    """`sha256:0123456789ab...`: enough to tell two apart by eye."""
    return f"{digest[:19]}…" if digest and len(digest) > 20 else digest or ""


def when(at: datetime | None) -> str:
    """A UTC time to the minute, or a dash when unknown."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if at else DASH


def number(value: object) -> str:
    """A number for reading: thousands separated, four significant digits; a dash for what is not known."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return DASH if value is None else str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:,.0f}"


def size(count: object) -> str:
    """Bytes as kB or MB."""
    if not isinstance(count, int):
        return DASH
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def span(seconds: float | None) -> str:
    """Seconds as `1h 5m`, below ten seconds with a tenth; a dash when unknown."""
    if seconds is None:
        return DASH
    return format_duration(round(seconds)) if seconds >= 10 else f"{seconds:.1f}s"


def share(part: float | None, digits: int = 1) -> str:
    """0.425 as `42.5%`; a dash when unknown."""
    return DASH if part is None else f"{part:.{digits}%}"


def between(ends: tuple[float, float] | None, write: Callable[[float], str] = span) -> str:
    """Two ends as `5m to 7m`, once when they read the same; a dash when unknown."""
    if ends is None:
        return DASH
    low, high = (write(end) for end in ends)
    return low if low == high else f"{low} to {high}"
