"""The dataset section: what can't be asked for together, refused when the manifest is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tollgate.manifest.errors import Problem
from tollgate.manifest.training_manifest import TrainingManifest

_TARGETS = ("classification", "span", "joint")
"""Formats with a target beside the text. What tasks with a head need is checked in learning.py."""


def problems(manifest: TrainingManifest) -> Iterator[Problem]:
    """Every contradiction between the dataset's fields and the task, each with its fix."""
    yield from _formats(manifest)
    yield from _names(manifest)


def _formats(manifest: TrainingManifest) -> Iterator[Problem]:
    dataset = manifest.dataset
    given = [("dataset.format", dataset.format)]
    given += [(f"dataset.sources[{i}].format", s.format) for i, s in enumerate(dataset.sources) if s.format is not None]
    for field, format in given:
        if manifest.task == "causal-lm" and format in _TARGETS:
            yield Problem(
                field,
                format,
                "task causal-lm learns text and would not see the targets of this format",
                f"Write `task: {format}`, or `format: text` to learn the text field alone.",
            )


def _names(manifest: TrainingManifest) -> Iterator[Problem]:
    """Sources are told apart by their names, in events and in eval_loss/<name>."""
    seen = {_name(manifest.dataset.path)}
    for index, source in enumerate(manifest.dataset.sources):
        name = source.name or _name(source.path)
        if name in seen:
            yield Problem(
                f"dataset.sources[{index}].name",
                name,
                "another source has this name (by default the file's, without suffix)",
                "Give this one a `name` of its own.",
            )
        seen.add(name)


def _name(path: str) -> str:
    """As tollgate_trainer.data.sources.name_of."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", PurePosixPath(path).stem).strip("-") or "data"
