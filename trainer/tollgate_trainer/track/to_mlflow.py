"""MLflow: a server, or a database file below the output folder. Imported by the teller only."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

# Read when the library is imported. One try and a short wait: the teller tries again by itself, and says so.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from mlflow import MlflowClient
from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException

from tollgate.manifest.sections import Mlflow
from tollgate.manifest.trackers import SQLITE
from tollgate_trainer.track.protocol import Beginning, Dataset, Model, Point, Rejected, Status

RUN_TAG, DIGEST_TAG = "tollgate.uid", "tollgate.digest"
ARTIFACTS = "artifacts"
_FOREVER = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "NOT_IMPLEMENTED", "INVALID_STATE")
_ODD = re.compile(r"[^\w\-./ ]")
_MOST_METRICS, _MOST_PARAMETERS, _LONGEST_VALUE, _LONGEST_DIGEST = 900, 100, 5000, 36
"""What the server takes in one request."""

T = TypeVar("T")


class MlflowTracker:
    """One tracking run; of our uid there is one in an experiment, however often it is asked for."""

    def __init__(self, settings: Mlflow, root: Path, default_experiment: str) -> None:
        """settings: with a tracking_uri that can be used; root: the output folder, which sqlite paths are relative to.

        Raises: OSError when the folder of the database file can't be made.
        """
        self._settings = settings
        self._experiment = settings.experiment or default_experiment
        self._artifacts: str | None = None
        uri = str(settings.tracking_uri)
        if uri.startswith(SQLITE):
            database = (root / uri.removeprefix(SQLITE)).absolute()
            database.parent.mkdir(parents=True, exist_ok=True)
            uri = f"{SQLITE}{database}"
            self._artifacts = (database.parent / ARTIFACTS).as_uri()
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._run = ""
        self._artifact_uri = ""
        self._known: set[str] = set()

    def open(self, known: str | None, beginning: Beginning) -> str:
        """Start a tracking run, or go on with the one of that id; answers its id."""
        run = self._found(known, beginning) or self._made(beginning)
        self._run, self._artifact_uri = run.info.run_id, run.info.artifact_uri
        self._known = set(run.data.params)
        if run.info.status != "RUNNING":
            self._client.update_run(self._run, status="RUNNING")
        return self._run

    def parameters(self, values: Mapping[str, str]) -> None:
        """Parameters by dotted name; MLflow's can't be changed, so one that was told before keeps its value."""
        new = {_name(key): value[:_LONGEST_VALUE] for key, value in values.items()}
        fresh = [Param(key, value) for key, value in new.items() if key not in self._known]
        for some in _by(fresh, _MOST_PARAMETERS):
            _answer(lambda some=some: self._client.log_batch(self._run, params=some))
        self._known |= set(new)

    def metrics(self, points: Sequence[Point]) -> None:
        """In the order of their steps. The same point twice is one: MLflow's key is name, time, step and value."""
        every = [
            Metric(_name(key), value, int(point.at.timestamp() * 1000), point.step)
            for point in points
            for key, value in point.values.items()
        ]
        for some in _by(every, _MOST_METRICS):
            _answer(lambda some=some: self._client.log_batch(self._run, metrics=some))

    def artifact(self, path: Path, folder: str) -> None:
        """A file, below `folder` ("" for the top)."""
        _answer(lambda: self._client.log_artifact(self._run, str(path), folder or None))

    def dataset(self, dataset: Dataset) -> None:
        """What was trained on. A digest has 36 characters there, so the whole one is a tag."""
        found = MlflowDataset(
            name=dataset.path or "dataset",
            digest=dataset.digest.removeprefix("sha256:")[:_LONGEST_DIGEST],
            source_type="local",
            source=f'{{"uri": "{dataset.path}"}}',
            profile=str({key: round(value, 4) for key, value in dataset.facts.items()}).replace("'", '"'),
        )
        tags = [InputTag("mlflow.data.context", "training"), InputTag(DIGEST_TAG, dataset.digest)]
        _answer(lambda: self._client.log_inputs(self._run, [DatasetInput(found, tags)]))
        _answer(lambda: self._client.set_tag(self._run, "tollgate.dataset", dataset.digest))

    def register_model(self, model: Model) -> None:
        """A version of the registered model for this digest, and the alias on it. The files only where asked for."""
        if self._settings.log_model:
            _answer(lambda: self._client.log_artifacts(self._run, str(model.folder), "model"))
        _answer(lambda: self._client.set_tag(self._run, "tollgate.model", model.digest))
        name = self._settings.registered_model
        if name is None:
            return
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        of_this = self._client.search_model_versions(f"run_id = '{self._run}'")
        version = next((v for v in of_this if v.name == name and v.tags.get(DIGEST_TAG) == model.digest), None)
        if version is None:
            version = _answer(
                lambda: self._client.create_model_version(
                    name,
                    f"{self._artifact_uri}/model",
                    self._run,
                    tags={DIGEST_TAG: model.digest},
                    await_creation_for=0,
                )
            )
        alias = self._settings.alias
        if alias is not None:
            _answer(lambda: self._client.set_registered_model_alias(name, alias, str(version.version)))

    def finish(self, status: Status) -> None:
        """Everything was told."""
        self._client.set_terminated(self._run, str(status), int(time.time() * 1000))

    # --- parts ------------------------------------------------------------------------------------------------------

    def _found(self, known: str | None, beginning: Beginning) -> Any:
        """The run of that id, else the one of our uid: an id may have been lost between making and noting it."""
        if known is not None:
            try:
                run = self._client.get_run(known)
                if run.info.lifecycle_stage == "active":
                    return run
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return None
        found = self._client.search_runs(
            [experiment.experiment_id], f"tags.`{RUN_TAG}` = '{beginning.uid}'", max_results=1
        )
        return found[0] if found else None

    def _made(self, beginning: Beginning) -> Any:
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            number = self._client.create_experiment(self._experiment, self._artifacts)
        elif experiment.lifecycle_stage != "active":
            raise ValueError(f"the experiment {self._experiment} was deleted; restore it, or name another one")
        else:
            number = experiment.experiment_id
        tags = {
            RUN_TAG: beginning.uid,
            "tollgate.run": f"{beginning.namespace}/{beginning.run}".strip("/"),
            "tollgate.manifest": beginning.manifest_digest,
            **self._settings.tags,
        }
        return self._client.create_run(number, tags=tags, run_name=self._settings.run_name or beginning.run)


def _name(name: str) -> str:
    """A name that MLflow takes."""
    return _ODD.sub("_", name)[:250]


def _answer(call: Any) -> Any:
    """The call's answer. Raises: Rejected when the server will never take it."""
    try:
        return call()
    except MlflowException as error:
        if error.error_code in _FOREVER:
            raise Rejected(str(error)) from error
        raise


def _by(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
