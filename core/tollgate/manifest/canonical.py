"""The one byte form of a document, and its digest.

RFC 8785 (JSON Canonicalization Scheme): no white space, keys sorted by their UTF-16 code units, strings with the
fewest escapes,
numbers as ECMAScript prints them. So 1.0 and 1 are the same bytes, which matters because the API server turns one
into the other.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def serialise(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value (dict with str keys, list, str, int, float, bool, None).

    Raises: ValueError for NaN, infinities, lone surrogates and integers that a double cannot hold exactly; TypeError
    for any other type.
    """
    return _text(value).encode()


def digest(data: bytes) -> str:
    """`sha256:<hex>` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, Mapping):
        pairs = sorted(((_key(key), item) for key, item in value.items()), key=lambda pair: pair[0].encode("utf-16-be"))
        return "{" + ",".join(f"{_string(key)}:{_text(item)}" for key, item in pairs) + "}"
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key must be a string, not {key!r}")
    _string(key)
    return key


def _string(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{text!r} holds half of a surrogate pair, which no byte form has") from error
    # Without ASCII escaping, json escapes exactly what RFC 8785 section 3.2.2.2 asks for, and in its form.
    return json.dumps(text, ensure_ascii=False)


def number(value: int | float) -> str:
    """The number as ECMAScript's Number.prototype.toString prints it (ECMA-262, 6.1.6.1.20).

    Python's repr finds the same shortest digits; only their arrangement differs.
    Raises: ValueError for NaN, infinities and integers that are not exactly a double.
    """
    if isinstance(value, int):
        try:
            exact = int(float(value)) == value
        except OverflowError:
            exact = False
        if not exact:
            raise ValueError(f"{value} is not exactly a double")
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    if value == 0:
        return "0"  # also for minus zero
    sign, value = ("-", -value) if value < 0 else ("", value)
    mantissa, _, exponent = f"{value!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    digits = (whole + fraction).lstrip("0")
    # value = 0.digits x 10^point
    point = int(exponent or 0) - len(fraction) + len(digits)
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    power = f"e{point - 1:+d}"
    return sign + digits[0] + ("." + digits[1:] if count > 1 else "") + power
