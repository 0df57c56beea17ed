"""Prompt sets and task files: JSON lines, checked line by line, with a digest over what was asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollgate.manifest.canonical import digest, serialise
from tollgate_trainer.data.documents import Message
from tollgate_trainer.evaluate.protocol import Subject, drawn_keys
from tollgate_trainer.refusal import DatasetRefused, ManifestRefused


@dataclass(frozen=True, slots=True)
class Prompt:
    """One line of a prompt set: what is asked (a text, or turns), and the line's other texts by name."""

    text: str | tuple[Message, ...]
    others: Mapping[str, str]
    origin: str

    @property
    def key(self) -> str:
        """Hex sha256 of everything that the line says."""
        said = self.text if isinstance(self.text, str) else [[turn.role, turn.content] for turn in self.text]
        return hashlib.sha256(serialise([said, dict(self.others)])).hexdigest()


def named(path: str | None, field: str, what: str) -> str:
    """The path that the manifest gives. Raises: ManifestRefused when it gives none: then nothing is measured."""
    if path is None:
        raise ManifestRefused(f"{what} is not given, so nothing can be measured with it; name it in {field}", field)
    return path


def rows(file: Path, path: str, field: str) -> list[tuple[str, Mapping[str, Any]]]:
    """(origin, object) of each line of a JSONL file, called `path`. Raises: DatasetRefused naming file and line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetRefused(f"{path} can't be read ({error}); put it there, or correct the path", field) from error
    found: list[tuple[str, Mapping[str, Any]]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DatasetRefused(f"{path}:{number} is not JSON: {error}; write one object a line", field) from error
        if not isinstance(record, dict):
            raise DatasetRefused(f"{path}:{number} is no object; write {{...}} a line", field)
        found.append((f"{path}:{number}", record))
    if not found:
        raise DatasetRefused(f"{path} holds no line", field)
    return found


def text_of(record: Mapping[str, Any], name: str, origin: str, field: str) -> str:
    """A line's text. Raises: DatasetRefused when it is missing, empty or no text."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DatasetRefused(f"{origin}: {name} must be a text that is not empty, not {value!r}", field)
    return value


def read(subject: Subject, path: str, field: str, others: Sequence[str] = ()) -> list[Prompt]:
    """The prompts of a set; each line has `prompt` and the named `others`.

    Raises: DatasetRefused, also for a line that says the same as another: it would be counted as an independent sample.
    """
    prompts: list[Prompt] = []
    seen: dict[str, str] = {}
    for origin, record in rows(subject.find(path, field), path, field):
        texts = {name: text_of(record, name, origin, field) for name in others}
        prompt = Prompt(text_of(record, "prompt", origin, field), texts, origin)
        if prompt.key in seen:
            raise DatasetRefused(f"{origin} says the same as {seen[prompt.key]}; remove one of them", field)
        seen[prompt.key] = origin
        prompts.append(prompt)
    return prompts


def chosen(prompts: Sequence[Prompt], subject: Subject, purpose: str) -> list[Prompt]:
    """At most as many prompts as the suite asks for, the same ones whatever the file's order."""
    kept = set(drawn_keys([prompt.key for prompt in prompts], subject.limit, subject.seed, purpose))
    return sorted((prompt for prompt in prompts if prompt.key in kept), key=lambda prompt: prompt.key)


def digest_of(prompts: Iterable[Prompt]) -> str:
    """`sha256:<hex>` over the lines that were asked, whatever their order in the file."""
    return digest(serialise(sorted(prompt.key for prompt in prompts)))
