"""The trackers that a manifest asks for, refused before training where one can't work. Imports no tracker's library."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tollgate.manifest import trackers
from tollgate.manifest.sections import Mlflow, Wandb
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.refusal import ManifestRefused
from tollgate_trainer.track.protocol import Tracker

MLFLOW_URI = "MLFLOW_TRACKING_URI"
DEFAULT_URI = f"{trackers.SQLITE}tracking/mlflow.db"
HIDDEN_FOLDER = "tracking"


@dataclass(frozen=True, slots=True)
class Kind:
    """A tracker: its library (and the extra of tollgate that brings it), and its class, loaded by the teller only."""

    library: str
    module: str
    made_by: str


KINDS: Mapping[str, Kind] = {
    "mlflow": Kind("mlflow", "tollgate_trainer.track.to_mlflow", "MlflowTracker"),
    "wandb": Kind("wandb", "tollgate_trainer.track.to_wandb", "WandbTracker"),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A tracker that the manifest asks for. settings: its section, with what the environment says filled in."""

    name: str
    settings: Mlflow | Wandb

    def make(self, root: Path, manifest: TrainingManifest) -> Tracker:
        """The tracker; imports its library, which takes seconds. root: the output folder."""
        kind = KINDS[self.name]
        made_by: Callable[..., Any] = getattr(importlib.import_module(kind.module), kind.made_by)
        return cast("Tracker", made_by(self.settings, root, manifest.name))


def wanted(manifest: TrainingManifest, environ: Mapping[str, str]) -> tuple[Wanted, ...]:
    """The trackers to tell.

    Raises: ManifestRefused when a library is missing or the environment names a store that can't be used.
    """
    asked = manifest.tracking
    if asked is None:
        return ()
    found: list[Wanted] = []
    if asked.mlflow is not None:
        found.append(Wanted("mlflow", asked.mlflow.model_copy(update={"tracking_uri": _uri(asked.mlflow, environ)})))
    if asked.wandb is not None:
        mode = asked.wandb.mode or _mode(environ)
        if mode == "online" and not _credentials(environ):
            raise ManifestRefused(
                "W&B has no credentials here; set WANDB_API_KEY in the environment (a Secret in a cluster), or write "
                "mode: offline",
                "tracking.wandb.mode",
            )
        if mode != "disabled":
            found.append(Wanted("wandb", asked.wandb.model_copy(update={"mode": mode})))
    for one in found:
        library = KINDS[one.name].library
        if importlib.util.find_spec(library) is None:
            raise ManifestRefused(
                f"{library} is not installed here; install tollgate[{one.name}], or remove the section",
                f"tracking.{one.name}",
            )
    return tuple(found)


def _uri(asked: Mlflow, environ: Mapping[str, str]) -> str:
    uri = asked.tracking_uri or environ.get(MLFLOW_URI) or DEFAULT_URI
    if (wrong := trackers.uri_problem(uri)) is not None:
        message, fix = wrong
        raise ManifestRefused(f"{MLFLOW_URI} of the environment can't be used: {message}. {fix}", "tracking.mlflow")
    return uri


def _mode(environ: Mapping[str, str]) -> str:
    said = environ.get("WANDB_MODE") or "online"
    if said not in ("online", "offline", "disabled"):
        raise ManifestRefused(
            f"WANDB_MODE={said} of the environment is not online, offline or disabled", "tracking.wandb.mode"
        )
    return said


def _credentials(environ: Mapping[str, str]) -> bool:
    """A key, or a file that W&B's own login left."""
    home = environ.get("HOME")
    netrc = Path(environ.get("NETRC") or Path(home or "/") / ".netrc")
    return bool(environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE")) or netrc.is_file()
