"""The last words of an evaluation hold 4,096 bytes: what a gate asks for has room first, and what has none is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.contract import MAX_LAST_WORDS, EvaluationSummary, Files, LastWords, ModelRef, Outcome
from tollgate.gates import evidence, verdict

D = "sha256:" + "d" * 64
VALUE = 0.12345678901234567
ADVISORY = "the judge was compared with 12 people's labels of clarity; 100 are needed"


def name(number: int) -> str:
    return f"metric_number_{number:02}"


def told(count: int, gated: tuple[str, ...] = ()) -> EvaluationSummary:
    """What arrives of an evaluation with so many metrics, every third of them advisory."""
    facts = evidence.Evaluated(
        run="r" * 40,
        uid="11111111-2222-3333-4444-555555555555",
        model_path=Files.MODEL,
        model_digest=D,
        baseline_digest=D,
        manifest_digest=D,
        dataset_digest=D,
        suites=["standard"],
        suite_digest=D,
        code_version="1",
        seeds={"standard": 20},
        scorers=[evidence.Scorer(name="s", version="1")],
        metrics=[
            evidence.Measured(
                name=name(i),
                value=VALUE,
                lower=VALUE / 3,
                upper=VALUE * 3,
                confidence=0.95,
                samples=2000,
                advisory=ADVISORY if i % 3 == 0 else None,
            )
            for i in range(count)
        ],
        evaluated_at=datetime(2026, 1, 31, tzinfo=UTC),
    )
    words = LastWords(
        outcome=Outcome.COMPLETED,
        reason="Completed",
        uid=facts.uid,
        attempt=2,
        node_index=0,
        exit_code=0,
        model=ModelRef(path=Files.MODEL, digest=D),
        evaluation=evidence.summary(evidence.statement_bytes(facts), Files.EVIDENCE, gated),
        ended_at=facts.evaluated_at,
    )
    message = words.to_termination_message()
    assert len(message.encode()) <= MAX_LAST_WORDS
    kept = LastWords.parse(message)
    assert kept is not None
    assert kept.evaluation is not None
    return kept.evaluation


def asking(*names: str) -> PromotionPolicySpec:
    checks = [{"metric": name, "op": "<=", "threshold": 1, "minSamples": 100} for name in names]
    return PromotionPolicySpec.model_validate({"stages": [{"name": "staging", "checks": checks}]})


def verdicts(policy: PromotionPolicySpec, kept: EvaluationSummary) -> dict[str, tuple[str, str]]:
    (gate,) = verdict.judge(policy, evidence.evaluation_status(kept), None, verdict.Expected(D, D))
    return {check.metric: (check.verdict, check.reason) for check in gate.checks}


def test_of_sixty_metrics_those_that_a_gate_asks_for_arrive_and_the_cut_is_told() -> None:
    gated = tuple(map(name, (58, 56, 41, 40, 57)))
    policy = asking(*gated)
    kept = told(60, verdict.metrics_asked(policy))
    assert [metric.name for metric in kept.metrics[:5]] == list(gated)
    assert kept.left_out == 60 - len(kept.metrics) > 0
    found = verdicts(policy, kept)
    assert [found[name][0] for name in gated] == ["Passed"] * 4 + ["Inconclusive"], "the last one is advisory"
    assert "the judge was compared with" in found[gated[4]][1]


def test_a_policy_that_was_written_afterwards_is_told_that_its_metric_had_no_room() -> None:
    kept = told(80, tuple(map(name, (58, 56))))
    assert name(79) not in {metric.name for metric in kept.metrics}
    result, reason = verdicts(asking(name(79)), kept)[name(79)]
    assert result == "Inconclusive"
    assert f"{kept.left_out} metrics" in reason
    assert "evaluate again under this policy" in reason
    assert "left_out" not in reason


def test_advisory_metrics_go_before_those_that_may_decide() -> None:
    kept = told(60)
    assert kept.left_out
    assert {metric.name for metric in kept.metrics if metric.advisory is None} == {name(i) for i in range(60) if i % 3}


@pytest.mark.parametrize("count", [1, 8, 14])
def test_where_all_metrics_have_room_nothing_is_shortened_or_left_out(count: int) -> None:
    kept = told(count)
    assert (kept.left_out, len(kept.metrics)) == (None, count)
    assert {metric.value for metric in kept.metrics} == {VALUE}


def test_numbers_that_are_shortened_keep_ten_digits() -> None:
    kept = told(60)
    (value,) = {metric.value for metric in kept.metrics}
    assert value == pytest.approx(VALUE, rel=1e-9)


def test_a_policy_of_forty_metrics_has_room_for_each() -> None:
    gated = tuple(name(i) for i in range(60) if i % 3)
    kept = told(80, gated)
    assert [metric.name for metric in kept.metrics[:40]] == list(gated)
    assert {(one.confidence, one.samples, one.advisory) for one in kept.metrics[:40]} == {(0.95, 2000, None)}


@pytest.mark.parametrize(
    "rows", ["many", [1], [["loss"]], [["loss", "low", None, None, 0.95, 9]], [[[], {}]], {"a": 1}]
)
def test_rows_that_are_not_ours_are_no_evidence(rows: Any) -> None:
    """Whoever trained can write anything there."""
    words = LastWords(outcome=Outcome.COMPLETED, reason="Completed", evaluation=told(1))
    document = json.loads(words.to_json())
    document["evaluation"] |= {"rows": rows, "metrics": []}
    read = LastWords.parse(json.dumps(document))
    assert read is None or not (read.evaluation and read.evaluation.metrics)


def test_what_a_policy_looks_at_is_named_once_with_the_differences_from_a_baseline() -> None:
    check = {"metric": "b", "op": "<=", "threshold": 1}
    regression = {"metric": "a", "op": "<=", "threshold": 1, "baseline": {"maxRegression": 0.1}}
    stages = [{"name": "staging", "checks": [check, regression]}, {"name": "production", "checks": [check]}]
    assert verdict.metrics_asked(PromotionPolicySpec.model_validate({"stages": stages})) == ("b", "a", "a_delta")
