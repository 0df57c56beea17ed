"""What a `tracking` section asks for that no tracker can do: refused when the manifest is read, with the fix."""

from __future__ import annotations

from urllib.parse import urlsplit

from tollgate.manifest.errors import Problem
from tollgate.manifest.sections import Mlflow, Tracking

SQLITE = "sqlite:///"


def problems(tracking: Tracking | None) -> list[Problem]:
    """What is wrong with the section."""
    mlflow = tracking.mlflow if tracking is not None else None
    if mlflow is None:
        return []
    found = []
    if mlflow.tracking_uri is not None and (wrong := uri_problem(mlflow.tracking_uri)) is not None:
        message, fix = wrong
        shown = mlflow.tracking_uri if "@" not in mlflow.tracking_uri else "(an address with credentials)"
        found.append(Problem("tracking.mlflow.tracking_uri", shown, message, fix))
    return found + _without_model(mlflow)


def uri_problem(uri: str) -> tuple[str, str] | None:
    """(what is wrong with an MLflow tracking URI, what to write instead); None when it can be used."""
    local = f"Write {SQLITE}tracking/mlflow.db (relative to the output folder), or the http(s) address of a server."
    if uri.startswith(SQLITE):
        return None if uri.removeprefix(SQLITE).strip("/") else ("it names no database file", local)
    try:
        parts = urlsplit(uri)
        name = parts.hostname
    except ValueError as error:
        return f"it is not an address ({error})", local
    if parts.scheme in ("http", "https"):
        if parts.username is not None or parts.password is not None:
            variables = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN,"
            return (
                "credentials in an address end up in logs and in the model's record",
                f"Remove them from it and set {variables} in the environment (a Secret in a cluster).",
            )
        return None if name else ("it names no host", local)
    if parts.scheme in ("", "file"):
        return "MLflow no longer keeps runs in a folder of files", local
    return f"a store of kind {parts.scheme} is not spoken to", local


def _without_model(mlflow: Mlflow) -> list[Problem]:
    if mlflow.alias is None or mlflow.registered_model is not None:
        return []
    return [
        Problem(
            "tracking.mlflow.alias",
            mlflow.alias,
            "an alias names a version of a registered model, and none is named",
            "Set tracking.mlflow.registered_model, or remove it.",
        )
    ]
