"""From evidence to verdicts: a pure truth table. No evidence, no promotion.

A check looks at one end of a metric's interval (`bound`; by default the unfavourable one):

| what is there                                                        | verdict      |
|----------------------------------------------------------------------|--------------|
| that end satisfies `op threshold`                                    | Passed       |
| even the favourable end does not                                     | Failed       |
| the one does not, the other does (the interval straddles)            | Inconclusive |
| the metric is missing or given twice, a number is not finite, an end | Inconclusive |
| is missing, the value lies outside of its interval, too few samples, |              |
| a weaker confidence than asked, a metric that is only advisory,      |              |
| evidence of another model, manifest, dataset or suite, an evaluation |              |
| that did not succeed                                                 |              |

The last group wins over the others: what cannot be trusted neither passes nor fails. A stage is the worst of its
required checks and of the stages it requires, Failed being worse than Inconclusive. maxAge is judged at promotion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tollgate.api.promotion_policy import Check, PromotionPolicySpec, Stage
from tollgate.api.training_run import CheckStatus, EvaluationState, EvaluationStatus, GateStatus, MetricStatus
from tollgate.gates.evidence import policy_digest

Verdict = Literal["Passed", "Failed", "Inconclusive"]
_WORSE: dict[Verdict, int] = {"Passed": 0, "Inconclusive": 1, "Failed": 2}
_NAMED = 6  # metrics that a reason names; the status shows them all
_ROUNDING = 1e-9  # bounds of equal samples may miss the value by the last bit


@dataclass(frozen=True, slots=True)
class Expected:
    """The digests that evidence must be about. `model` and `manifest` are demanded; the others compared when known."""

    model: str | None
    manifest: str | None
    dataset: str | None = None
    suite: str | None = None


@dataclass(frozen=True, slots=True)
class _Finding:
    verdict: Verdict
    reason: str


def strictest_confidence(policy: PromotionPolicySpec) -> float:
    """The highest confidence that any check asks for; the evaluation Job measures its intervals with it."""
    return max(check.confidence for stage in policy.stages for check in stage.checks)


def metrics_asked(policy: PromotionPolicySpec) -> tuple[str, ...]:
    """What the checks look at, in the policy's order, each once: metrics, and paired differences from a baseline."""
    names: dict[str, None] = {}
    for check in (check for stage in policy.stages for check in stage.checks):
        names[check.metric] = None
        if check.baseline is not None:
            names[f"{check.metric}_delta"] = None
    return tuple(names)


def judge(
    policy: PromotionPolicySpec,
    evidence: EvaluationStatus | None,
    baseline: EvaluationStatus | None,
    expected: Expected,
) -> list[GateStatus]:
    """One verdict per stage, in the policy's order. Every check of every stage is evaluated, whatever the others say.

    `evidence`: the operator's copy in status.evaluation; `baseline`: that of the run in spec.evaluation.baseline.
    """
    digest = policy_digest(policy)
    problems = _evidence_problems(evidence, expected)
    checks = {
        position: [_check(check, evidence, baseline, problems) for check in stage.checks]
        for position, stage in enumerate(policy.stages)
    }
    own = {position: _own(policy.stages[position], statuses) for position, statuses in checks.items()}
    names = [stage.name for stage in policy.stages]
    return [
        GateStatus(
            stage=stage.name,
            verdict=(finding := _with_required(position, policy, own, names)).verdict,
            policy_digest=digest,
            evidence_digest=evidence.evidence_digest if evidence else None,
            reason=finding.reason,
            checks=checks[position],
        )
        for position, stage in enumerate(policy.stages)
    ]


