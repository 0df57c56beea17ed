from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tollgate.api.quantities import MICRO, Usd
from tollgate.api.training_run import Attempt, AttemptOutcome, PodCharge, TrainingRunStatus
from tollgate.contract import ChargeCategory
from tollgate.limits.ledger import (
    Folded,
    PodRecord,
    add_unseen,
    all_over,
    by_category,
    close_attempt,
    committed,
    fold,
    is_closed,
    observe,
    rate_per_hour,
    spent,
)

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RATE = 3600 * MICRO  # one dollar a second, so that seconds can be read as dollars


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def pod(uid: str = "a", **facts: object) -> PodRecord:
    base: dict[str, object] = {"name": uid, "node": "n1", "created_at": at(-5), "scheduled_at": at(0), "per_hour": RATE}
    return PodRecord(uid=uid, **(base | facts))  # type: ignore[arg-type]


def look(
    charges: list[PodCharge],
    *records: PodRecord,
    now: float = 1000,
    reserved: int | None = 600,
    job_start: float | None = None,
    job_end: float | None = None,
    absent: tuple[str, ...] = (),
    per_hour: int | None = RATE,
) -> list[PodCharge]:
    return observe(
        charges,
        records,
        now=at(now),
        reserved_seconds=reserved,
        reserved_per_hour=per_hour,
        job_start=None if job_start is None else at(job_start),
        job_end=None if job_end is None else at(job_end),
        absent=absent,
    )


def attempt(*charges: PodCharge, **facts: object) -> Attempt:
    return Attempt.model_validate(
        {"number": 1, "reserved_seconds": 600, "pods": list(charges)}
        | facts  # a dict, so that fields can be overridden
    )


def open_charge(uid: str = "a", start: float = 0, per_hour: int | None = RATE) -> PodCharge:
    return PodCharge(uid=uid, name=uid, start=at(start), per_hour_usd=None if per_hour is None else Usd(per_hour))


def test_a_pod_is_charged_from_its_binding_to_its_containers_end() -> None:
    [charge] = look([], pod(finished_at=at(30), written_at=at(31)))
    assert (charge.start, charge.end, charge.charge_usd) == (at(0), at(30), 30 * MICRO)


@pytest.mark.parametrize(
    ("facts", "end"),
    [
        pytest.param({"finished_at": at(30)}, 30, id="the container's end alone"),
        pytest.param({"finished_at": at(30), "collected_at": at(20)}, 20, id="the node was collected first"),
        pytest.param({"finished_at": at(20), "collected_at": at(30)}, 20, id="the container ended first"),
        pytest.param({"collected_at": at(40), "written_at": at(41)}, 40, id="collected, no container end ever"),
        pytest.param({"finished_at": at(900), "written_at": at(31)}, 31, id="the node's clock is fast"),
        pytest.param({"finished_at": at(-900), "written_at": at(31)}, 0, id="the node's clock is slow"),
        pytest.param({"written_at": at(12)}, 12, id="terminal without a container"),
        pytest.param({"finished_at": at(30), "written_at": at(-3)}, 0, id="the write is said to precede the binding"),
    ],
)
def test_the_end_is_the_first_proof_within_binding_and_the_api_servers_write(
    facts: dict[str, object], end: int
) -> None:
    [charge] = look([], pod(**facts))
    assert charge.end == at(end)
    assert charge.charge_usd == end * MICRO


def test_a_pod_that_was_never_bound_costs_nothing() -> None:
    [charge] = look([], pod(node=None, scheduled_at=None, written_at=at(50)))
    assert (charge.start, charge.end, charge.charge_usd) == (None, at(50), 0)


def test_a_pod_with_a_node_but_no_condition_is_charged_from_its_creation() -> None:
    [charge] = look([], pod(scheduled_at=None, finished_at=at(10)))
    assert charge.start == at(-5)


def test_a_pod_that_vanished_unseen_is_charged_until_its_job_ended() -> None:
    [charge] = look([open_charge()], job_end=100, absent=("a",))
    assert charge.charge_usd == 100 * MICRO


def test_a_pod_that_vanished_unseen_with_its_job_is_charged_to_what_it_had_reserved() -> None:
    [charge] = look([open_charge()], absent=("a",))
    assert charge.end == at(600)
    assert charge.charge_usd == 600 * MICRO


def test_a_lost_pod_stays_open_until_its_bound_is_reached() -> None:
    [still] = look([open_charge()], now=599, absent=("a",))
    assert still.end is None
    [over] = look([still], now=600, absent=("a",))
    assert over.end == at(600)


def test_a_lost_pod_that_comes_back_before_its_bound_is_charged_what_it_used() -> None:
    [still] = look([open_charge()], now=300, absent=("a",))
    [over] = look([still], pod(finished_at=at(320), written_at=at(330)), now=400)
    assert over.charge_usd == 320 * MICRO


