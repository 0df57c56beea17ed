"""The usual mistakes in data files, told with what mends them. Pure: text in, words out."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote

UTF16 = (b"\xff\xfe", b"\xfe\xff")
SAID_ELSEWHERE = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant"}
"""Roles as other tools call them, and what they are called here."""


def encoding(file: Path, shown: str) -> str:
    """Where a file stops being UTF-8, and the command that makes it so."""
    data = file.read_bytes()
    name, where = "WINDOWS-1252", ""
    if data.startswith(UTF16):
        name, where = "UTF-16", f"; it is UTF-16, as Excel's {'Unicode text'!r} is"
    else:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            where = f" (line {line}: byte 0x{data[error.start]:02x}; often it is WINDOWS-1252, as Excel writes CSV)"
    new = file.with_name(f"{file.stem}-utf8{file.suffix}").name
    return f"{shown} is not UTF-8{where}. Make it so: iconv -f {name} -t UTF-8 {quote(file.name)} > {quote(new)}"


def json_fault(error: ValueError, text: str, one_line: bool) -> str:
    """What is wrong with a JSON text, where, and the mistake behind it if it is a usual one.

    Args: one_line: the text is a line of a file whose number is told already.
    """
    if not isinstance(error, json.JSONDecodeError):
        return str(error)  # a number of thousands of digits is JSON, and no number to Python
    where = f"column {error.colno}" if one_line else f"line {error.lineno}, column {error.colno}"
    before, here = text[: error.pos].rstrip(), text[error.pos : error.pos + 1]
    fix = ""
    if here in ("]", "}") and before.endswith(","):
        fix = f": remove the comma before this {here}"
    elif before.endswith(",") and here == '"' and error.msg.startswith("Illegal trailing comma"):
        fix = ": remove the comma"
    elif here == "'":
        fix = ": JSON wants double quotes; was a Python dict printed? Write it with json.dumps"
    elif error.msg == "Extra data" and not one_line:
        fix = ": one record a line is read only where the first line is a whole record"
    elif not before and not here:
        fix = ": the file ends here"
    return f"{error.msg.removesuffix(' enclosed in double quotes')}, {where}{fix}"


def role(found: object) -> str:
    """What a role of another tool is called here, or nothing."""
    mine = SAID_ELSEWHERE.get(found.lower()) if isinstance(found, str) else None
    return f"; {found!r} is {mine!r} here" if mine else ""


def content(found: object) -> str:
    """What stands where the text of a turn should be."""
    if found is None:
        return "the content is null; give it a text, or remove the turn"
    if isinstance(found, list):
        return "the content is a list of parts; join its texts to one"
    return f"the content is {type(found).__name__} {str(found)[:40]!r}, not text"


def keys(record: dict[str, object], text: str) -> str:
    """What somebody probably meant whose record fits no format, or nothing.

    Args: text: the text field that was looked for.
    """
    for name, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return f"; the records seem to be the list in {name!r}: keep only that list"
    words = [name for name, value in record.items() if isinstance(value, str)]
    if not words or text in record:
        return ""
    alike = next((name for name in words if text in name.lower()), max(words, key=lambda name: len(str(record[name]))))
    return (
        f"; if the text is in {alike!r}, say `text_field: {alike}` in dataset (for a bare file --text-field {alike!r})"
    )
