"""One evaluation: the finished model is checked, measured on documents that it has not seen, and evidence is written.

`python -m tollgate_trainer evaluate` in the evaluation pod and on a laptop. It writes below `evaluation/` and `report/`
of the output folder only; the rest is read-only for it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

import tollgate
from tollgate.contract import (
    Env,
    ErrorWords,
    EvaluationSummary,
    ExitCode,
    FailureReason,
    Files,
    LastWords,
    ModelRef,
    Outcome,
)
from tollgate.gates import evidence
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_canonical
from tollgate.manifest.sections import Evaluation
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer import durable
from tollgate_trainer.data import load_documents
from tollgate_trainer.data.documents import Document
from tollgate_trainer.evaluate import DEFAULT_CONFIDENCE, SETTINGS, measuring, scorers
from tollgate_trainer.evaluate.comparing import Pairing
from tollgate_trainer.evaluate.measuring import Surroundings
from tollgate_trainer.evaluate.samples import Detail, Measured
from tollgate_trainer.evaluate.suites import Task, suite_digest
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.models import ModelInfo, load_finished
from tollgate_trainer.plan.stored import effective
from tollgate_trainer.refusal import DatasetRefused, ManifestRefused, ModelRefused, Refused
from tollgate_trainer.track.following import tell_evaluation
from tollgate_trainer.words import hide, secrets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OUTCOME = "evaluation/outcome.json"
IMAGE = "TOLLGATE_IMAGE"  # the container image with its digest, where the operator tells it


@dataclass(frozen=True, slots=True)
class Request:
    """What is evaluated and how. `model_digest`: the digest that the model must have, None when nobody demands one;
    `baseline`: output root of a run whose model is asked the same; `gated`: metrics that a policy looks at.
    """

    attempt: Attempt
    manifest: TrainingManifest
    manifest_digest: str
    suites: tuple[str, ...]
    confidence: float
    model_digest: str | None
    image: str | None
    settings: Evaluation
    baseline: Path | None = None
    anywhere: bool = False
    gated: tuple[str, ...] = ()

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Request:
        """The request in the environment of the contract. Raises: ManifestRefused, ManifestError."""
        attempt = Attempt.parse(environ)
        loaded = load_canonical(attempt.manifest.read_bytes(), attempt.manifest_digest, str(attempt.manifest))
        named = _names(environ, Env.SUITES)
        return cls(
            attempt=attempt,
            manifest=effective(loaded.manifest, attempt.output_root, loaded.digest),  # the length that was planned
            manifest_digest=loaded.digest,
            suites=named or loaded.manifest.suites,
            confidence=_confidence(environ.get(Env.CONFIDENCE) or str(DEFAULT_CONFIDENCE)),
            model_digest=environ.get(Env.MODEL_DIGEST) or None,
            image=environ.get(IMAGE) or None,
            settings=_settings(environ.get(SETTINGS), loaded.manifest),
            anywhere=bool(environ.get(SETTINGS)),
            gated=_names(environ, Env.GATED),
            baseline=Path(environ[Env.BASELINE]) if environ.get(Env.BASELINE) else None,
        )


def main(environ: Mapping[str, str] | None = None) -> int:
    """Evaluate, leave the words in evaluation/outcome.json, refresh the report; returns the exit code."""
    environ = os.environ if environ is None else environ
    root = Path(environ.get(Env.OUTPUT_ROOT, "")).absolute()
    tracked = False
    try:
        request = Request.parse(environ)
        tracked = request.manifest.tracking is not None
        summary = evaluate(request)
        said = LastWords(
            outcome=Outcome.COMPLETED,
            reason="Completed",
            model=ModelRef(path=Files.MODEL, digest=summary.model_digest),
            evaluation=summary,
        )
        code = ExitCode.COMPLETED
    except (Refused, ManifestError) as error:
        reason = error.reason if isinstance(error, Refused) else FailureReason.MANIFEST
        field = error.field if isinstance(error, Refused) else None
        said, code = _failed(reason, error, field), ExitCode.USER
    except Exception as error:
        traceback.print_exc()
        said, code = _failed(FailureReason.EXCEPTION, error, None), ExitCode.APPLICATION
    said = said.model_copy(update={"ended_at": datetime.now(UTC)})
    durable.write(root / OUTCOME, said.to_json().encode() + b"\n")
    _refresh_report(root)
    if tracked and said.evaluation is not None:
        tell_evaluation(environ, root, lambda message: print(message, file=sys.stderr, flush=True))
    if said.evaluation is not None:
        for metric in said.evaluation.metrics:
            print(describe(metric.name, metric.value, metric.lower, metric.upper, metric.samples), flush=True)
    elif said.error is not None:
        print(f"evaluation failed: {said.error.message}", flush=True)
    return code


def evaluate(request: Request) -> EvaluationSummary:
    """Measure everything that the suites ask for and write the evidence.

    Raises: ModelRefused (missing, or not the model, manifest or data that are expected), DatasetRefused,
    ManifestRefused (unknown suite), intervals.UnmeasuredError: a metric that could not be measured fails the
    evaluation, it is never 0.
    """
    wanted = measuring.asked(request.suites, request.settings)
    attempt, manifest = request.attempt, request.manifest
    folder = attempt.output_root / Files.MODEL
    info = _checked(folder, request)
    documents = load_documents(manifest, attempt.dataset_root)
    if documents.digest != info.dataset_digest:
        raise DatasetRefused(
            f"the dataset has {documents.digest}, the model was trained on {info.dataset_digest}; its held-out part "
            "may differ: restore the data that the model was trained on",
            "dataset.path",
        )
    if not documents.validation:
        raise DatasetRefused(
            "no document is held out, so there is nothing to evaluate on; set splits.validation above 0",
            "dataset.splits.validation",
        )
    around = Surroundings(
        held_out=list({(one.hash, one.question): one for one in documents.validation}.values()),
        max_length=manifest.hyperparameters.max_seq_length,
        settings=request.settings,
        root=attempt.dataset_root,
        trained_on=documents.digest,
        anywhere=request.anywhere,
        quotes=manifest.report.quotes,
    )
    model, tokenizer = load_finished(folder, attempt.dataset_root)
    measured = measuring.measure(wanted, model, tokenizer, around)
    baseline: ModelInfo | None = None
    pairings: dict[str, Pairing] = {}
    if request.baseline is not None:
        try:
            baseline, other, theirs = _baseline(wanted, request.baseline, around)
            pairings, notes = measuring.compare(measured, theirs, (tokenizer, other), request.confidence)
        except ModelRefused as error:  # its files may be gone for good, and this model was measured all the same
            notes = [f"nothing is compared prompt by prompt: {error}"]
        for note in notes:
            print(note, flush=True)
    _freeze_threshold(request, info, around.held_out)
    facts = evidence.Evaluated(
        run=attempt.run,
        uid=attempt.uid,
        model_path=Files.MODEL,
        model_digest=info.digest,
        baseline_digest=baseline.digest if baseline is not None else None,
        manifest_digest=request.manifest_digest,
        dataset_digest=documents.digest,
        suites=list(request.suites),
        suite_digest=suite_digest(measured),
        code_version=tollgate.__version__,
        image=request.image,
        seeds={task.suite.name: task.suite.seed for task, _ in measured},
        scorers=measuring.scorers(measured),
        metrics=measuring.metrics(measured, request.suites, request.confidence, pairings),
        evaluated_at=datetime.now(UTC).replace(microsecond=0),
    )
    data = evidence.statement_bytes(facts)
    durable.write(attempt.output_root / Files.EVIDENCE, data)
    _write_details([one.detail for _, one in measured if one.detail is not None], attempt.output_root, around.quotes)
    return evidence.summary(data, Files.EVIDENCE, request.gated)


def _write_details(details: Sequence[Detail], root: Path, quotes: bool) -> None:
    """What people read beside the numbers; without `quotes` nothing that may quote documents."""
    for detail in details:
        beside = (root / Files.EVIDENCE).parent / detail.name
        if detail.quotes and not quotes:
            print(f"{beside.name}.json is not written: it may quote documents (report.quotes: false)", flush=True)
            for suffix in (".json", ".md"):
                beside.with_suffix(suffix).unlink(missing_ok=True)  # of an evaluation before this one
            continue
        durable.write(beside.with_suffix(".json"), json.dumps(detail.document, indent=1, ensure_ascii=False).encode())
        durable.write(beside.with_suffix(".md"), "\n".join((*detail.lines, "")).encode())


def _refresh_report(root: Path) -> None:
    from tollgate_trainer.report import write

    try:
        write(root)
    except OSError as error:  # the evidence counts; a report can be made again from the same files
        print(f"the report could not be written: {error}; `tollgate report FOLDER` makes it again", flush=True)


def _checked(folder: Path, request: Request) -> ModelInfo:
    """The model's record, after its files, its digest and its manifest were found to be the expected ones."""
    info = ModelInfo.read(folder)
    if info is None:
        raise ModelRefused(f"{folder} holds no finished model; train it to the end first")
    if (problem := info.problem(folder)) is not None:
        raise ModelRefused(f"the model in {folder} was changed after training: {problem}")
    if request.model_digest is not None and info.digest != request.model_digest:
        raise ModelRefused(f"the model in {folder} has {info.digest}, but {request.model_digest} is to be evaluated")
    if info.manifest_digest != request.manifest_digest:
        raise ModelRefused(
            f"the model in {folder} was trained from manifest {info.manifest_digest}, this run has "
            f"{request.manifest_digest}; evaluate it with the manifest it was trained from"
        )
    return info


