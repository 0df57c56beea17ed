"""`tracking`: who else is told how a training goes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tollgate.manifest.sections.section import Section


class Mlflow(Section):
    """An MLflow server or a database file; credentials come from the environment only (docs/how-to/track.md)."""

    tracking_uri: str | None = Field(
        default=None,
        min_length=1,
        description="http(s)://, or sqlite:///PATH relative to the output folder. Default: MLFLOW_TRACKING_URI of the "
        "environment, else sqlite:///tracking/mlflow.db.",
    )
    experiment: str | None = Field(default=None, min_length=1, description="Default: the manifest's name.")
    run_name: str | None = Field(default=None, min_length=1, description="Default: the run's name.")
    registered_model: str | None = Field(
        default=None, pattern=r"^[^/:]+$", description="Register the finished model as a version of this model."
    )
    alias: str | None = Field(
        default=None, pattern=r"^[A-Za-z][\w-]*$", description="Let this alias of the model name the new version."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="On the tracking run.")
    log_model: bool = Field(default=False, description="Send the model's files too; else only model_info.json.")


class Wandb(Section):
    """Weights & Biases; credentials come from the environment only (docs/how-to/track.md)."""

    project: str | None = Field(default=None, min_length=1, description="Default: the manifest's name.")
    entity: str | None = Field(default=None, min_length=1, description="The team. Default: your own account's.")
    mode: Literal["online", "offline", "disabled"] | None = Field(
        default=None,
        description="offline: files below tracking/ of the output folder, for `wandb sync`. Default: WANDB_MODE of the "
        "environment, else online.",
    )
    tags: list[str] = Field(default_factory=list, description="On the tracking run.")


class Tracking(Section):
    """Experiment trackers. None of them ends or slows a training: what fails is said, and told later."""

    mlflow: Mlflow | None = None
    wandb: Wandb | None = None
    comet: dict[str, Any] | None = Field(default=None, description="Not in this version.")
