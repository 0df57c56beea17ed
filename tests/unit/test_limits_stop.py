from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tollgate.api.compute_profile import ComputeProfileSpec
from tollgate.api.quantities import MICRO, Seconds, Usd
from tollgate.api.training_run import Attempt, Limits, PodCharge
from tollgate.contract import StopReason
from tollgate.limits.ledger import Spend
from tollgate.limits.refusal import Refusal
from tollgate.limits.stop import (
    MAXIMUM_SECONDS,
    Caps,
    Reservation,
    can_resume,
    caps,
    evaluation_caps,
    evaluation_reserve,
    exhaustion,
    grace_for,
    limit_reached,
    reserve,
)
from tollgate.manifest.training_manifest import TrainingManifest

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RATE = 3600 * MICRO  # one dollar a second
NOTHING = Spend(0, 0, 0.0)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def manifest(budget: object = None) -> TrainingManifest:
    return TrainingManifest.model_validate(
        {"name": "m", "dataset": {"path": "d"}, "resources": {"max_budget_usd": budget}}
    )


def profile(**facts: object) -> ComputeProfileSpec:
    return ComputeProfileSpec.model_validate({"image": "i"} | facts)


def refused(answer: object) -> Refusal:
    assert isinstance(answer, Refusal)
    return answer


def granted(answer: object) -> Reservation:
    assert isinstance(answer, Reservation), answer
    return answer


# --- the limits in force ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "budget", "cost", "name"),
    [
        ({"maxCostUSD": "180"}, 90.0, 180 * MICRO, "spec.limits.maxCostUSD"),
        ({}, 90.0, 90 * MICRO, "manifest.resources.max_budget_usd"),
        ({}, 90, 90 * MICRO, "manifest.resources.max_budget_usd"),
        ({}, "41.23", 41_230_000, "manifest.resources.max_budget_usd"),
        ({}, 0.1, 100_000, "manifest.resources.max_budget_usd"),
        ({"maxCostUSD": "0"}, 90.0, 0, "spec.limits.maxCostUSD"),
    ],
)
def test_the_spec_beats_the_manifests_budget(limits: dict[str, object], budget: object, cost: int, name: str) -> None:
    found = caps(Limits.model_validate(limits), manifest(budget), profile(), "p")
    assert isinstance(found, Caps)
    assert (found.cost, found.cost_name) == (cost, name)


def test_a_run_without_any_cost_limit_is_refused_and_told_where_to_set_one() -> None:
    answer = refused(caps(Limits(max_runtime=Seconds(60)), manifest(), profile(), "h100"))
    assert answer.reason == "LimitRequired"
    assert "spec.limits.maxCostUSD" in answer.message
    assert "h100" in answer.message


def test_a_profile_may_allow_unlimited_runs() -> None:
    found = caps(Limits(), manifest(), profile(allowUnlimited=True), "p")
    assert found == Caps()
    assert granted(reserve(Caps(), NOTHING, RATE, 2)) == Reservation(None, None, None, 120)


@pytest.mark.parametrize(
    ("runtime", "given", "margin"), [(43200, None, 1800), (600, None, 60), (43200, 60, 60), (600, 0, 0)]
)
def test_the_stop_margin_is_a_tenth_of_the_runtime_at_most_half_an_hour(
    runtime: int, given: int | None, margin: int
) -> None:
    assert Caps(runtime=runtime, stop_margin=given).margin == margin


def test_a_margin_that_leaves_no_time_is_refused() -> None:
    limits = Limits(max_cost_usd=Usd(1), max_runtime=Seconds(600), stop_margin=Seconds(600))
    assert refused(caps(limits, manifest(), profile(), "p")).reason == "InvalidLimits"


