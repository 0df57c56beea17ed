from __future__ import annotations

import itertools
import json
import math
import operator
from datetime import UTC, datetime

import pytest

from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.api.training_run import EvaluationState, EvaluationStatus, GateStatus, MetricStatus
from tollgate.gates.evidence import policy_digest
from tollgate.gates.verdict import Expected, judge, strictest_confidence

MODEL, MANIFEST, DATASET, SUITE = ("sha256:" + c * 64 for c in "abcd")
EXPECTED = Expected(MODEL, MANIFEST, DATASET, SUITE)
NAN, INF = math.nan, math.inf


def policy(*checks: dict[str, object], requires: tuple[str, ...] = ()) -> PromotionPolicySpec:
    return PromotionPolicySpec.model_validate(
        {"stages": [{"name": "staging", "checks": list(checks), "requires": list(requires)}]}
    )


def check(**facts: object) -> dict[str, object]:
    return {"metric": "m", "op": "<=", "threshold": 0.05} | facts


def metric(
    value: float = 0.03,
    lower: float | None = 0.02,
    upper: float | None = 0.04,
    *,
    name: str = "m",
    confidence: float = 0.95,
    samples: int = 100,
) -> MetricStatus:
    return MetricStatus(name=name, value=value, lower=lower, upper=upper, confidence=confidence, samples=samples)


def evidence(*metrics: MetricStatus, **facts: object) -> EvaluationStatus:
    body: dict[str, object] = {
        "state": EvaluationState.SUCCEEDED,
        "evidence_digest": "sha256:" + "e" * 64,
        "evidence_path": "evaluation/evidence.json",
        "model_digest": MODEL,
        "manifest_digest": MANIFEST,
        "dataset_digest": DATASET,
        "suite_digest": SUITE,
        "evaluated_at": datetime(2026, 3, 1, tzinfo=UTC),
        "metrics": list(metrics),
    }
    return EvaluationStatus.model_validate(body | facts)


def gate(
    spec: PromotionPolicySpec,
    found: EvaluationStatus | None,
    baseline: EvaluationStatus | None = None,
    expected: Expected = EXPECTED,
) -> GateStatus:
    return judge(spec, found, baseline, expected)[0]


def verdict_of(one: dict[str, object], found: MetricStatus) -> tuple[str, str]:
    result = gate(policy(one), evidence(found))
    assert result.verdict == result.checks[0].verdict
    return result.verdict, result.checks[0].reason


# --- the whole matrix of operator, bound and where the interval lies ---

OPS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
PLACES = (-1.0, 0.4, 0.5, 0.6)  # of each end, around the threshold 0.5; -1 stands for "not given"
MATRIX = [
    (op, bound, lower, value, upper)
    for op, bound in itertools.product(OPS, (None, "point", "lower", "upper"))
    for lower, value, upper in itertools.product(PLACES, PLACES[1:], PLACES)
    if (lower == -1 or lower <= value) and (upper == -1 or value <= upper)
]


def by_the_rule(op: str, bound: str | None, lower: float, value: float, upper: float) -> str:
    """The rule in words: bound satisfies -> Passed; even the favourable bound fails -> Failed; else Inconclusive."""
    ends = {"lower": lower, "point": value, "upper": upper}
    bad, good = ("upper", "lower") if "<" in op else ("lower", "upper")
    demanded = ends[bound or bad]
    favourable = ends["point" if bound == "point" else good]
    if demanded == -1:
        return "Inconclusive"
    if OPS[op](demanded, 0.5):
        return "Passed"
    if favourable == -1:
        return "Inconclusive"
    return "Inconclusive" if OPS[op](favourable, 0.5) else "Failed"


def test_every_cell_of_the_truth_table() -> None:
    seen = set()
    for op, bound, lower, value, upper in MATRIX:
        one = metric(value, None if lower == -1 else lower, None if upper == -1 else upper)
        found, reason = verdict_of(check(op=op, bound=bound, threshold=0.5), one)
        assert found == by_the_rule(op, bound, lower, value, upper), (op, bound, lower, value, upper, reason)
        assert reason
        seen.add((op, bound, found))
    # Each operator and bound shows all the verdicts that it can have; a point never straddles.
    for op, bound in itertools.product(OPS, (None, "lower", "upper")):
        assert {(op, bound, v) for v in ("Passed", "Failed", "Inconclusive")} <= seen
    for op in OPS:
        assert {v for o, b, v in seen if (o, b) == (op, "point")} == {"Passed", "Failed"}


