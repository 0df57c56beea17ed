"""What a plain YAML scalar means, and which plain scalars do not mean the same to everybody.

Three readings meet on a manifest's way: YAML 1.2's core schema (what people read in the specification today), YAML
1.1 (PyYAML and
most older tools), and the reader in kubectl and Helm, which is 1.1 with a taste for Go's number literals. A scalar
that any two of them read
differently is refused, because one of them would change it silently before the operator sees it. The one exception is
`1e-4`,
which only PyYAML takes for text: learning rates are written like this, and every reader that touches a manifest here
sees a number.
"""

from __future__ import annotations

import re

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

_DIFFERENT: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"y|Y|yes|Yes|YES|on|On|ON"),
        "YAML 1.1 and kubectl read true, YAML 1.2 reads text",
    ),
    (re.compile(r"n|N|no|No|NO|off|Off|OFF"), "YAML 1.1 and kubectl read false, YAML 1.2 reads text"),
    (re.compile(r"[-+]?0[0-9_]+"), "YAML 1.1 and kubectl read an octal number, YAML 1.2 a decimal one"),
    (
        re.compile(
            r"[-+]?0[oO][0-7_]+|[-+]?0[bB][01_]+|[-+]0x[0-9a-fA-F_]+|0x[0-9a-fA-F_]*_[0-9a-fA-F_]*|[-+]?0X[0-9a-fA-F_]+"
        ),
        "some readers take a number in another base, others text",
    ),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"),
        "YAML 1.1 reads a number of base 60, YAML 1.2 reads text",
    ),
    (
        re.compile(
            r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
            r"(([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]*)?([ \t]*(Z|[-+][0-9]{1,2}(:?[0-9]{2})?))?)?"
        ),
        "YAML 1.1 reads a date, YAML 1.2 reads text",
    ),
    (
        re.compile(r"[-+]\.[0-9]+([eE][-+]?[0-9]+)?"),
        "PyYAML reads text where no digit stands before the point, the others a number",
    ),
    (re.compile(r"<<|="), "YAML 1.1 gives it a special meaning, YAML 1.2 reads text"),
)

# A number once its underscores are gone, wherever they stood: YAML 1.1 and kubectl differ in where they allow them.
_NUMBER = re.compile(rf"{_FLOAT.pattern}|[-+]?0([xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")

Scalar = str | int | float | bool | None


def disagreement(text: str) -> str | None:
    """Why readers disagree on this plain scalar, as half a sentence; None when they agree."""
    if why := next((why for pattern, why in _DIFFERENT if pattern.fullmatch(text)), None):
        return why
    if "_" in text and text[0] in "+-.0123456789" and _NUMBER.fullmatch(text.replace("_", "")):
        return "YAML 1.1 and kubectl drop the underscores and read a number, YAML 1.2 reads text"
    return None


def plain(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar on which readers agree; not finite where the text says so."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text) and len(text) <= 400:
        return int(text)
    if _HEX.fullmatch(text) and len(text) <= 400:
        return int(text, 16)
    if _FLOAT.fullmatch(text) or _SPECIAL.fullmatch(text):
        return float(
            text.replace(".inf", "inf")
            .replace(".Inf", "inf")
            .replace(".INF", "inf")
            .replace(".nan", "nan")
            .replace(".NaN", "nan")
            .replace(".NAN", "nan")
        )
    return text
