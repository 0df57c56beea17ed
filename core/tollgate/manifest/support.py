"""What this version does not do yet: refused aloud, never ignored.

One table. Whoever adds a feature deletes its row; nothing else in the loader knows about versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tollgate.manifest import evaluating, trackers
from tollgate.manifest.combinations import impossible
from tollgate.manifest.errors import Problem
from tollgate.manifest.training_manifest import TrainingManifest


@dataclass(frozen=True, slots=True)
class Row:
    """A field, the values of it that have effect, and what to do instead of another one."""

    field: str
    works: tuple[Any, ...]
    instead: str


NOT_YET: tuple[Row, ...] = (
    Row("framework", ("transformers",), "Write `framework: transformers`, or remove it."),
    Row("safety_metrics", (None,), "Remove it; gates judge what the evaluation suites measure."),
    Row("model.trust_remote_code", (False,), "Remove it; models that bring their own code are not run."),
    Row("log_dir", (None,), "Remove it: logs lie in logs/ of the run's own folder."),
    Row("tracking.comet", (None,), "Remove it, or use tracking.mlflow or tracking.wandb."),
)


def unsupported(manifest: TrainingManifest) -> list[Problem]:
    """What the manifest asks for and this version, or any, cannot do. `manifest` has its short forms resolved."""
    problems = evaluating.problems(manifest.evaluation)
    for row in NOT_YET:
        value = _at(manifest, row.field)
        if not any(value is works or (type(value) is type(works) and value == works) for works in row.works):
            problems.append(Problem(row.field, value, "this version of Tollgate does not do this yet", row.instead))
    return problems + impossible(manifest) + trackers.problems(manifest.tracking)


def _at(manifest: TrainingManifest, field: str) -> Any:
    value: Any = manifest
    for name in field.split("."):
        if value is None:
            return None
        value = getattr(value, name)
    return value