DOUBTS = {
    "value is NaN": {"value": NAN},
    "value is infinite": {"value": INF},
    "value is minus infinite": {"value": -INF},
    "lower is NaN": {"lower": NAN},
    "lower is minus infinite": {"lower": -INF},
    "upper is NaN": {"upper": NAN},
    "upper is infinite": {"upper": INF},
    "value above its interval": {"value": 0.9},
    "value below its interval": {"value": 0.001},
    "too few samples": {"samples": 49},
    "no samples": {"samples": 0},
    "weaker confidence": {"confidence": 0.9},
}


@pytest.mark.parametrize("doubt", DOUBTS, ids=list(DOUBTS))
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("threshold", [-9.0, 0.03, 9.0])
@pytest.mark.parametrize("bound", [None, "point", "lower", "upper"])
def test_a_doubtful_measurement_neither_passes_nor_fails(
    doubt: str, op: str, threshold: float, bound: str | None
) -> None:
    if bound == "point" and doubt == "weaker confidence":
        return  # a point has no confidence
    one = metric(**({"value": 0.03} | DOUBTS[doubt]))  # type: ignore[arg-type]
    found, reason = verdict_of(check(op=op, threshold=threshold, bound=bound, minSamples=50), one)
    assert found == "Inconclusive"
    assert reason


EVIDENCE_DOUBTS = {
    "none at all": None,
    "pending": {"state": EvaluationState.PENDING},
    "running": {"state": EvaluationState.RUNNING},
    "failed": {"state": EvaluationState.FAILED, "message": "scorer crashed"},
    "skipped": {"state": EvaluationState.SKIPPED},
    "other model": {"model_digest": "sha256:" + "f" * 64},
    "other manifest": {"manifest_digest": "sha256:" + "f" * 64},
    "other dataset": {"dataset_digest": "sha256:" + "f" * 64},
    "other suite": {"suite_digest": "sha256:" + "f" * 64},
    "no model digest": {"model_digest": None},
    "no manifest digest": {"manifest_digest": None},
    "no dataset digest": {"dataset_digest": None},
    "no suite digest": {"suite_digest": None},
    "no evidence digest": {"evidence_digest": None},
    "empty evidence digest": {"evidence_digest": ""},
    "metric missing": {"metrics": [metric(name="other")]},
    "metric twice": {"metrics": [metric(), metric()]},
}


@pytest.mark.parametrize("doubt", EVIDENCE_DOUBTS, ids=list(EVIDENCE_DOUBTS))
@pytest.mark.parametrize("threshold", [-9.0, 9.0])
def test_evidence_that_cannot_be_trusted_neither_passes_nor_fails(doubt: str, threshold: float) -> None:
    facts = EVIDENCE_DOUBTS[doubt]
    found = None if facts is None else evidence(metric()).model_copy(update=facts)
    result = gate(policy(check(threshold=threshold)), found)
    assert result.verdict == "Inconclusive"
    assert result.checks[0].verdict == "Inconclusive"
    assert result.checks[0].reason
    assert result.reason


def test_evidence_is_compared_with_digests_that_have_to_be_known() -> None:
    assert gate(policy(check()), evidence(metric()), expected=Expected(None, MANIFEST)).verdict == "Inconclusive"
    assert gate(policy(check()), evidence(metric()), expected=Expected(MODEL, None)).verdict == "Inconclusive"
    assert gate(policy(check()), evidence(metric()), expected=Expected(MODEL, MANIFEST)).verdict == "Passed"


def test_a_stricter_confidence_than_asked_is_welcome() -> None:
    assert verdict_of(check(confidence=0.9), metric(confidence=0.99))[0] == "Passed"


def test_bounds_of_equal_samples_may_miss_the_value_by_the_last_bit() -> None:
    assert verdict_of(check(threshold=0.5), metric(0.3, 0.30000000000000004, 0.30000000000000004))[0] == "Passed"


# --- words ---