def _evidence_problems(evidence: EvaluationStatus | None, expected: Expected) -> list[str]:
    """Why nothing in this evidence can be trusted; empty when it can."""
    if evidence is None:
        return ["there is no evaluation"]
    if evidence.state is not EvaluationState.SUCCEEDED:
        said = f": {evidence.message}" if evidence.message else ""
        return [f"the evaluation is {evidence.state.value}{said}"]
    problems = []
    if not evidence.evidence_digest:
        problems.append("the evaluation left no evidence digest")
    wanted = {
        "model": (evidence.model_digest, expected.model, True),
        "manifest": (evidence.manifest_digest, expected.manifest, True),
        "dataset": (evidence.dataset_digest, expected.dataset, False),
        "suite": (evidence.suite_digest, expected.suite, False),
    }
    for what, (found, asked, demanded) in wanted.items():
        if not found:
            problems.append(f"the evidence names no {what}")
        elif asked is None and demanded:
            problems.append(f"the run's own {what} digest is not known")
        elif asked is not None and found != asked:
            problems.append(
                f"the evidence is of {what} {_short(found)}, the run has {_short(asked)}: evaluate it again"
            )
    return problems


def _check(
    check: Check, evidence: EvaluationStatus | None, baseline: EvaluationStatus | None, problems: Sequence[str]
) -> CheckStatus:
    bound = check.bound or _ends(check)[0]
    metric, missing = _metric(check.metric, evidence)
    value = metric.value if metric else None
    seen = _end(metric, bound) if metric else None
    if metric is None:
        finding = _Finding("Inconclusive", "; ".join([*problems, missing] if evidence else problems))
    else:
        doubts = [*problems, *_doubts(check, metric, bound)]
        finding = _compare(check, metric, bound)
        if check.baseline is not None:
            finding = _worst([finding, _regression(check, metric, bound, evidence, baseline)])
        if doubts:
            finding = _Finding("Inconclusive", "; ".join(doubts))
    return CheckStatus(
        metric=check.metric,
        op=check.op,
        threshold=check.threshold,
        bound=bound,
        # JSON has no NaN and no infinity; the reason says what was there.
        value=value if value is not None and math.isfinite(value) else None,
        bound_value=seen if seen is not None and math.isfinite(seen) else None,
        samples=metric.samples if metric else None,
        verdict=finding.verdict,
        reason=finding.reason,
    )


def _doubts(check: Check, metric: MetricStatus, bound: str) -> list[str]:
    """Why this measurement can neither pass nor fail the check."""
    doubts = [f"it is advisory: {metric.advisory}"] if metric.advisory is not None else []
    for what, number in (("value", metric.value), ("lower bound", metric.lower), ("upper bound", metric.upper)):
        if number is not None and not math.isfinite(number):
            doubts.append(f"the {what} is {number}, not a number that can be compared")
    finite = all(math.isfinite(end) for end in (metric.value, metric.lower, metric.upper) if end is not None)
    if finite and not _ordered(metric):
        doubts.append(
            f"the value {_text(metric.value)} is not within its interval {_text(metric.lower)}..{_text(metric.upper)}"
        )
    if metric.samples < check.min_samples:
        doubts.append(f"{metric.samples} samples of {check.min_samples} needed")
    # A point has no confidence; for anything else the interval must be at least as wide as was asked for.
    if bound != "point" and not metric.confidence >= check.confidence:
        doubts.append(f"measured at confidence {metric.confidence:g}, {check.confidence:g} is asked for")
    return doubts


def _compare(check: Check, metric: MetricStatus, bound: str) -> _Finding:
    """The threshold against the demanded end, then against the favourable one. Assumes that the numbers are finite."""
    seen, best = _end(metric, bound), _end(metric, "point" if bound == "point" else _ends(check)[1])
    if seen is None:
        return _Finding("Inconclusive", f"the evaluation gives no {_label(bound)}")
    if _holds(check.op, seen, check.threshold):
        return _Finding("Passed", f"{_label(bound)} {_text(seen)} {check.op} {_text(check.threshold)}")
    broken = f"{_label(bound)} {_text(seen)} {_NEGATED[check.op]} {_text(check.threshold)}"
    if best is None:
        return _Finding("Inconclusive", f"{broken}, and the evaluation gives no {_label(_ends(check)[1])}")
    if _holds(check.op, best, check.threshold):
        return _Finding(
            "Inconclusive",
            f"{broken}, but {_label(_ends(check)[1])} {_text(best)} {check.op} {_text(check.threshold)}: "
            f"{metric.samples} samples cannot tell; evaluate with more",
        )
    return _Finding("Failed", broken)


