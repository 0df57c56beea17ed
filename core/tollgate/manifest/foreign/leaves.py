"""A foreign file -> its values by dotted key, with Hydra's interpolations resolved where that takes no program.

Unlike a manifest, such a file was written for PyYAML or OmegaConf and is read as they read it.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from tollgate.manifest.errors import ABSENT, ManifestError, Problem

_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+")
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_PLAIN = re.compile(r"\.*[A-Za-z_][\w-]*(\.[\w-]+)*")
_MOST_PASSES = 20
_LONGEST = 4096  # references of references of references may grow without end


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value. key: dotted, as written; unresolved: the interpolation that could not be followed, "" when none."""

    key: str
    value: Any
    source: str
    unresolved: str = ""


class _Loader(yaml.SafeLoader):
    """Plain values only; `1e-4` is a number, as OmegaConf and everybody who writes it means."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read(data: bytes, source: str) -> dict[str, Any]:
    """The mapping in a JSON or YAML file. Raises: ManifestError when it is none."""
    if source.lower().endswith((".py", ".ipynb")):
        fix = (
            "Let it write its arguments, and import that: json.dump(args.to_dict(), open('training.json', 'w')), and "
            "the same with LoraConfig(...).to_dict()."
        )
        raise ManifestError(source, [Problem("", ABSENT, "a program can't be read, only a configuration", fix)])
    try:
        text = data.decode("utf-8-sig")
        is_json = source.lower().endswith(".json")
        value = json.loads(text) if is_json else yaml.load(text, Loader=_Loader)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        language = "JSON" if source.lower().endswith(".json") else "YAML"
        problem = Problem(
            "", ABSENT, f"this is not {language} that can be read: {error}", "Mend it, then import again."
        )
        raise ManifestError(source, [problem]) from error
    if not isinstance(value, dict):
        raise ManifestError(source, [Problem("", ABSENT, "this holds no mapping of fields", "Is it the right file?")])
    return value


def shape(documents: Sequence[Mapping[str, Any]]) -> str:
    """Which kind of configuration it is, in words; the mapping is by key and does not depend on it."""
    if any("_target_" in leaf.key or "${" in str(leaf.value) for d in documents for leaf in flatten(d, "")):
        return "Hydra-style YAML"
    if any("defaults" in document for document in documents):
        return "Hydra-style YAML"
    if any(isinstance(value, Mapping) for document in documents for value in document.values()):
        return "sections"
    return "flat keys"


def flatten(document: Mapping[str, Any], source: str, parent: str = "") -> Iterator[Leaf]:
    """Every value that is no mapping, with its dotted key; lists are values, but for a list of one mapping."""
    for key, value in document.items():
        name = f"{parent}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, source, f"{name}.")
        elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
            yield from flatten(value[0], source, f"{name}[0].")
        else:
            yield Leaf(name, _plain(value), source)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def resolve(leaves: Sequence[Leaf]) -> list[Leaf]:
    """The leaves with `${a.b}`, `${.sibling}` and `prefix-${a.b}` replaced by what they name.

    Resolvers (`${now:...}`, `${oc.env:...}`), circles and names of nothing stay, and are marked.
    """
    values = [leaf.value for leaf in leaves]
    for _ in range(_MOST_PASSES):
        known = {leaf.key: value for leaf, value in reversed(list(zip(leaves, values, strict=True)))}  # the first wins
        followed = [_follow(leaf.key, value, known) for leaf, value in zip(leaves, values, strict=True)]
        if followed == values:
            break
        values = followed
    return [replace(leaf, value=value, unresolved=_open(value)) for leaf, value in zip(leaves, values, strict=True)]


def _open(value: Any) -> str:
    match = _REFERENCE.search(json.dumps(value))
    return match[0] if match else ""


def _follow(key: str, value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_follow(key, item, known) for item in value]
    if not isinstance(value, str):
        return value
    if (whole := _REFERENCE.fullmatch(value)) is not None:
        found = _named(key, whole[1], known)
        return value if found is ABSENT else found

    def text(match: re.Match[str]) -> str:
        found = _named(key, match[1], known)
        return match[0] if found is ABSENT or isinstance(found, list | dict) else str(found)

    replaced = _REFERENCE.sub(text, value)
    return replaced if len(replaced) <= _LONGEST else value


def _named(key: str, reference: str, known: Mapping[str, Any]) -> Any:
    reference = reference.strip()
    if not _PLAIN.fullmatch(reference):
        return ABSENT
    dots = len(reference) - len(reference.lstrip("."))
    if dots:
        parts = key.split(".")
        if dots > len(parts):
            return ABSENT
        reference = ".".join([*parts[: len(parts) - dots], reference.lstrip(".")])
    value = known.get(reference, ABSENT)
    return ABSENT if reference == key else value