def test_an_absent_pod_whose_binding_nobody_saw_may_have_run_since_its_job_started() -> None:
    unbound = PodCharge(uid="a", name="a")
    [charge] = look([unbound], job_start=10, job_end=70, absent=("a",))
    assert charge.charge_usd == 60 * MICRO


def test_an_absent_pod_of_a_job_that_never_started_costs_nothing() -> None:
    [charge] = look([PodCharge(uid="a", name="a")], absent=("a",))
    assert (charge.end is not None, charge.charge_usd) == (True, 0)


def test_a_pod_of_an_unlimited_attempt_that_vanished_stays_open_until_its_job_ended() -> None:
    [still] = look([open_charge()], reserved=None, absent=("a",))
    assert still.end is None
    [over] = look([still], reserved=None, job_end=50, absent=("a",))
    assert over.charge_usd == 50 * MICRO


def test_a_pod_that_is_there_and_runs_past_its_bound_keeps_costing() -> None:
    charges = look([], pod(), now=1000)
    assert spent([attempt(*charges)], at(1000)).micro == 1000 * MICRO


def test_a_closed_charge_is_never_recomputed() -> None:
    closed = look([], pod(finished_at=at(30), written_at=at(31)))
    assert look(closed, pod(finished_at=at(10), written_at=at(10), per_hour=1), absent=("a",), job_end=5) == closed