def _regression(
    check: Check, metric: MetricStatus, bound: str, evidence: EvaluationStatus | None, baseline: EvaluationStatus | None
) -> _Finding:
    """How much worse than the baseline the metric is.

    At most maxRegression between the ends that speak against the candidate: Passed. More than that between the ends
    that speak for it: Failed. With bound `point` both ends are the values. Where the evaluation asked the same prompts
    of the baseline's model, the ends are those of the paired difference `<metric>_delta`, which is sharper.
    """
    if check.baseline is None:
        return _Finding("Passed", "")
    if baseline is None:
        return _Finding("Inconclusive", "there is no baseline evidence; name a judged run in spec.evaluation.baseline")
    if baseline.state is not EvaluationState.SUCCEEDED:
        return _Finding("Inconclusive", f"the baseline's evaluation is {baseline.state.value}")
    delta = _metric(f"{check.metric}_delta", evidence)[0]
    compared = evidence.baseline_digest if evidence else None
    if delta is not None and compared is not None and compared == baseline.model_digest:
        return _paired(check, delta, bound)
    suite = evidence.suite_digest if evidence else None
    if not suite or baseline.suite_digest != suite:
        return _Finding(
            "Inconclusive", "the baseline was evaluated with another suite; evaluate it again with this one"
        )
    other, missing = _metric(check.metric, baseline)
    if other is None:
        return _Finding("Inconclusive", f"baseline: {missing}")
    if doubts := _doubts(check, other, bound):
        return _Finding("Inconclusive", "baseline: " + "; ".join(doubts))
    worst, best = ("point", "point") if bound == "point" else _ends(check)
    ours_worst, ours_best = _end(metric, worst), _end(metric, best)
    their_worst, their_best = _end(other, worst), _end(other, best)
    if ours_worst is None or ours_best is None or their_worst is None or their_best is None:
        return _Finding("Inconclusive", "the comparison with the baseline needs both bounds of both evaluations")
    sign = 1.0 if check.op in ("<", "<=") else -1.0
    return _regressed(check, sign * (ours_worst - their_best), sign * (ours_best - their_worst))


def _paired(check: Check, delta: MetricStatus, bound: str) -> _Finding:
    """As _regression, from the difference (ours minus theirs) on the same prompts."""
    if doubts := _doubts(check, delta, bound):
        return _Finding("Inconclusive", "paired difference: " + "; ".join(doubts))
    worst, best = ("point", "point") if bound == "point" else _ends(check)
    against, favouring = _end(delta, worst), _end(delta, best)
    if against is None or favouring is None:
        return _Finding("Inconclusive", "the paired difference with the baseline has no bounds; ask more prompts")
    sign = 1.0 if check.op in ("<", "<=") else -1.0
    return _regressed(check, sign * against, sign * favouring)


def _regressed(check: Check, at_most: float, at_least: float) -> _Finding:
    """The verdict on being worse by at_least to at_most, in the metric's unit."""
    allowed = check.baseline.max_regression if check.baseline else 0.0
    if at_most <= allowed:
        return _Finding("Passed", f"worse than the baseline by {_text(at_most)} at most, {_text(allowed)} is allowed")
    if at_least > allowed:
        return _Finding("Failed", f"worse than the baseline by {_text(at_least)} at least, {_text(allowed)} is allowed")
    return _Finding(
        "Inconclusive",
        f"worse than the baseline by {_text(at_least)} to {_text(at_most)}, {_text(allowed)} is allowed: "
        "evaluate both with more samples",
    )


