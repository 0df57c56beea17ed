"""Evidence: an in-toto Statement about a model, its digest, and the summary that verdicts are made from.

The file evaluation/evidence.json holds exactly the canonical bytes (RFC 8785) of the statement, and its digest is the
SHA-256 of these bytes: who has the file can check it against the status without knowing this code. Source of the
envelope: in-toto Attestation Framework, Statement layer v1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.api.training_run import EvaluationState, EvaluationStatus, MetricStatus
from tollgate.contract import EvaluationSummary, Metric
from tollgate.manifest.canonical import digest as digest_of
from tollgate.manifest.canonical import serialise

STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Literal["https://tollgate.dev/evaluation/v1"] = "https://tollgate.dev/evaluation/v1"

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


class EvidenceError(ValueError):
    """A statement that is not evidence; the message names the fields and what is wrong with each."""


class _Strict(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class RocPoint(_Strict):
    """What a scorer does on held-out data at one threshold: shares of the positives and of the negatives it marks."""

    threshold: Finite
    sensitivity: Finite
    false_alarms: Finite


class Scorer(_Strict):
    """What measured a metric. Its own sensitivity and specificity, where it has them, stand in `properties`, its
    held-out ROC in `roc`; `digest` covers its files.
    """

    name: Text
    version: Text
    properties: dict[str, Finite] = Field(default_factory=dict)
    digest: Digest | None = None
    roc: list[RocPoint] = Field(default_factory=list)


class Decoding(_Strict):
    """How the completions behind a metric were made. temperature 0 takes the likeliest token each time."""

    form: Literal["chat", "plain"]
    max_new_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0, allow_inf_nan=False)
    completions: int = Field(ge=1)
    batch: int = Field(ge=1)
    seed: int


class Comparison(_Strict):
    """The same prompts asked of the baseline: its value, and for rates McNemar's exact two-sided p-value.

    The paired difference with its bounds is the metric `<name>_delta`.
    """

    value: Finite
    mcnemar: Finite | None = None


class Measured(_Strict):
    """One metric with its one-sided bounds at `confidence`; `scorer` names one of the statement's scorers.

    advisory: why no gate may rest on it. prompts: digest of what was asked.
    """

    name: Text
    value: Finite
    lower: Finite | None = None
    upper: Finite | None = None
    confidence: float = Field(gt=0, lt=1)
    samples: int = Field(ge=0)
    scorer: str | None = None
    advisory: Text | None = None
    prompts: Digest | None = None
    decoding: Decoding | None = None
    comparison: Comparison | None = None


class Evaluated(_Strict):
    """Everything that a statement says about one model. Digests are `sha256:<hex>`; a laptop has no image.

    Raises: pydantic's ValidationError (a ValueError) naming the fields: no NaN, no metric twice, no naive time.
    """

    run: Text
    uid: Text
    model_path: Text
    model_digest: Digest
    baseline_digest: Digest | None = None
    manifest_digest: Digest
    dataset_digest: Digest
    suites: list[Text] = Field(min_length=1)
    suite_digest: Digest
    code_version: Text
    image: str | None = None
    seeds: dict[str, int] = Field(min_length=1)
    scorers: list[Scorer] = Field(min_length=1)
    metrics: list[Measured]
    evaluated_at: datetime

    @field_validator("metrics")
    @classmethod
    def _once(cls, metrics: list[Measured]) -> list[Measured]:
        names = [metric.name for metric in metrics]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} stands more than once; one evaluation measures each metric once")
        return metrics

    @field_validator("evaluated_at")
    @classmethod
    def _aware(cls, at: datetime) -> datetime:
        if at.tzinfo is None:
            raise ValueError("the time needs a zone, such as 2026-01-31T12:00:00Z")
        return at.astimezone(UTC)


def policy_digest(policy: PromotionPolicySpec) -> str:
    """`sha256:<hex>` of the policy's canonical JSON without defaults: writing a default out changes nothing."""
    plain = policy.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return digest_of(serialise(plain))


def document(facts: Evaluated) -> dict[str, Any]:
    """The statement as JSON values. Metrics and scorers are ordered by name, so equal evidence has equal bytes."""
    predicate = {
        "run": {"name": facts.run, "uid": facts.uid},
        "manifest": {"digest": _bare(facts.manifest_digest)},
        "dataset": {"digest": _bare(facts.dataset_digest)},
        "baseline": {"digest": _bare(facts.baseline_digest)} if facts.baseline_digest else None,
        "suite": {"names": list(facts.suites), "digest": _bare(facts.suite_digest)},
        "code": {"version": facts.code_version},
        "image": facts.image,
        "seeds": dict(facts.seeds),
        "scorers": [_plain(s) for s in sorted(facts.scorers, key=lambda s: (s.name, s.version))],
        "metrics": [_plain(m) for m in sorted(facts.metrics, key=lambda m: m.name)],
        "evaluatedAt": facts.evaluated_at.isoformat().replace("+00:00", "Z"),
    }
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": facts.model_path, "digest": _bare(facts.model_digest)}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {key: value for key, value in predicate.items() if value is not None},
    }