@pytest.mark.parametrize(
    ("one", "found", "words"),
    [
        ({}, metric(), "upper bound 0.04 <= 0.05"),
        ({}, metric(0.08, 0.06, 0.1), "upper bound 0.1 > 0.05"),
        (
            {},
            metric(0.05, 0.03, 0.071, samples=40),
            "upper bound 0.071 > 0.05, but lower bound 0.03 <= 0.05: 40 samples cannot tell; evaluate with more",
        ),
        ({"minSamples": 100}, metric(samples=40), "40 samples of 100 needed"),
        (
            {"minSamples": 100, "confidence": 0.99},
            metric(samples=40),
            "40 samples of 100 needed; measured at confidence 0.95, 0.99 is asked for",
        ),
        ({}, metric(upper=None), "the evaluation gives no upper bound"),
        ({}, metric(value=NAN), "the value is nan, not a number that can be compared"),
        ({"metric": "toxicity"}, metric(), "the evaluation gives no toxicity (it gives m)"),
    ],
)
def test_a_reason_says_what_to_do(one: dict[str, object], found: MetricStatus, words: str) -> None:
    assert verdict_of(check(**one), found)[1] == words


def test_a_failed_evaluation_says_why_it_failed() -> None:
    failed = evidence(state=EvaluationState.FAILED, message="scorer crashed")
    assert gate(policy(check()), failed).reason == (
        "m: the evaluation is Failed: scorer crashed; the evaluation gives no m (it gives no metric)"
    )


def test_a_status_never_holds_a_number_that_json_does_not_have() -> None:
    result = gate(policy(check()), evidence(metric(NAN, -INF, INF)))
    text = json.dumps(result.model_dump(mode="json", by_alias=True), allow_nan=False)
    assert '"value": null' in text


# --- stages ---

GOOD, BAD, UNKNOWN = metric(name="good"), metric(0.9, 0.8, 1.0, name="bad"), "nowhere"


@pytest.mark.parametrize(
    ("names", "worst"),
    [
        (["good"], "Passed"),
        (["good", UNKNOWN], "Inconclusive"),
        (["good", "bad"], "Failed"),
        ([UNKNOWN, "bad"], "Failed"),
        (["bad", UNKNOWN, "good"], "Failed"),
    ],
)
def test_a_stage_is_the_worst_of_its_required_checks_and_all_are_evaluated(names: list[str], worst: str) -> None:
    result = gate(policy(*[check(metric=name) for name in names]), evidence(GOOD, BAD))
    assert result.verdict == worst
    by_metric = {c.metric: c.verdict for c in result.checks}
    assert by_metric == {n: {"good": "Passed", "bad": "Failed", UNKNOWN: "Inconclusive"}[n] for n in names}


def test_a_check_that_is_not_required_is_shown_and_does_not_count() -> None:
    result = gate(policy(check(metric="good"), check(metric="bad", required=False)), evidence(GOOD, BAD))
    assert result.verdict == "Passed"
    assert [c.verdict for c in result.checks] == ["Passed", "Failed"]


def test_a_stage_that_requires_no_check_is_proven_by_nothing() -> None:
    result = gate(policy(check(metric="good", required=False)), evidence(GOOD))
    assert result.verdict == "Inconclusive"
    assert "required" in result.reason


def stages(**needs: tuple[str, str]) -> PromotionPolicySpec:
    """name=(metric, requires separated by commas)"""
    return PromotionPolicySpec.model_validate(
        {
            "stages": [
                {"name": name, "checks": [check(metric=m)], "requires": [r for r in requires.split(",") if r]}
                for name, (m, requires) in needs.items()
            ]
        }
    )


@pytest.mark.parametrize(
    ("needs", "verdicts"),
    [
        ({"a": ("good", ""), "b": ("good", "a")}, ["Passed", "Passed"]),
        ({"a": ("bad", ""), "b": ("good", "a")}, ["Failed", "Failed"]),
        ({"a": (UNKNOWN, ""), "b": ("good", "a")}, ["Inconclusive", "Inconclusive"]),
        ({"a": (UNKNOWN, ""), "b": ("bad", "a")}, ["Inconclusive", "Failed"]),
        ({"a": ("bad", ""), "b": ("good", "a"), "c": ("good", "b")}, ["Failed", "Failed", "Failed"]),
        ({"b": ("good", "a"), "a": ("good", "")}, ["Passed", "Passed"]),
        ({"a": ("good", "nowhere")}, ["Inconclusive"]),
        ({"a": ("good", "a")}, ["Inconclusive"]),
        ({"a": ("good", "b"), "b": ("good", "a")}, ["Inconclusive", "Inconclusive"]),
    ],
)
def test_a_stage_passes_only_with_the_stages_it_requires(
    needs: dict[str, tuple[str, str]], verdicts: list[str]
) -> None:
    results = judge(stages(**needs), evidence(GOOD, BAD), None, EXPECTED)
    assert [r.verdict for r in results] == verdicts
    assert all(c.verdict != "Inconclusive" for r in results for c in r.checks if c.metric != UNKNOWN)