# --- reservations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "used", "kept", "pods", "seconds", "reason"),
    [
        pytest.param(Caps(cost=100 * MICRO), NOTHING, 0, 1, 100, StopReason.BUDGET, id="money alone"),
        pytest.param(Caps(cost=100 * MICRO), NOTHING, 0, 2, 50, StopReason.BUDGET, id="two pods share it"),
        pytest.param(Caps(cost=100 * MICRO), Spend(30 * MICRO, 0, 0), 20 * MICRO, 1, 50, StopReason.BUDGET, id="left"),
        pytest.param(Caps(runtime=100), NOTHING, 0, 1, 100, StopReason.RUNTIME, id="runtime alone"),
        pytest.param(Caps(runtime=100), Spend(0, 0, 40.5), 0, 1, 59, StopReason.RUNTIME, id="runtime left, whole"),
        pytest.param(Caps(cost=50 * MICRO, runtime=100), NOTHING, 0, 1, 50, StopReason.BUDGET, id="money is nearer"),
        pytest.param(Caps(cost=500 * MICRO, runtime=100), NOTHING, 0, 1, 100, StopReason.RUNTIME, id="time is nearer"),
    ],
)
def test_an_attempt_may_use_what_is_left_of_the_nearer_limit(
    limit: Caps, used: Spend, kept: int, pods: int, seconds: int, reason: StopReason
) -> None:
    found = granted(reserve(limit, used, RATE, pods, kept))
    assert (found.seconds, found.reason) == (seconds, reason)
    assert found.usd == seconds * pods * MICRO


def test_each_layer_gets_its_own_deadline_from_one_reservation() -> None:
    found = granted(reserve(Caps(cost=60 * MICRO), NOTHING, RATE, 1))
    assert found.grace_seconds == 12
    assert found.stop_after_seconds == 60
    assert found.pod_deadline_seconds == 48
    assert found.job_deadline_seconds(1800) == 60 + 1800 + 12


@pytest.mark.parametrize(
    ("seconds", "grace"), [(10, 5), (30, 6), (60, 12), (300, 60), (600, 120), (43200, 120), (None, 120)]
)
def test_the_grace_is_a_fifth_of_the_reservation_within_5_and_120_seconds(seconds: int | None, grace: int) -> None:
    assert grace_for(seconds) == grace


def test_the_trainer_leaves_the_stop_margin_before_the_runtime_ends() -> None:
    found = granted(reserve(Caps(runtime=43200), NOTHING, None, 1))
    assert (found.seconds, found.margin_seconds) == (43200, 1800)


def test_a_margin_still_counts_from_the_runtime_when_money_ends_the_pod_a_little_earlier() -> None:
    found = granted(reserve(Caps(cost=1100 * MICRO, runtime=1200, stop_margin=300), NOTHING, RATE, 1))
    assert (found.seconds, found.margin_seconds, found.reason) == (1100, 200, StopReason.RUNTIME)


def test_money_that_ends_before_the_margin_begins_is_the_reason() -> None:
    found = granted(reserve(Caps(cost=800 * MICRO, runtime=1200, stop_margin=300), NOTHING, RATE, 1))
    assert (found.seconds, found.margin_seconds, found.reason) == (800, 0, StopReason.BUDGET)


def test_too_little_money_is_refused_and_says_how_much_is_needed() -> None:
    answer = refused(reserve(Caps(cost=100 * MICRO), Spend(80 * MICRO, 0, 0), RATE, 2, 5 * MICRO))
    assert answer.reason == "BudgetExceeded"
    assert "80.00 USD are used" in answer.message
    assert "5.00 USD are kept for the evaluation" in answer.message
    assert "Raise it to 145.00 USD or more" in answer.message
    assert granted(reserve(Caps(cost=145 * MICRO), Spend(80 * MICRO, 0, 0), RATE, 2, 5 * MICRO)).seconds == 30


def test_too_little_runtime_is_refused_and_says_how_much_is_needed() -> None:
    answer = refused(reserve(Caps(runtime=600), Spend(0, 0, 590), RATE, 1))
    assert answer.reason == "RuntimeExceeded"
    assert "spec.limits.maxRuntime is 10m" in answer.message


def test_a_free_node_is_limited_by_time_only() -> None:
    assert granted(reserve(Caps(cost=0), NOTHING, 0, 4)).seconds is None
    assert granted(reserve(Caps(cost=0, runtime=600), NOTHING, 0, 4)).usd == 0


def test_a_free_node_does_not_excuse_what_was_overspent() -> None:
    assert refused(reserve(Caps(cost=10), Spend(11, 0, 0), 0, 1)).reason == "BudgetExceeded"


def test_an_unknown_price_reserves_hours_and_no_amount() -> None:
    found = granted(reserve(Caps(cost=100, runtime=600), NOTHING, None, 1))
    assert (found.seconds, found.usd, found.reason) == (600, None, StopReason.RUNTIME)