def _baseline(
    wanted: list[Task], root: Path, around: Surroundings
) -> tuple[ModelInfo, PreTrainedTokenizerBase, list[tuple[Task, Measured]]]:
    """The baseline's finished model on the same prompts. Raises: ModelRefused when there is none or it was changed."""
    folder = root / Files.MODEL
    info = ModelInfo.read(folder)
    if info is None:
        raise ModelRefused(f"the baseline {root} holds no finished model; name the output folder of a finished run")
    if (problem := info.problem(folder)) is not None:
        raise ModelRefused(f"the baseline's model in {folder} was changed after training: {problem}")
    model, tokenizer = load_finished(folder, around.root)
    return info, tokenizer, measuring.measure(wanted, model, tokenizer, around)


def _freeze_threshold(request: Request, info: ModelInfo, documents: Sequence[Document]) -> None:
    """What a classifier needs to be a scorer, where its manifest asks for that.

    Raises: ManifestRefused, DatasetRefused, ModelRefused.
    """
    label, root = request.settings.positive_label, request.attempt.output_root
    if label is None:
        return
    from tollgate_trainer.evaluate import threshold

    field = "evaluation.positive_label"
    model, tokenizer, labels = scorers.classifier(root / Files.MODEL, field)
    if label not in labels or len(labels) != 2:
        raise ManifestRefused(
            f"the model has the labels {', '.join(sorted(labels))}; a threshold needs two of which {label!r} is one",
            field,
        )
    scores = scorers.probabilities(model, tokenizer, model.device, [document.text for document in documents])
    frozen = threshold.freeze(
        scores[:, labels[label]],
        np.asarray([document.label == label for document in documents]),
        [document.hash for document in documents],
        model=info.digest,
        dataset=info.dataset_digest,
        positive_label=label,
    )
    durable.write(root / "evaluation" / threshold.FILE, threshold.to_json(frozen))