def test_two_stages_of_one_name_are_ambiguous() -> None:
    twice = PromotionPolicySpec.model_validate({"stages": [{"name": "s", "checks": [check(metric="good")]}] * 2})
    assert [r.verdict for r in judge(twice, evidence(GOOD), None, EXPECTED)] == ["Inconclusive"] * 2


def test_a_verdict_names_the_policy_and_the_evidence_that_it_was_made_from() -> None:
    spec = policy(check())
    result = gate(spec, evidence(metric()))
    assert result.policy_digest == policy_digest(spec)
    assert result.evidence_digest == "sha256:" + "e" * 64


def test_the_evaluation_measures_at_the_strictest_confidence_asked() -> None:
    spec = policy(check(), check(confidence=0.99, required=False), check(confidence=0.9))
    assert strictest_confidence(spec) == 0.99


# --- baseline ---


@pytest.mark.parametrize(
    ("op", "ours", "theirs", "verdict"),
    [
        pytest.param("<=", (0.03, 0.02, 0.04), (0.03, 0.03, 0.03), "Passed", id="within"),
        pytest.param("<=", (0.03, 0.02, 0.04), (0.01, 0.01, 0.01), "Inconclusive", id="perhaps too much worse"),
        pytest.param("<=", (0.03, 0.02, 0.04), (0.005, 0.0, 0.005), "Failed", id="too much worse"),
        pytest.param("<=", (0.03, 0.02, 0.04), (0.04, 0.01, 0.06), "Inconclusive", id="the baseline itself is vague"),
        pytest.param("<=", (0.03, 0.02, 0.04), (0.9, 0.9, 0.9), "Passed", id="better"),
        pytest.param(">=", (0.83, 0.82, 0.84), (0.83, 0.83, 0.83), "Passed", id="higher is better: within"),
        pytest.param(">=", (0.83, 0.82, 0.84), (0.86, 0.86, 0.87), "Failed", id="higher is better: too much worse"),
    ],
)
def test_a_regression_is_judged_between_the_ends_of_both_intervals(
    op: str, ours: tuple[float, float, float], theirs: tuple[float, float, float], verdict: str
) -> None:
    spec = policy(check(op=op, threshold=0.5, baseline={"maxRegression": 0.0125}))
    result = gate(spec, evidence(metric(*ours)), evidence(metric(*theirs)))
    assert result.verdict == verdict, result.reason


def test_with_bound_point_the_values_are_compared_with_the_baseline() -> None:
    spec = policy(check(threshold=0.5, bound="point", baseline={"maxRegression": 0.01}))
    assert gate(spec, evidence(metric(0.03, None, None)), evidence(metric(0.025, None, None))).verdict == "Passed"
    assert gate(spec, evidence(metric(0.03, None, None)), evidence(metric(0.01, None, None))).verdict == "Failed"


BASELINE_DOUBTS = {
    "none": None,
    "failed": {"state": EvaluationState.FAILED},
    "other suite": {"suite_digest": "sha256:" + "f" * 64},
    "no suite": {"suite_digest": None},
    "metric missing": {"metrics": []},
    "metric twice": {"metrics": [metric(), metric()]},
    "not a number": {"metrics": [metric(NAN)]},
    "too few samples": {"metrics": [metric(samples=1)]},
    "weaker confidence": {"metrics": [metric(confidence=0.9)]},
    "no interval": {"metrics": [metric(lower=None, upper=None)]},
}


@pytest.mark.parametrize("doubt", BASELINE_DOUBTS, ids=list(BASELINE_DOUBTS))
def test_a_baseline_that_cannot_be_trusted_leaves_the_check_inconclusive(doubt: str) -> None:
    facts = BASELINE_DOUBTS[doubt]
    baseline = None if facts is None else evidence(metric()).model_copy(update=facts)
    spec = policy(check(minSamples=50, baseline={"maxRegression": 1.0}))
    result = gate(spec, evidence(metric()), baseline)
    assert result.verdict == "Inconclusive"
    assert "baseline" in result.reason


def test_a_failed_threshold_is_not_softened_by_a_missing_baseline() -> None:
    spec = policy(check(baseline={"maxRegression": 1.0}))
    assert gate(spec, evidence(metric(0.9, 0.8, 1.0)), None).verdict == "Failed"


def test_without_a_regression_in_the_policy_the_baseline_plays_no_part() -> None:
    assert gate(policy(check()), evidence(metric()), evidence(state=EvaluationState.FAILED)).verdict == "Passed"
