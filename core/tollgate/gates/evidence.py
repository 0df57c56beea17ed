"""Evidence: an in-toto Statement about a model, its digest, and the summary that verdicts are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.api.training_run import EvaluationStatus
from tollgate.contract import EvaluationSummary, Metric

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://tollgate.dev/evaluation/v1"


class EvidenceError(ValueError):
    """A statement that is not evidence; the message names the field."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """What measured a metric."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Everything that a statement says. Digests are `sha256:<hex>`; `image` is absent on a laptop."""

    run: str
    uid: str
    model_path: str
    model_digest: str
    manifest_digest: str
    dataset_digest: str
    suites: Sequence[str]
    suite_digest: str
    code_version: str
    image: str | None
    seeds: Mapping[str, int]
    scorers: Sequence[Scorer]
    metrics: Sequence[Metric]
    evaluated_at: datetime


def policy_digest(policy: PromotionPolicySpec) -> str:
    """`sha256:<hex>` of the policy's canonical JSON without defaults: writing a default out changes nothing."""
    raise NotImplementedError


def statement_bytes(evaluated: Evaluated) -> bytes:
    """The statement's canonical bytes: what is written to evaluation/evidence.json.

    Raises: EvidenceError for a digest of another form, a metric that is not finite, or no metric's name twice.
    """
    raise NotImplementedError


def evidence_digest(data: bytes) -> str:
    """`sha256:<hex>` of the file's bytes."""
    raise NotImplementedError


def parse_statement(data: bytes, expected_digest: str | None = None) -> Evaluated:
    """The statement in the file. Raises: EvidenceError when it is not one, not canonical, or not of the expected digest."""
    raise NotImplementedError


def summary(data: bytes, path: str) -> EvaluationSummary:
    """What the last words of an evaluation carry. `path`: where the file lies, relative to the output root."""
    raise NotImplementedError


def evaluation_status(words: EvaluationSummary) -> EvaluationStatus:
    """The operator's copy, state Succeeded."""
    raise NotImplementedError


def document(evaluated: Evaluated) -> dict[str, Any]:
    """The statement as JSON values."""
    raise NotImplementedError
