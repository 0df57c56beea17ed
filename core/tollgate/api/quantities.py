"""Money and durations as they are written (decimal strings, `1h30m`) and as they are counted (integers).

Inside: micro-USD and seconds. Outside: what a person writes. A float never takes part, so no cent is lost in a sum.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

MICRO = 1_000_000
MAX_USD = 999_999_999  # and some cents: nine digits before the point, which a schema can say as well
USD_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"
_MONEY = re.compile(USD_PATTERN)
_DURATION = re.compile(r"(?:(?P<h>[0-9]{1,6})h)?(?:(?P<m>[0-9]{1,6})m)?(?:(?P<s>[0-9]{1,9})s)?")


def parse_usd(value: Any) -> int:
    """`"180"`, `"41.23"` or `180` -> micro-USD.

    Raises: ValueError for a negative amount, more than six decimals, a float (it has no exact cents) or a bool.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f'{value!r} is not an amount in USD; write a decimal string such as "180" or "41.50"')
    text = str(value)
    if not _MONEY.fullmatch(text):
        raise ValueError(
            f'{value!r} is not an amount in USD; write a decimal string such as "180" or "41.50", not negative, '
            "below a billion, at most 6 decimals"
        )
    return int(Decimal(text) * MICRO)


def format_usd(micro: int) -> str:
    """Micro-USD -> the shortest decimal string with at least two decimals: `41.23`, `0.000125`."""
    sign, micro = ("-", -micro) if micro < 0 else ("", micro)
    whole, rest = divmod(micro, MICRO)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def format_cents(micro: int) -> str:
    """Micro-USD -> dollars and cents for people, rounded up: what was spent is never shown as less."""
    return f"{-(-micro // 10_000) / 100:.2f}"


def format_spent(micro: int, *, more: bool = False) -> str:
    """Micro-USD -> what a column shows of a spend: `41.24`, `0.07`, below a cent two digits that count: `0.0042`.

    Rounded up. `more`: some of it has no price: `>41.24`, or `unknown` when nothing of it has one.
    """
    if more and micro == 0:
        return "unknown"
    if micro == 0 or micro > 9_900:
        text = format_cents(micro)
    else:
        step = 10 ** max(len(str(micro)) - 2, 0)
        text = format_usd(-(-micro // step) * step)
    return f">{text}" if more else text


def parse_duration(value: Any) -> int:
    """`"12h"`, `"90m"`, `"1h30m"`, `"45s"` -> seconds. Only h, m and s.

    Raises: ValueError for anything else, with the accepted forms.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match is None:
        raise ValueError(
            f"{value!r} is not a duration; write hours, minutes and seconds such as 12h, 90m, 1h30m or 45s"
        )
    return int(match["h"] or 0) * 3600 + int(match["m"] or 0) * 60 + int(match["s"] or 0)


def format_duration(seconds: int) -> str:
    """Seconds -> `1h30m`, `45s`, `0s`."""
    hours, rest = divmod(max(seconds, 0), 3600)
    minutes, secs = divmod(rest, 60)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "") + (f"{secs}s" if secs else "")
    return text or "0s"


def _amount(value: Any) -> Any:
    # A model that was built in Python, or read back from our own dump, is parsed like the user's text.
    return value.micro if isinstance(value, Usd) else parse_usd(value)


class Usd(int):
    """Marks an int as micro-USD where a bare int would be read as whole dollars."""

    @property
    def micro(self) -> int:
        """The amount in micro-USD."""
        return int(self)


Money = Annotated[
    int,
    BeforeValidator(_amount),
    PlainSerializer(format_usd, return_type=str),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": USD_PATTERN,
            "minimum": 0,
            "maximum": MAX_USD,
        }
    ),
]
"""Micro-USD inside, a decimal string or an integer in USD outside. In Python build it from `Usd(micro)`."""


class Seconds(int):
    """Marks an int as seconds when a Duration field is set from Python."""


Duration = Annotated[
    int,
    BeforeValidator(lambda value: int(value) if isinstance(value, Seconds) else parse_duration(value)),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"type": "string", "minLength": 2, "maxLength": 32, "pattern": r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,9}s)?$"}
    ),
]
"""Seconds inside, `1h30m` outside. In Python build it from `Seconds(n)`."""
