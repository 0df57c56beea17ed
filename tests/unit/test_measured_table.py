"""The tables of metrics and verdicts: readable at 80 columns, at 120 and in a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.api.training_run import EvaluationState, EvaluationStatus, GateStatus, MetricStatus
from tollgate.contract import Metric
from tollgate.gates.verdict import Expected, judge
from tollgate_trainer.laptop.measured_table import show_metrics, show_verdicts

D = "sha256:" + "d" * 64
LONGEST = "crisis_missed_redirect_ratio"
HUGE = "rubric:" + "appropriateness_in_every_possible_domain_of_the_trade"


def gates() -> list[GateStatus]:
    found = [
        MetricStatus(name="perplexity", value=12345.678, lower=11000.5, upper=13000.25, confidence=0.95, samples=24000),
        MetricStatus(name="quality_score", value=0.31, lower=0.12, upper=0.52, confidence=0.95, samples=40),
        MetricStatus(name=LONGEST, value=0.25, lower=0.18, upper=0.33, confidence=0.95, samples=200),
        MetricStatus(name=HUGE, value=0.5, lower=0.4, upper=0.6, confidence=0.95, samples=200),
    ]
    evidence = EvaluationStatus(
        state=EvaluationState.SUCCEEDED,
        evidence_digest=D,
        model_digest=D,
        manifest_digest=D,
        suite_digest=D,
        dataset_digest=D,
        metrics=found,
    )
    checks = [
        {"metric": "perplexity", "op": "<=", "threshold": 20000},
        {"metric": "quality_score", "op": ">=", "threshold": 0.2, "minSamples": 30},
        {"metric": LONGEST, "op": "<=", "threshold": 0.05},
        {"metric": HUGE, "op": ">=", "threshold": 0.3, "bound": "point"},
        {"metric": "toxicity_ratio", "op": "<=", "threshold": 0.1},
    ]
    stages = [
        {"name": "staging", "checks": checks},
        {"name": "production", "requires": ["staging"], "checks": checks[:1]},
    ]
    return judge(PromotionPolicySpec.model_validate({"stages": stages}), evidence, None, Expected(D, D))


def shown(width: int, terminal: bool = True) -> list[str]:
    file = io.StringIO()
    show_verdicts(gates(), Console(file=file, width=width, force_terminal=terminal, color_system=None, no_color=True))
    return file.getvalue().splitlines()


def row(lines: list[str], name: str) -> list[str]:
    (line,) = [line for line in lines if line.startswith("  ") and line.split()[0] == name and len(line.split()) > 5]
    return line.split()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_line_is_longer_than_the_terminal_and_a_check_is_one_line(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    assert row(lines, "quality_score") == ["quality_score", "0.31", "0.12", "40", "lower", ">=", "0.2", "Inconclusive"]
    assert row(lines, LONGEST) == [LONGEST, "0.25", "0.33", "200", "upper", "<=", "0.05", "Failed"]


def test_columns_stand_below_their_names() -> None:
    lines = shown(80)
    header, own = lines[0], next(line for line in lines if LONGEST in line)
    assert header.split() == ["check", "value", "bound", "n", "must", "be", "verdict"]
    for name, cell in (("verdict", "Failed"), ("must be", "upper <= 0.05")):
        assert header.index(name) == own.index(cell)
    assert header.index("value") + len("value") == own.index("0.25") + len("0.25"), "numbers are aligned at their right"


def test_the_reason_follows_its_check_and_a_passed_one_needs_none() -> None:
    lines = shown(80)
    at = next(i for i, line in enumerate(lines) if line.strip().startswith("quality_score"))
    assert lines[at + 1].startswith("    lower bound 0.12 < 0.2")
    assert "40 samples cannot tell" in " ".join(line.strip() for line in lines[at + 1 : at + 4])
    passed = next(i for i, line in enumerate(lines) if line.strip().startswith("perplexity"))
    assert lines[passed + 1].strip().startswith("quality_score")


def test_a_name_without_room_has_a_line_of_its_own_and_what_was_not_measured_is_no_number() -> None:
    lines = shown(80)
    at = next(i for i, line in enumerate(lines) if HUGE in line)
    assert lines[at].strip() == HUGE
    assert lines[at + 1].split() == ["0.5", "0.5", "200", "value", ">=", "0.3", "Passed"]
    assert row(lines, "toxicity_ratio")[1:4] == ["?", "?", "?"]


def test_in_a_pipe_a_reason_is_one_line_without_colours() -> None:
    lines = shown(80, terminal=False)
    (reason,) = [line for line in lines if "cannot tell" in line]
    assert reason.startswith("    lower bound 0.12 < 0.2")
    assert "evaluate with more" in reason
    assert not any("\x1b" in line for line in lines)
    assert lines == shown(200, terminal=False), "nobody's terminal decides how a file looks"


def test_a_stage_says_what_it_waits_for() -> None:
    lines = shown(120)
    at = next(i for i, line in enumerate(lines) if line.startswith("production: Failed"))
    assert "requires stage staging" in lines[at + 1]


def test_a_metric_that_no_gate_may_rest_on_says_why_below_its_numbers() -> None:
    why = "the judge was compared with 12 people's labels of clarity; 100 are needed before a gate may rest on it"
    found = [
        Metric(name="rubric:clarity", value=0.5, lower=None, upper=0.6, confidence=0.95, samples=20, advisory=why),
        Metric(name="perplexity", value=20, lower=18, upper=22, confidence=0.95, samples=200),
    ]
    file = io.StringIO()
    show_metrics(found, Console(file=file, width=80, force_terminal=True, no_color=True, color_system=None))
    lines = file.getvalue().splitlines()
    assert lines[1].split() == ["rubric:clarity", "0.5", "?", "0.6", "20"]
    assert " ".join(line.strip() for line in lines[2:-1]) == f"advisory: {why}"
    assert lines[-1].split() == ["perplexity", "20", "18", "22", "200"]
