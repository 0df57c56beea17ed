"""Weights & Biases, online or into files below tracking/ of the output folder. Imported by the teller only."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Read when the library is imported: nothing about the machine or the program goes out but what is told below.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("WANDB_SILENT", "true")

import wandb

from tollgate.manifest.sections import Wandb
from tollgate_trainer.track.choose import HIDDEN_FOLDER
from tollgate_trainer.track.protocol import Beginning, Dataset, Model, Point, Status


class WandbTracker:
    """One W&B run; its id is made from the uid, so it is the same over all attempts. Offline, each attempt leaves a
    folder of that id, and `wandb sync` puts them together.
    """

    def __init__(self, settings: Wandb, root: Path, default_project: str) -> None:
        """settings: with a mode; root: the output folder. Raises: OSError when its folder can't be made."""
        self._settings = settings
        self._project = settings.project or default_project
        self._folder = root / HIDDEN_FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = None

    def open(self, known: str | None, beginning: Beginning) -> str:
        """Start a run, or go on with the one of that id; answers its id."""
        name = known or uuid.uuid5(uuid.NAMESPACE_URL, f"tollgate:{beginning.uid}").hex[:16]
        self._run = wandb.init(
            project=self._project,
            entity=self._settings.entity,
            id=name,
            name=beginning.run,
            resume="allow",
            mode=self._settings.mode,
            dir=str(self._folder),
            tags=self._settings.tags,
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                disable_code=True,
                save_code=False,
                init_timeout=30,
                x_disable_stats=True,
                x_disable_meta=True,
                x_save_requirements=False,
            ),
        )
        self._run.define_metric("*", step_metric="step")  # its own counter can't go on where another process left
        self._run.config.update(
            {"tollgate": {"uid": beginning.uid, "manifest": beginning.manifest_digest}}, allow_val_change=True
        )
        return str(self._run.id)

    def parameters(self, values: Mapping[str, str]) -> None:
        """Into the run's config."""
        self._run.config.update(dict(values), allow_val_change=True)

    def metrics(self, points: Sequence[Point]) -> None:
        """In the order of their steps."""
        for point in points:
            self._run.log({**point.values, "step": point.step})

    def artifact(self, path: Path, folder: str) -> None:
        """A copy among the run's files."""
        self._run.save(str(path), base_path=str(path.parent), policy="now")

    def dataset(self, dataset: Dataset) -> None:
        """Digest, path and counts in the config."""
        told = {"digest": dataset.digest, "path": dataset.path, **dataset.facts}
        self._run.config.update({"dataset": told}, allow_val_change=True)

    def register_model(self, model: Model) -> None:
        """Its digest in the summary; W&B's registry takes files, which Tollgate sends to MLflow only."""
        self._run.summary["model_digest"] = model.digest

    def finish(self, status: Status) -> None:
        """Everything was told."""
        self._run.summary["status"] = str(status)
        self._run.finish(exit_code=1 if status is Status.FAILED else 0)
