"""Laws of gates and promotion: symmetric, monotone, never passed by what is missing, and blind to order."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tollgate.api.promotion_policy import PromotionPolicySpec, StageStatus
from tollgate.api.training_run import EvaluationState, EvaluationStatus, GateStatus, MetricStatus
from tollgate.gates.evidence import Evaluated, Measured, Scorer, evidence_digest, parse_statement, statement_bytes
from tollgate.gates.promotion import Candidate, hold
from tollgate.gates.verdict import Expected, judge

LAW = settings(deadline=None, max_examples=200)
T0 = datetime(2026, 3, 1, tzinfo=UTC)
A, B, C, D, E = ("sha256:" + c * 64 for c in "abcde")
ORDER = {"Failed": 0, "Inconclusive": 1, "Passed": 2}
MIRROR = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
OTHER_END = {"lower": "upper", "upper": "lower", "point": "point", None: None}

grid = st.integers(-20, 20).map(lambda n: n / 10)


def verdict(op: str, threshold: float, bound: str | None, metrics: list[MetricStatus], **check: object) -> str:
    policy = PromotionPolicySpec.model_validate(
        {
            "stages": [
                {
                    "name": "s",
                    "checks": [{"metric": "m", "op": op, "threshold": threshold, "bound": bound} | check],
                }
            ]
        }
    )
    evidence = EvaluationStatus(
        state=EvaluationState.SUCCEEDED,
        evidence_digest=E,
        model_digest=A,
        manifest_digest=B,
        dataset_digest=C,
        suite_digest=D,
        metrics=metrics,
    )
    return judge(policy, evidence, None, Expected(A, B))[0].verdict


@st.composite
def intervals(draw: st.DrawFn) -> tuple[float, float, float]:
    low, mid, high = sorted(draw(st.tuples(grid, grid, grid)))
    return low, mid, high


def measured(lower: float, value: float, upper: float) -> MetricStatus:
    return MetricStatus(name="m", value=value, lower=lower, upper=upper, confidence=0.95, samples=10)


ops = st.sampled_from(list(MIRROR))
bounds = st.sampled_from([None, "point", "lower", "upper"])


@LAW
@given(ops, grid, bounds, intervals())
def test_lower_is_better_mirrors_higher_is_better(
    op: str, threshold: float, bound: str | None, interval: tuple[float, float, float]
) -> None:
    lower, value, upper = interval
    here = verdict(op, threshold, bound, [measured(lower, value, upper)])
    there = verdict(MIRROR[op], -threshold, OTHER_END[bound], [measured(-upper, -value, -lower)])
    assert here == there


@LAW
@given(ops, grid, bounds, intervals(), st.integers(0, 20))
def test_a_better_result_never_has_a_worse_verdict(
    op: str, threshold: float, bound: str | None, interval: tuple[float, float, float], better: int
) -> None:
    shift = -better / 10 if op in ("<", "<=") else better / 10
    before = verdict(op, threshold, bound, [measured(*interval)])
    after = verdict(op, threshold, bound, [measured(*(round(x + shift, 6) for x in interval))])
    assert ORDER[after] >= ORDER[before]


@LAW
@given(ops, grid, intervals(), st.integers(0, 20), st.integers(0, 20))
def test_a_vaguer_result_is_never_more_certain(
    op: str, threshold: float, interval: tuple[float, float, float], down: int, up: int
) -> None:
    lower, value, upper = interval
    narrow = verdict(op, threshold, None, [measured(lower, value, upper)])
    wide = verdict(op, threshold, None, [measured(round(lower - down / 10, 6), value, round(upper + up / 10, 6))])
    assert wide in (narrow, "Inconclusive")


@LAW
@given(
    ops,
    st.floats(allow_nan=False, allow_infinity=False) | grid,
    bounds,
    st.lists(st.floats() | st.none(), min_size=3, max_size=3),
    st.integers(0, 20),
)
def test_a_passed_check_has_finite_numbers_enough_samples_and_a_bound_that_satisfies_it(
    op: str, threshold: float, bound: str | None, numbers: list[float | None], samples: int
) -> None:
    lower, value, upper = numbers
    metric = MetricStatus(
        name="m", value=value if value is not None else 0.0, lower=lower, upper=upper, confidence=0.95, samples=samples
    )
    found = verdict(op, threshold, bound, [metric], minSamples=10)
    event(found)
    if found == "Passed":
        assert samples >= 10
        seen = {"lower": lower, "upper": upper, "point": metric.value}[bound or ("upper" if "<" in op else "lower")]
        assert seen is not None
        assert math.isfinite(metric.value)
        assert math.isfinite(seen)
        assert {"<": seen < threshold, "<=": seen <= threshold, ">": seen > threshold, ">=": seen >= threshold}[op]


names = st.text("abcxyz-_é", min_size=1, max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)


@LAW
@given(
    st.lists(
        st.builds(
            Measured,
            name=names,
            value=finite,
            lower=st.none() | finite,
            upper=st.none() | finite,
            confidence=st.floats(0.01, 0.99),
            samples=st.integers(0, 10**9),
            scorer=st.none() | names,
        ),
        max_size=5,
        unique_by=lambda m: m.name,
    ),
    st.lists(st.builds(Scorer, name=names, version=names), min_size=1, max_size=3),
    st.datetimes(timezones=st.just(UTC)),
    st.dictionaries(names, st.integers(0, 2**32 - 1), min_size=1, max_size=3),
)
def test_any_evidence_is_read_back_from_its_own_bytes(
    metrics: list[Measured], scorers: list[Scorer], at: datetime, seeds: dict[str, int]
) -> None:
    facts = Evaluated(
        run="r",
        uid="u",
        model_path="model",
        model_digest=A,
        manifest_digest=B,
        dataset_digest=C,
        suites=["standard"],
        suite_digest=D,
        code_version="1",
        seeds=seeds,
        scorers=scorers,
        metrics=metrics,
        evaluated_at=at,
    )
    data = statement_bytes(facts)
    read = parse_statement(data, evidence_digest(data))
    assert {m.name: m for m in read.metrics} == {m.name: m for m in metrics}
    assert (read.evaluated_at, read.seeds) == (at, seeds)


POLICY = PromotionPolicySpec.model_validate(
    {
        "stages": [
            {"name": "staging", "checks": [{"metric": "m", "op": "<", "threshold": 1}], "maxAge": "72h"},
            {
                "name": "production",
                "checks": [{"metric": "m", "op": "<", "threshold": 1}],
                "requires": ["staging"],
            },
        ]
    }
)


@st.composite
def candidates(draw: st.DrawFn, number: int) -> Candidate:
    uid = f"u{number}"
    verdicts = st.sampled_from(["Passed", "Failed", "Inconclusive"])
    digest = draw(st.sampled_from(["now", "now", "now", "old"]))
    gates = [
        GateStatus.model_validate(
            {"stage": stage, "verdict": draw(verdicts), "policyDigest": digest, "evidenceDigest": f"e{uid}"}
        )
        for stage in ("staging", "production")
    ]
    return Candidate(
        name=f"run-{number}",
        uid=uid,
        created=T0 + timedelta(days=draw(st.integers(0, 3))),
        label=draw(st.sampled_from([None, "staging", "production", "nowhere"])),
        gates=draw(st.sampled_from([gates, gates, gates, []])),
        model_path="model",
        model_uri=f"pvc://m/{number}",
        model_digest=f"m{uid}",
        evidence_digest=f"e{uid}",
        evaluated_at=draw(st.none() | st.just(T0) | st.just(T0 + timedelta(days=4))),
    )


groups = st.integers(0, 5).flatmap(lambda n: st.tuples(*[candidates(i) for i in range(n)]))


@LAW
@given(groups, groups, st.randoms(use_true_random=False), st.integers(0, 9))
def test_who_holds_a_stage_does_not_depend_on_the_order_or_repetition_of_runs(
    earlier: tuple[Candidate, ...], runs: tuple[Candidate, ...], random: object, days: int
) -> None:
    now = T0 + timedelta(days=days)
    current = hold(POLICY, "now", earlier, [], now)
    expected = hold(POLICY, "now", runs, current, now)
    shuffled = [*runs, *runs]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert hold(POLICY, "now", shuffled, current, now) == expected


@LAW
@given(groups, groups, st.integers(0, 9))
def test_no_run_holds_a_stage_without_asking_and_passing_all_that_the_stage_requires(
    earlier: tuple[Candidate, ...], runs: tuple[Candidate, ...], days: int
) -> None:
    now = T0 + timedelta(days=days)
    before = hold(POLICY, "now", earlier, [], now)
    after = hold(POLICY, "now", runs, before, now)
    for old, new in zip(before, after, strict=True):
        needed = {"staging": ["staging"], "production": ["staging", "production"]}[new.name]
        came_in = new.holder is not None and (old.holder is None or old.holder.run_uid != new.holder.run_uid)
        if not came_in:
            assert new.holder == old.holder or _same_model(old, new)
            continue
        event("promoted")
        assert new.holder is not None
        [run] = [r for r in runs if r.uid == new.holder.run_uid]
        assert run.label == new.name
        verdicts = {g.stage: (g.verdict, g.policy_digest) for g in run.gates}
        assert all(verdicts[stage] == ("Passed", "now") for stage in needed)
        assert new.previous == (old.holder or old.previous)


def _same_model(old: StageStatus, new: StageStatus) -> bool:
    return old.holder is not None and new.holder is not None and old.holder.model_digest == new.holder.model_digest


@LAW
@given(groups, st.integers(0, 9))
def test_deciding_again_on_what_was_decided_changes_nothing(runs: tuple[Candidate, ...], days: int) -> None:
    now = T0 + timedelta(days=days)
    once = hold(POLICY, "now", runs, [], now)
    assert hold(POLICY, "now", runs, once, now) == once