def _settings(path: str | None, manifest: TrainingManifest) -> Evaluation:
    """The manifest's `evaluation`, or what a file says instead; the suite's digest tells the two apart."""
    if path is None:
        return manifest.evaluation
    try:
        return Evaluation.model_validate_json(Path(path).read_bytes())
    except (OSError, ValidationError) as error:
        raise ManifestRefused(f"{SETTINGS}={path} can't be used: {error}") from error


def _names(environ: Mapping[str, str], variable: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in environ.get(variable, "").split(",") if name.strip())


def _confidence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.5 <= value < 1:
        raise ManifestRefused(f"{Env.CONFIDENCE}={text} is not a confidence; give a number from 0.5 to below 1")
    return value


def _failed(reason: FailureReason, error: Exception, field: str | None) -> LastWords:
    message = hide(str(error) or type(error).__name__, secrets(os.environ))
    words = ErrorWords(message=message, type=type(error).__name__, field=field)
    return LastWords(outcome=Outcome.FAILED, reason=reason, error=words)


def describe(name: str, value: float, lower: float | None, upper: float | None, samples: int) -> str:
    """One metric for people: `perplexity 41.2 (one-sided bounds 38.9 to 43.7, 240 samples)`."""
    low, high = (f"{bound:.4g}" if bound is not None else "unknown" for bound in (lower, upper))
    return f"{name} {value:.4g} (one-sided bounds {low} to {high}, {samples} samples)"
