"""Total readers of untrusted JSON: each answers with what is there in the expected form, and never raises."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

NOTHING: Mapping[str, str] = MappingProxyType({})


def mapping(value: object) -> Mapping[str, Any]:
    """The value when it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The objects in a list; anything else in it is left out."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def text(value: object) -> str:
    """The value when it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def strings(value: object) -> Mapping[str, str]:
    """The string values of an object, as labels and annotations are."""
    kept = {k: v for k, v in mapping(value).items() if isinstance(k, str) and isinstance(v, str)}
    return MappingProxyType(kept) if kept else NOTHING


def number(value: object) -> int | None:
    """An integer, or a decimal string of one; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if (
        isinstance(value, str)
        and len(value) < 20
        and value.removeprefix("-").isascii()
        and value.removeprefix("-").isdigit()
    ):
        return int(value)
    return None


def instant(value: object) -> datetime | None:
    """An RFC 3339 time with an offset, in UTC; else None."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
        return parsed.astimezone(UTC) if parsed.tzinfo else None
    except (ValueError, OverflowError):
        return None


def controller(meta: Mapping[str, Any]) -> tuple[str, str]:
    """(kind, uid) of the controlling owner, or two empty strings."""
    for owner in mappings(meta.get("ownerReferences")):
        if owner.get("controller") is True:
            return text(owner.get("kind")), text(owner.get("uid"))
    return "", ""


def problem_text(root: str, error: ValidationError) -> str:
    """Pydantic's findings as `spec.limits.maxCostUSD: message`, at most the first five, without the input itself."""
    findings = [
        f"{'.'.join([root, *(str(part) for part in e['loc'])])}: {e['msg'].removeprefix('Value error, ')}"
        for e in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = f"; and {len(findings) - 5} more" if len(findings) > 5 else ""
    return "; ".join(findings[:5]) + more
