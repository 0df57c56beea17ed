"""Short forms (`seed`, `bf16`, `wandb_logging` ...) -> the one field that each stands for, and contradictions between
spellings.
"""

from __future__ import annotations

import copy
from typing import Any

from tollgate.manifest.errors import Problem
from tollgate.manifest.sections import DEFAULT_CONFIG

Document = dict[str, Any]


def resolve(document: Document) -> tuple[Document, list[Problem]]:
    """The document with only long forms, and each pair of spellings that contradict each other.

    Args: document: normal and valid by type (normal.py, TrainingManifest); it is not changed.
    """
    long = copy.deepcopy(document)
    problems: list[Problem] = []
    _same(long, "seed", "reproducibility", "seed", problems)
    _same(long, "evaluation_enabled", "evaluation", "enabled", problems)
    _precision(long, problems)
    _wandb(long, problems)
    _exclusive(long, problems)
    model = long.setdefault("model", {})
    if "base" not in model and "config" not in model:
        model["config"] = copy.deepcopy(DEFAULT_CONFIG)
    return long, problems


def _contradiction(field: str, value: Any, other: str, other_value: Any, fix: str) -> Problem:
    return Problem(field, value, f"this and {other} ({_shown(other_value)}) contradict each other", fix)


def _shown(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _same(document: Document, short: str, section: str, name: str, problems: list[Problem]) -> None:
    """A top-level field that is another name of section.name."""
    if short not in document:
        return
    value = document.pop(short)
    below = document.setdefault(section, {})
    if name in below and below[name] != value:
        problems.append(
            _contradiction(
                short, value, f"{section}.{name}", below[name], f"Keep one: `{short}` is short for `{section}.{name}`."
            )
        )
    below.setdefault(name, value)


def _precision(document: Document, problems: list[Problem]) -> None:
    """bf16 and fp16 -> precision. Both false means full precision, as it does in transformers; `auto` would not keep
    that.
    """
    hyperparameters = document.get("hyperparameters", {})
    flags = {name: hyperparameters.pop(name) for name in ("bf16", "fp16") if name in hyperparameters}
    if not flags:
        return
    wanted = [name for name, on in flags.items() if on]
    if len(wanted) == 2:
        problems.append(
            _contradiction(
                "hyperparameters.bf16", True, "hyperparameters.fp16", True, "Keep one, or write `precision: bf16`."
            )
        )
        return
    implied = wanted[0] if wanted else "fp32"
    said = document.setdefault("precision", implied)
    refused = [name for name, on in flags.items() if not on and said in (name, "auto")]
    if wanted and said != implied:
        flag, on = implied, True
    elif refused:
        flag, on = refused[0], False
    else:
        return
    fix = "Keep one: `precision` is the long form (auto, bf16, fp16, fp32)."
    problems.append(_contradiction(f"hyperparameters.{flag}", on, "precision", said, fix))


def _wandb(document: Document, problems: list[Problem]) -> None:
    """wandb_logging and wandb_project -> tracking.wandb."""
    logging, project = document.pop("wandb_logging", None), document.pop("wandb_project", None)
    if logging is None and project is None:
        return
    tracking = document.setdefault("tracking", {})
    said = tracking.get("wandb")
    if logging is False:
        if said is not None:
            problems.append(
                _contradiction(
                    "wandb_logging", False, "tracking.wandb", said, "Keep one: remove tracking.wandb, or wandb_logging."
                )
            )
        return
    below = tracking.setdefault("wandb", {})
    if project is None:
        return
    if "project" in below and below["project"] != project:
        problems.append(
            _contradiction(
                "wandb_project",
                project,
                "tracking.wandb.project",
                below["project"],
                "Keep one: the short form is for that field.",
            )
        )
    below.setdefault("project", project)


def _exclusive(document: Document, problems: list[Problem]) -> None:
    """Two fields that answer one question in different units."""
    hyperparameters, model = document.get("hyperparameters", {}), document.get("model", {})
    if "warmup_steps" in hyperparameters and "warmup_ratio" in hyperparameters:
        problems.append(
            _contradiction(
                "hyperparameters.warmup_steps",
                hyperparameters["warmup_steps"],
                "hyperparameters.warmup_ratio",
                hyperparameters["warmup_ratio"],
                "Keep one of the two.",
            )
        )
    if "base" in model and "config" in model:
        problems.append(
            _contradiction(
                "model.base",
                model["base"],
                "model.config",
                "{...}",
                "Keep base to train on from it, or config to start from scratch.",
            )
        )
    if "revision" in model and "base" not in model:
        problems.append(
            Problem(
                "model.revision",
                model["revision"],
                "a revision of no model: model.base is absent",
                "Add model.base, or remove it.",
            )
        )
    adapter = document.get("adapter", {})
    if adapter and adapter.get("type", "none") == "none":
        problems.extend(
            Problem(
                f"adapter.{name}",
                value,
                "this has no effect while adapter.type is none",
                "Write `type: lora`, or remove it.",
            )
            for name, value in adapter.items()
            if name != "type"
        )
    if document.get("tracking") == {}:
        document.pop("tracking")