def statement_bytes(facts: Evaluated) -> bytes:
    """The statement's canonical bytes: exactly what is written to evaluation/evidence.json."""
    return serialise(document(facts))


def evidence_digest(data: bytes) -> str:
    """`sha256:<hex>` of the file's bytes."""
    return digest_of(data)


def parse_statement(data: bytes, expected_digest: str | None = None) -> Evaluated:
    """The statement in the file's bytes.

    Raises: EvidenceError when the bytes are not of the expected digest, not JSON, not canonical (somebody edited or
    reformatted them), not such a statement, or lack a field.
    """
    found = evidence_digest(data)
    if expected_digest is not None and found != expected_digest:
        raise EvidenceError(f"the evidence has digest {found}, not {expected_digest}: it is not what was judged")
    try:
        # Canonical JSON writes a large float without a point; read as an int it would be another number.
        canonical = serialise(json.loads(data, parse_int=float))
    except (ValueError, TypeError, RecursionError) as error:
        raise EvidenceError(f"the evidence is not JSON: {error}") from error
    if canonical != data:
        raise EvidenceError(
            "the evidence is not in canonical form (RFC 8785); it was written or edited by something else"
        )
    try:
        statement = _Statement.model_validate_json(data)
    except ValidationError as error:
        raise EvidenceError(_words("evidence", error)) from error
    said, subject = statement.predicate, statement.subject[0]
    try:
        facts = Evaluated(
            run=said.run.name,
            uid=said.run.uid,
            model_path=subject.name,
            model_digest=subject.digest.text,
            baseline_digest=said.baseline.digest.text if said.baseline else None,
            manifest_digest=said.manifest.digest.text,
            dataset_digest=said.dataset.digest.text,
            suites=said.suite.names,
            suite_digest=said.suite.digest.text,
            code_version=said.code.version,
            image=said.image,
            seeds=said.seeds,
            scorers=said.scorers,
            metrics=said.metrics,
            evaluated_at=said.evaluated_at,
        )
    except ValidationError as error:
        raise EvidenceError(_words("evidence", error)) from error
    if statement_bytes(facts) != data:
        raise EvidenceError("the evidence says the same in another form than Tollgate writes; it was edited")
    return facts


def summary(data: bytes, path: str, gated: Sequence[str] = ()) -> EvaluationSummary:
    """What the last words of an evaluation carry. `path`: where the file lies, relative to the output root.

    gated: metrics that a policy looks at: they come first, in this order, then the others by name, advisory ones last.

    Raises: EvidenceError when the bytes are not a statement.
    """
    facts = parse_statement(data)
    places = {name: place for place, name in enumerate(gated)}

    def order(metric: Measured) -> tuple[int, bool, str]:
        return places.get(metric.name, len(places)), metric.advisory is not None, metric.name

    return EvaluationSummary(
        metrics=[
            Metric(**metric.model_dump(exclude={"scorer", "prompts", "decoding", "comparison"}))
            for metric in sorted(facts.metrics, key=order)
        ],
        model_digest=facts.model_digest,
        baseline_digest=facts.baseline_digest,
        manifest_digest=facts.manifest_digest,
        suite_digest=facts.suite_digest,
        dataset_digest=facts.dataset_digest,
        evaluated_at=facts.evaluated_at,
        evidence_path=path,
        evidence_digest=evidence_digest(data),
    )


def evaluation_status(words: EvaluationSummary) -> EvaluationStatus:
    """The operator's copy for status.evaluation, state Succeeded."""
    return EvaluationStatus(
        state=EvaluationState.SUCCEEDED,
        evidence_path=words.evidence_path,
        evidence_digest=words.evidence_digest,
        model_digest=words.model_digest,
        baseline_digest=words.baseline_digest,
        manifest_digest=words.manifest_digest,
        suite_digest=words.suite_digest,
        dataset_digest=words.dataset_digest,
        evaluated_at=words.evaluated_at,
        metrics=[MetricStatus(**metric.model_dump()) for metric in words.metrics],
        left_out=words.left_out,
    )


class _BareDigest(_Strict):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def text(self) -> str:
        return f"sha256:{self.sha256}"


class _Subject(_Strict):
    name: Text
    digest: _BareDigest


class _Named(_Strict):
    name: Text
    uid: Text


class _Digested(_Strict):
    digest: _BareDigest


class _Suite(_Strict):
    names: list[Text]
    digest: _BareDigest


class _Code(_Strict):
    version: Text


class _Predicate(_Strict):
    run: _Named
    manifest: _Digested
    dataset: _Digested
    baseline: _Digested | None = None
    suite: _Suite
    code: _Code
    image: str | None = None
    seeds: dict[str, int]
    scorers: list[Scorer]
    metrics: list[Measured]
    evaluated_at: datetime


class _Statement(_Strict):
    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[_Subject] = Field(min_length=1, max_length=1)
    predicate_type: Literal["https://tollgate.dev/evaluation/v1"]
    predicate: _Predicate


def _bare(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _plain(model: _Strict) -> Mapping[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


def _words(where: str, error: ValidationError) -> str:
    parts = [f"{where}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return "; ".join(parts)
