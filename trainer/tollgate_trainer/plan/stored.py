"""plan.json in the output folder: written by the first attempt, kept by the ones that go on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tollgate.contract import Files
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning import document
from tollgate.planning.document import Belongs, Kept, PlanError
from tollgate_trainer import durable
from tollgate_trainer.refusal import OutputRefused


def write(output_root: Path, plan: dict[str, Any]) -> Path:
    """Put the plan there, whole or not at all. Raises: OSError."""
    path = output_root / Files.PLAN
    durable.write(path, json.dumps(plan, indent=1, allow_nan=False).encode() + b"\n")
    return path


def kept(output_root: Path, belongs: Belongs, resumed: bool) -> Kept | None:
    """The plan that this attempt has to keep, or None when it makes one of its own.

    A plan is kept by the same run of the same manifest and data. From a checkpoint it is kept on any number of
    processes, because a step sees the same samples then; without one, only on the number that it was made for.
    Raises: OutputRefused for a file that is no plan: to go on by other numbers would change the training silently.
    """
    path = output_root / Files.PLAN
    try:
        found = document.read(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (PlanError, UnicodeDecodeError) as error:
        raise OutputRefused(
            f"{path} is not a plan ({error}); restore it, or remove it if the run has no checkpoint yet"
        ) from error
    theirs = found.belongs
    same = (theirs.uid, theirs.manifest_digest, theirs.dataset_digest) == (
        belongs.uid,
        belongs.manifest_digest,
        belongs.dataset_digest,
    )
    return found if same and (resumed or theirs.world == belongs.world) else None


def effective(manifest: TrainingManifest, output_root: Path, manifest_digest: str) -> TrainingManifest:
    """The manifest as the run in this folder was trained by it, for whoever looks at the finished model.

    Raises: OutputRefused for a file that is no plan.
    """
    if manifest.optimization_priority == "none":
        return manifest
    path = output_root / Files.PLAN
    try:
        found = document.read(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return manifest
    except (PlanError, UnicodeDecodeError) as error:
        raise OutputRefused(f"{path} is not a plan ({error}); restore it") from error
    if found.belongs.manifest_digest != manifest_digest:
        return manifest
    return document.planned(manifest, found.chosen, found.save_minutes)