def _own(stage: Stage, statuses: Sequence[CheckStatus]) -> _Finding:
    """The worst required check; a stage that requires nothing is proven by nothing."""
    required = [
        _Finding(status.verdict, f"{status.metric}: {status.reason}")
        for check, status in zip(stage.checks, statuses, strict=True)
        if check.required
    ]
    if not required:
        return _Finding("Inconclusive", "the stage has no required check; set required on at least one")
    worst = _worst(required)
    return _Finding("Passed", f"all {len(required)} required checks passed") if worst.verdict == "Passed" else worst


def _with_required(
    position: int, policy: PromotionPolicySpec, own: Mapping[int, _Finding], names: Sequence[str]
) -> _Finding:
    """A stage's own finding and those of all stages it requires, directly or through others."""
    findings = [own[position]]
    if names.count(names[position]) > 1:
        findings.append(_Finding("Inconclusive", f"the policy has more than one stage {names[position]}"))
    reached: set[str] = set()
    waiting = list(policy.stages[position].requires)
    while waiting:
        name = waiting.pop(0)
        if name in reached:
            continue
        reached.add(name)
        if names.count(name) != 1 or name == names[position]:
            what = "itself" if name == names[position] else f"stage {name}, which the policy does not have exactly once"
            findings.append(_Finding("Inconclusive", f"the stage requires {what}"))
            continue
        other = names.index(name)
        if own[other].verdict != "Passed":
            findings.append(_Finding(own[other].verdict, f"requires stage {name}: {own[other].reason}"))
        waiting += policy.stages[other].requires
    return _worst(findings)


def _worst(findings: Sequence[_Finding]) -> _Finding:
    """The worst verdict, with the reasons of all findings that have it."""
    verdict = max((finding.verdict for finding in findings), key=_WORSE.__getitem__)
    return _Finding(verdict, "; ".join(f.reason for f in findings if f.verdict == verdict and f.reason))


def _metric(name: str, evidence: EvaluationStatus | None) -> tuple[MetricStatus | None, str]:
    found = [metric for metric in evidence.metrics if metric.name == name] if evidence else []
    if len(found) == 1:
        return found[0], ""
    if found:
        return None, f"the evaluation gives {name} {len(found)} times"
    if evidence is not None and evidence.left_out:
        return None, (
            f"{name} was not told: {evidence.left_out} metrics had no room in the evaluation's last words and stand in "
            f"{evidence.evidence_path or 'its evidence'} alone; evaluate again under this policy: its own come first"
        )
    names = sorted({metric.name for metric in evidence.metrics if metric.advisory is None}) if evidence else []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return None, f"the evaluation gives no {name} (it gives {', '.join(names[:_NAMED]) or 'no metric'}{more})"


_NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def _holds(op: str, value: float, threshold: float) -> bool:
    return {
        "<": value < threshold,
        "<=": value <= threshold,
        ">": value > threshold,
        ">=": value >= threshold,
    }[op]


def _ends(check: Check) -> tuple[Literal["upper", "lower"], Literal["upper", "lower"]]:
    """(unfavourable, favourable) end of an interval for this check."""
    return ("upper", "lower") if check.op in ("<", "<=") else ("lower", "upper")


def _end(metric: MetricStatus, bound: str) -> float | None:
    return {"point": metric.value, "lower": metric.lower, "upper": metric.upper}[bound]


def _ordered(metric: MetricStatus) -> bool:
    lower = metric.value if metric.lower is None else metric.lower
    upper = metric.value if metric.upper is None else metric.upper
    spare = _ROUNDING * max(1.0, abs(lower), abs(upper), abs(metric.value))
    return lower - spare <= metric.value <= upper + spare


def _label(bound: str) -> str:
    return "value" if bound == "point" else f"{bound} bound"


def _text(number: float | None) -> str:
    return "none" if number is None else f"{number:.6g}"


def _short(digest: str) -> str:
    return digest if len(digest) <= 19 else digest[:19] + "..."