def test_a_reservation_fits_into_a_kubernetes_deadline() -> None:
    assert granted(reserve(Caps(cost=10**15), NOTHING, 1, 1)).seconds == MAXIMUM_SECONDS


def test_an_evaluation_may_use_its_timeout_and_the_money_that_was_kept() -> None:
    kept = evaluation_reserve(RATE, 1800)
    assert kept == 1800 * MICRO
    assert evaluation_reserve(None, 1800) == 0
    limit = evaluation_caps(Caps(cost=2000 * MICRO, runtime=60), 1800)
    found = granted(reserve(limit, Spend(200 * MICRO, 0, 0), RATE, 1))
    assert (found.seconds, found.reason, found.margin_seconds) == (1800, StopReason.EVALUATION_TIMEOUT, 0)
    overshot = granted(reserve(limit, Spend(210 * MICRO, 0, 0), RATE, 1))
    assert (overshot.seconds, overshot.reason) == (1790, StopReason.BUDGET)


# --- when to stop -----------------------------------------------------------------------------------------------------


def running(*starts: float, per_hour: int | None = RATE, grace: int = 10, **facts: object) -> Attempt:
    charges = [
        PodCharge(uid=str(n), name=str(n), start=at(start), per_hour_usd=None if per_hour is None else Usd(per_hour))
        for n, start in enumerate(starts)
    ]
    return Attempt.model_validate(
        {"number": 1, "pods": charges, "grace_seconds": grace, "reserved_seconds": 600} | facts
    )


def test_the_stop_comes_so_early_that_the_pods_are_dead_when_the_money_is_used_up() -> None:
    end = exhaustion(Caps(cost=100 * MICRO), running(0), NOTHING, 20 * MICRO, at(1))
    assert end is not None
    assert end.reason is StopReason.BUDGET
    assert at(79.99) < end.exhausted_at <= at(80)
    assert end.stop_at == end.exhausted_at - timedelta(seconds=10)


def test_the_exhaustion_does_not_depend_on_when_it_is_asked() -> None:
    answers = {exhaustion(Caps(cost=100 * MICRO), running(0, 7), NOTHING, 0, at(s)) for s in (8, 20, 50, 500)}
    assert len(answers) == 1


def test_pods_that_started_later_use_the_money_later() -> None:
    end = exhaustion(Caps(cost=100 * MICRO), running(0, 20), NOTHING, 0, at(30))
    assert end is not None
    assert at(59.99) < end.exhausted_at <= at(60)


@pytest.mark.parametrize(
    ("now", "stops"), [(0, False), (89, False), (89.99, False), (90, True), (95, True), (5000, True)]
)
def test_a_late_operator_stops_at_once_and_an_early_one_waits(now: float, stops: bool) -> None:
    found = limit_reached(Caps(cost=100 * MICRO), running(0), NOTHING, 0, at(now))
    assert (found is not None) == stops


def test_lowering_the_limit_acts_at_once_and_raising_it_takes_the_stop_away() -> None:
    attempt = running(0)
    assert limit_reached(Caps(cost=100 * MICRO), attempt, NOTHING, 0, at(50)) is None
    stop = limit_reached(Caps(cost=40 * MICRO), attempt, NOTHING, 0, at(50))
    assert stop is not None
    assert stop.reason is StopReason.BUDGET
    assert stop.message == "50.00 of 40.00 USD are used; raise spec.limits.maxCostUSD to go on"
    assert limit_reached(Caps(cost=1000 * MICRO), attempt, NOTHING, 0, at(95)) is None


def test_what_other_attempts_used_or_may_still_use_is_not_there_any_more() -> None:
    end = exhaustion(Caps(cost=100 * MICRO), running(0), Spend(70 * MICRO, 0, 0), 0, at(1))
    assert end is not None
    assert at(29.99) < end.exhausted_at <= at(30)