def test_the_bound_nodes_price_lowers_a_charge_and_never_raises_it() -> None:
    assert look([], pod(finished_at=at(10), per_hour=RATE // 2))[0].charge_usd == 5 * MICRO
    assert look([], pod(finished_at=at(10), per_hour=RATE * 9))[0].charge_usd == 10 * MICRO


def test_a_bound_pod_without_a_price_is_unknown_and_not_free() -> None:
    charges = look([], pod(per_hour=None, finished_at=at(10)), per_hour=None)
    assert charges[0].end == at(10)
    assert charges[0].charge_usd is None
    spend = spent([attempt(*charges)], at(20))
    assert (spend.micro, spend.unknown_pods) == (0, 1)
    done = close_attempt(attempt(*charges), None)
    assert (done.cost_usd, done.unknown_pods) == (None, 1)
    assert done.pods == charges
    assert spent([done], at(20)).unknown_pods == 1


def test_the_smallest_use_is_rounded_up_to_a_whole_micro_dollar() -> None:
    [charge] = look([], pod(per_hour=1, finished_at=at(0.000001)))
    assert charge.charge_usd == 1


def test_pods_that_nobody_saw_are_charged_from_the_jobs_start_to_its_end() -> None:
    seen = attempt(open_charge("a"), job_uid="j")
    full = add_unseen(seen, 3, now=at(500), reserved_per_hour=RATE, job_start=at(-10), job_end=at(90))
    assert full.pods is not None
    assert [c.charge_usd for c in full.pods] == [None, 100 * MICRO, 100 * MICRO]
    again = add_unseen(full, 3, now=at(500), reserved_per_hour=RATE, job_start=at(-10), job_end=at(90))
    assert again == full


def test_an_unseen_pod_of_a_lost_job_stays_open_until_its_bound() -> None:
    full = add_unseen(attempt(), 1, now=at(500), reserved_per_hour=RATE, job_start=at(0), job_end=None)
    assert not all_over(full)
    assert committed([full], at(500)).micro == 600 * MICRO


def test_max_runtime_counts_the_wall_time_in_which_any_pod_was_bound() -> None:
    charges = [
        *look([], pod("a", scheduled_at=at(0), finished_at=at(10))),
        *look([], pod("b", scheduled_at=at(5), finished_at=at(20))),
        *look([], pod("c", scheduled_at=at(30), finished_at=at(40))),
    ]
    assert spent([attempt(*charges)], at(100)).run_seconds == 30
    assert spent([attempt(*charges, open_charge("d", 35))], at(100)).run_seconds == 90


def test_an_evaluation_costs_money_and_no_training_time() -> None:
    train = attempt(open_charge("a"))
    judge = attempt(open_charge("b", 10), role="evaluate")
    assert spent([train, judge], at(20)).micro == 30 * MICRO
    assert spent([train, judge], at(20)).run_seconds == 20
    assert spent([train, judge], at(20), role="evaluate").run_seconds == 10


def test_an_open_attempt_is_committed_to_its_whole_reservation() -> None:
    running = attempt(open_charge(), reserved_usd=Usd(700 * MICRO))
    assert committed([running], at(10)).micro == 700 * MICRO
    assert committed([running], at(10)).run_seconds == 600
    assert committed([attempt(reserved_usd=Usd(700 * MICRO))], at(10)).micro == 700 * MICRO


def test_an_attempt_with_a_lost_pod_is_committed_to_that_pods_bound_only() -> None:
    over = look([], pod("a", finished_at=at(10)))
    lost = attempt(*over, open_charge("b"), reserved_usd=Usd(1200 * MICRO), end_time=at(12))
    assert committed([lost], at(20)).micro == (10 + 600) * MICRO
    assert committed([lost], at(20)).run_seconds == 600
    assert committed([lost], at(700)).micro == (10 + 700) * MICRO


def test_the_rate_now_is_that_of_bound_open_pods() -> None:
    ended = look([], pod("b", finished_at=at(10)))
    waiting = PodCharge(uid="c", name="c", per_hour_usd=Usd(RATE))
    assert rate_per_hour([attempt(open_charge(), *ended, waiting)]) == RATE
    assert rate_per_hour([attempt(open_charge(), open_charge("d", per_hour=None))]) is None
    assert rate_per_hour([]) == 0


def closed_attempt(outcome: AttemptOutcome, checkpoint: float | None, first_step: float | None = 20) -> Attempt:
    charges = [
        *look([], pod("a", finished_at=at(100))),
        *look([], pod("b", scheduled_at=at(10), finished_at=at(90))),
    ]
    facts = {"outcome": outcome, "first_step_time": None if first_step is None else at(first_step)}
    return close_attempt(attempt(*charges, **facts), None if checkpoint is None else at(checkpoint))


@pytest.mark.parametrize(
    ("outcome", "checkpoint", "first_step", "startup", "productive", "lost", "lost_seconds"),
    [
        (AttemptOutcome.COMPLETED, None, 20, 30, 150, 0, 0),
        (AttemptOutcome.FAILED, 60, 20, 30, 80, 70, 40),
        (AttemptOutcome.FAILED, None, 20, 30, 0, 150, 80),
        (AttemptOutcome.STOPPED, 100, 20, 30, 150, 0, 0),
        (AttemptOutcome.LOST, 5, 20, 30, 0, 150, 80),
        (AttemptOutcome.FAILED, None, None, 180, 0, 0, 0),
    ],
)
def test_a_closed_attempts_money_is_split_into_startup_productive_and_lost(
    outcome: AttemptOutcome,
    checkpoint: float | None,
    first_step: float | None,
    startup: int,
    productive: int,
    lost: int,
    lost_seconds: float,
) -> None:
    done = closed_attempt(outcome, checkpoint, first_step)
    assert done.cost_usd == 180 * MICRO
    assert (done.run_seconds, done.pod_seconds, done.lost_seconds) == (100, 180, lost_seconds)
    assert is_closed(done)
    assert done.pods is None
    split = by_category([done], at(200))
    assert split == {
        ChargeCategory.STARTUP: startup * MICRO,
        ChargeCategory.PRODUCTIVE: productive * MICRO,
        ChargeCategory.LOST: lost * MICRO,
        ChargeCategory.EVALUATION: 0,
    }


def test_an_evaluations_money_is_its_own_category() -> None:
    judge = attempt(open_charge(), role="evaluate")
    assert by_category([judge], at(7))[ChargeCategory.EVALUATION] == 7 * MICRO


def test_an_attempt_with_an_open_charge_cannot_be_closed() -> None:
    with pytest.raises(ValueError, match="attempt 1 still has open charges: a"):
        close_attempt(attempt(open_charge()), None)


def test_an_attempt_that_had_no_pod_costs_nothing_and_is_closed() -> None:
    done = close_attempt(attempt(reserved_usd=Usd(9 * MICRO)), None)
    assert (done.cost_usd, done.run_seconds, is_closed(done)) == (0, 0, True)
    assert committed([done], at(0)).micro == 0


def test_closing_twice_changes_nothing() -> None:
    done = closed_attempt(AttemptOutcome.FAILED, 60)
    assert close_attempt(done, at(10)) == done


def test_a_closed_attempt_survives_being_written_and_read_back() -> None:
    done = closed_attempt(AttemptOutcome.FAILED, 60)
    status = TrainingRunStatus(attempts=[done, attempt(open_charge("z", 0.000123), number=2)])
    back = TrainingRunStatus.model_validate_json(status.model_dump_json(by_alias=True, exclude_none=True))
    assert back == status
    assert spent(back.attempts, at(500)) == spent(status.attempts, at(500))


def test_folding_old_attempts_away_changes_no_sum() -> None:
    attempts = [closed_attempt(AttemptOutcome.FAILED, 60).model_copy(update={"number": n}) for n in (1, 2, 3)] + [
        attempt(open_charge("x"), number=4),
        close_attempt(attempt(role="evaluate"), None),
    ]
    rest, folded = fold(attempts, Folded(), keep=1)
    assert [a.number for a in rest] == [3, 4, 1]
    assert folded.attempts == 2
    assert spent(rest, at(500), folded) == spent(attempts, at(500))
    assert by_category(rest, at(500), folded) == by_category(attempts, at(500))
