from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.api.training_run import EvaluationState
from tollgate.gates.evidence import (
    Evaluated,
    EvidenceError,
    Measured,
    Scorer,
    document,
    evaluation_status,
    evidence_digest,
    parse_statement,
    policy_digest,
    statement_bytes,
    summary,
)
from tollgate.manifest.canonical import serialise

A, B, C, D = ("sha256:" + c * 64 for c in "abcd")


def facts(**changes: object) -> Evaluated:
    body: dict[str, object] = {
        "run": "counsel-7",
        "uid": "1234",
        "model_path": "model",
        "model_digest": A,
        "manifest_digest": B,
        "dataset_digest": C,
        "suites": ["standard"],
        "suite_digest": D,
        "code_version": "0.1.0",
        "image": "registry.example/trainer@sha256:" + "e" * 64,
        "seeds": {"evaluation": 42},
        "scorers": [Scorer(name="perplexity", version="1")],
        "metrics": [
            Measured(name="quality", value=0.7, lower=0.65, upper=0.75, confidence=0.95, samples=400),
            Measured(name="perplexity", value=12.0, upper=12.5, confidence=0.95, samples=200, scorer="perplexity"),
        ],
        "evaluated_at": datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
    }
    return Evaluated.model_validate(body | changes)


def test_a_statement_is_an_in_toto_statement_about_the_model() -> None:
    plain = json.loads(statement_bytes(facts()))
    assert plain["_type"] == "https://in-toto.io/Statement/v1"
    assert plain["predicateType"] == "https://tollgate.dev/evaluation/v1"
    assert plain["subject"] == [{"name": "model", "digest": {"sha256": "a" * 64}}]
    assert plain["predicate"]["manifest"] == {"digest": {"sha256": "b" * 64}}
    assert plain["predicate"]["evaluatedAt"] == "2026-03-01T12:00:00Z"
    assert [m["name"] for m in plain["predicate"]["metrics"]] == ["perplexity", "quality"]


def test_the_digest_is_what_sha256sum_says_of_the_file() -> None:
    data = statement_bytes(facts())
    assert evidence_digest(data) == "sha256:" + hashlib.sha256(data).hexdigest()


def test_equal_evidence_has_equal_bytes_in_whatever_order_it_was_measured() -> None:
    here = facts()
    other = facts(
        metrics=here.metrics[::-1], evaluated_at=datetime(2026, 3, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    )
    assert statement_bytes(other) == statement_bytes(here)


@pytest.mark.parametrize("image", [None, "registry.example/t:1"])
def test_what_is_written_is_read_back(image: str | None) -> None:
    data = statement_bytes(facts(image=image))
    read = parse_statement(data, evidence_digest(data))
    assert statement_bytes(read) == data
    assert read.image == image
    assert read.metrics[0].lower is None


def test_the_summary_is_what_the_statement_says_and_where_it_lies() -> None:
    data = statement_bytes(facts())
    words = summary(data, "evaluation/evidence.json")
    assert (words.model_digest, words.manifest_digest, words.dataset_digest, words.suite_digest) == (A, B, C, D)
    assert (words.evidence_path, words.evidence_digest) == ("evaluation/evidence.json", evidence_digest(data))
    assert [(m.name, m.value, m.lower, m.upper, m.samples) for m in words.metrics] == [
        ("perplexity", 12.0, None, 12.5, 200),
        ("quality", 0.7, 0.65, 0.75, 400),
    ]
    status = evaluation_status(words)
    assert status.state is EvaluationState.SUCCEEDED
    assert status.evidence_digest == words.evidence_digest
    assert [m.name for m in status.metrics] == ["perplexity", "quality"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_digest": "abc"}, "model_digest"),
        ({"suites": []}, "suites"),
        ({"seeds": {}}, "seeds"),
        ({"scorers": []}, "scorers"),
        ({"evaluated_at": datetime(2026, 3, 1)}, "zone"),
        ({"metrics": [{"name": "m", "value": math.nan, "confidence": 0.9, "samples": 1}]}, "metrics.0.value"),
        ({"metrics": [{"name": "m", "value": math.inf, "confidence": 0.9, "samples": 1}]}, "metrics.0.value"),
        ({"metrics": [{"name": "m", "value": 1, "confidence": 1, "samples": 1}]}, "metrics.0.confidence"),
        ({"metrics": [{"name": "m", "value": 1, "confidence": 0.9, "samples": 1}] * 2}, "m stands more than once"),
    ],
)
def test_what_is_not_evidence_is_not_written(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        facts(**changes)


def changed(*path: str | int, to: Any) -> bytes:
    plain = document(facts())
    place: Any = plain
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = to
    return serialise(plain)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"null", "evidence"),
        (b"{}", "_type"),
        (b'{"a":NaN}', "not JSON"),
        (json.dumps(document(facts()), indent=1).encode(), "canonical"),
        (statement_bytes(facts())[:-1] + b',"_type":"x"}', "canonical"),
        (changed("predicateType", to="https://tollgate.dev/evaluation/v2"), "predicateType"),
        (changed("_type", to="https://in-toto.io/Statement/v0.1"), "_type"),
        (changed("subject", to=[]), "subject"),
        (changed("subject", 0, "digest", to={"sha256": "A" * 64}), "sha256"),
        (changed("predicate", "extra", to=1), "extra"),
        (changed("predicate", "metrics", 0, "value", to=None), "value"),
        (changed("predicate", "metrics", 0, "samples", to=-1), "samples"),
        (changed("predicate", "evaluatedAt", to="2026-03-01T13:00:00+01:00"), "another form"),
        (changed("predicate", "evaluatedAt", to="2026-03-01T13:00:00"), "zone"),
        (changed("predicate", "seeds", to={}), "seeds"),
        (changed("predicate", "image", to=None), "another form"),
    ],
)
def test_a_file_that_is_not_the_evidence_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        parse_statement(data)


def test_a_file_of_another_digest_is_refused() -> None:
    data = statement_bytes(facts())
    with pytest.raises(EvidenceError, match="not what was judged"):
        parse_statement(data, evidence_digest(data + b" "))


STAGE: dict[str, object] = {"name": "staging", "checks": [{"metric": "m", "op": "<=", "threshold": 1}]}


@pytest.mark.parametrize(
    ("stage", "same"),
    [
        ({"checks": [{"metric": "m", "op": "<=", "threshold": 1.0}]}, True),
        ({"checks": [{"metric": "m", "op": "<=", "threshold": 1, "required": True, "minSamples": 1}]}, True),
        ({"requires": [], "maxAge": None}, True),
        ({"checks": [{"metric": "m", "op": "<", "threshold": 1}]}, False),
        ({"checks": [{"metric": "m", "op": "<=", "threshold": 1.0000001}]}, False),
        ({"maxAge": "24h"}, False),
        ({"name": "production"}, False),
    ],
)
def test_a_policys_digest_changes_with_what_it_demands_and_not_with_how_it_is_written(
    stage: dict[str, object], same: bool
) -> None:
    plain = PromotionPolicySpec.model_validate({"stages": [STAGE]})
    other = PromotionPolicySpec.model_validate({"stages": [STAGE | stage]})
    assert (policy_digest(plain) == policy_digest(other)) == same
