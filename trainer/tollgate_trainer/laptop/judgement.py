"""Judges a run on this machine by a promotion policy, with the function that the operator judges with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from tollgate.api.promotion_policy import KIND, PromotionPolicySpec
from tollgate.api.training_run import EvaluationStatus, GateStatus
from tollgate.contract import API_VERSION, Files, LastWords
from tollgate.gates import evidence, verdict
from tollgate_trainer import durable
from tollgate_trainer.laptop.preparation import LaptopError

GATES = "evaluation/gates.json"


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy and what to call it."""

    name: str
    spec: PromotionPolicySpec


def read_policy(path: Path) -> Policy:
    """The PromotionPolicy in a YAML file (the only one, when there are several documents).

    Raises: LaptopError naming the file, the field and what is wrong.
    """
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if isinstance(d, dict)]
    except UnicodeDecodeError as error:
        raise LaptopError(f"the policy {path} is not UTF-8 text: {error.reason}; save it as UTF-8") from error
    except (OSError, yaml.YAMLError) as error:
        raise LaptopError(f"the policy {path} can't be read: {error}; mend it there") from error
    found = [d for d in documents if d.get("kind") == KIND and d.get("apiVersion") == API_VERSION]
    if len(found) != 1:
        kinds = ", ".join(str(d.get("kind")) for d in documents) or "nothing"
        raise LaptopError(
            f"{path} must hold one {KIND} of {API_VERSION}; it holds {kinds}. docs/how-to/evaluate.md shows one"
        )
    try:
        spec = PromotionPolicySpec.model_validate(found[0].get("spec"))
    except ValidationError as error:
        problems = "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise LaptopError(f"{path}: {problems}") from error
    return Policy(str((found[0].get("metadata") or {}).get("name") or path.stem), spec)


def judge(root: Path, policy: Policy, baseline: Path | None = None) -> list[GateStatus]:
    """Verdicts on the evaluation in an output folder, noted beside the evidence. No evidence is Inconclusive.

    baseline: the output folder of the run that checks with maxRegression compare with.
    Raises: LaptopError when the folder has no result of a finished training, or the evidence is not evidence.
    """
    try:
        said = LastWords.parse((root / Files.RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        said = None
    if said is None or said.model is None:
        raise LaptopError(f"{root} holds no finished training; run it to the end first")
    status = evaluation(root)
    manifest = _manifest_digest(root)
    expected = verdict.Expected(model=said.model.digest, manifest=manifest)
    compared = evaluation(baseline) if baseline is not None else None
    stages = verdict.judge(policy.spec, status, compared, expected)
    document = {
        "schema": 1,
        "policy": policy.name,
        "stages": [stage.model_dump(mode="json", by_alias=True, exclude_none=True) for stage in stages],
    }
    durable.write(root / GATES, json.dumps(document, indent=1).encode() + b"\n")
    return stages


def evaluation(root: Path) -> EvaluationStatus | None:
    """What the evidence in an output folder says, None without. Raises: LaptopError when it is not evidence."""
    try:
        data = (root / Files.EVIDENCE).read_bytes()
        return evidence.evaluation_status(evidence.summary(data, Files.EVIDENCE))
    except FileNotFoundError:
        return None
    except evidence.EvidenceError as error:
        raise LaptopError(f"{root / Files.EVIDENCE}: {error}; evaluate again") from error


def _manifest_digest(root: Path) -> str | None:
    try:
        info = json.loads((root / Files.MODEL / Files.MODEL_INFO).read_text(encoding="utf-8"))
        return str(info["manifest_digest"])
    except (FileNotFoundError, ValueError, KeyError):
        return None  # judged Inconclusive: nobody knows what the model was made from