def test_max_runtime_stops_without_any_price() -> None:
    limit = Caps(runtime=600)
    attempt = running(0, 5, per_hour=None)
    end = exhaustion(limit, attempt, Spend(0, 0, 100), 0, at(50))
    assert end is not None
    assert (end.exhausted_at, end.reason) == (at(500), StopReason.RUNTIME)
    stop = limit_reached(limit, attempt, Spend(0, 0, 100), 0, at(490))
    assert stop is not None
    assert stop.message == "9m50s of 10m are used; raise spec.limits.maxRuntime to go on"


def test_the_nearer_limit_is_the_reason() -> None:
    both = Caps(cost=100 * MICRO, runtime=50)
    end = exhaustion(both, running(0), NOTHING, 0, at(1))
    assert end is not None
    assert (end.reason, end.exhausted_at) == (StopReason.RUNTIME, at(50))


def test_a_gang_that_waits_for_its_nodes_uses_nothing_up() -> None:
    waiting = Attempt(number=1, grace_seconds=10, pods=[PodCharge(uid="a", name="a")])
    assert exhaustion(Caps(cost=100, runtime=60), waiting, NOTHING, 0, at(9999)) is None


def test_a_gang_that_waits_is_stopped_when_the_limit_falls_below_what_was_spent() -> None:
    waiting = Attempt(number=1, grace_seconds=10, pods=[PodCharge(uid="a", name="a")])
    assert limit_reached(Caps(cost=100), waiting, Spend(101, 0, 0), 0, at(0)) is not None
    assert limit_reached(Caps(runtime=60), waiting, Spend(0, 0, 61), 0, at(0)) is not None


def test_an_end_that_no_calendar_holds_is_not_in_sight() -> None:
    assert exhaustion(Caps(cost=10**15), running(0, per_hour=1), NOTHING, 0, at(1)) is None


def test_a_limit_that_was_passed_long_ago_is_exhausted_since_the_first_binding() -> None:
    end = exhaustion(Caps(cost=0), running(7, per_hour=1), Spend(10**15, 0, 0), 0, at(8))
    assert end is not None
    assert end.exhausted_at == at(7)


def test_an_unlimited_run_is_never_stopped() -> None:
    assert limit_reached(Caps(), running(0), Spend(10**15, 0, 10**9), 0, at(10**8)) is None


def test_an_evaluation_is_stopped_by_its_timeout() -> None:
    limit = evaluation_caps(Caps(cost=10**12, runtime=1), 1800)
    stop = limit_reached(limit, running(0, role="evaluate"), NOTHING, 0, at(1790))
    assert stop is not None
    assert stop.reason is StopReason.EVALUATION_TIMEOUT
    assert "spec.evaluation.timeout" in stop.message


# --- going on ---------------------------------------------------------------------------------------------------------


def stopped(reason: StopReason, cost: int | None = 100 * MICRO, runtime: int | None = 600) -> Attempt:
    return Attempt(
        number=1,
        stop_reason=reason,
        limit_usd=None if cost is None else Usd(cost),
        limit_seconds=runtime,
        unknown_pods=0,
    )


def test_money_that_a_clean_stop_left_over_starts_nothing_by_itself() -> None:
    answer = can_resume(stopped(StopReason.BUDGET), Caps(cost=100 * MICRO), Spend(40 * MICRO, 0, 0), RATE, 1)
    assert refused(answer).message == "stopped at spec.limits.maxCostUSD 100.00 USD; raise it to go on"


@pytest.mark.parametrize(
    ("reason", "limit", "goes_on"),
    [
        (StopReason.BUDGET, Caps(cost=200 * MICRO), True),
        (StopReason.BUDGET, Caps(), True),
        (StopReason.BUDGET, Caps(cost=101 * MICRO), False),  # raised, but by too little for an attempt
        (StopReason.BUDGET, Caps(cost=50 * MICRO), False),
        (StopReason.RUNTIME, Caps(cost=200 * MICRO, runtime=600), False),
        (StopReason.RUNTIME, Caps(cost=200 * MICRO, runtime=1200), True),
        (StopReason.SUSPENDED, Caps(cost=200 * MICRO, runtime=1200), True),
    ],
)
def test_a_stopped_run_goes_on_when_the_limit_that_stopped_it_is_raised(
    reason: StopReason, limit: Caps, goes_on: bool
) -> None:
    answer = can_resume(stopped(reason), limit, Spend(95 * MICRO, 0, 500), RATE, 1)
    assert isinstance(answer, Reservation) == goes_on
