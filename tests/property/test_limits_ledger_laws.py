"""Laws of the ledger: however a gang's pods were seen, the sum is the same and no pod is counted twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.api.quantities import Usd
from tollgate.api.training_run import Attempt, AttemptOutcome, PodCharge
from tollgate.limits.charges import cost
from tollgate.limits.ledger import (
    PodRecord,
    all_over,
    by_category,
    close_attempt,
    committed,
    observe,
    spent,
)

T0 = datetime(2026, 3, 1, tzinfo=UTC)
NOW = T0 + timedelta(hours=30)
RESERVED = 3600
LAW = settings(deadline=None, max_examples=150)

micros = st.integers(0, 20 * 3600 * 1_000_000)
rates = st.integers(0, 200_000_000)


@dataclass(frozen=True)
class Life:
    """A pod's true history; each look sees a part of it."""

    uid: str
    scheduled: int
    ran: int
    written: int
    collected: bool
    per_hour: int

    def looks(self) -> list[PodRecord]:
        new = PodRecord(self.uid, self.uid, created_at=T0 + timedelta(microseconds=self.scheduled - 1))
        bound = replace(new, node="n", scheduled_at=T0 + timedelta(microseconds=self.scheduled), per_hour=self.per_hour)
        end = T0 + timedelta(microseconds=self.scheduled + self.ran)
        over = replace(bound, written_at=end + timedelta(microseconds=self.written))
        over = replace(over, collected_at=end) if self.collected else replace(over, finished_at=end)
        return [new, bound, over]


@st.composite
def lives(draw: st.DrawFn, most: int = 4) -> list[Life]:
    count = draw(st.integers(1, most))
    return [
        Life(f"p{n}", draw(micros), draw(micros), draw(st.integers(0, 2_000_000)), draw(st.booleans()), draw(rates))
        for n in range(count)
    ]


def see(charges: list[PodCharge], records: list[PodRecord]) -> list[PodCharge]:
    return observe(charges, records, now=NOW, reserved_seconds=RESERVED, reserved_per_hour=200_000_000)


@LAW
@given(lives(), st.randoms(use_true_random=False), st.integers(1, 5))
def test_any_order_repetition_and_grouping_of_the_same_looks_gives_the_same_charges(
    gang: list[Life], random: object, groups: int
) -> None:
    looks = [one for life in gang for one in life.looks()]
    expected = see([], looks)
    shuffled = looks + [one for one in looks if random.random() < 0.5]  # type: ignore[attr-defined]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    charges: list[PodCharge] = []
    for group in range(groups):
        charges = see(charges, shuffled[group::groups])
    assert charges == expected
    assert see(charges, shuffled) == expected


@LAW
@given(lives())
def test_the_total_is_each_pods_node_time_once_at_its_rate(gang: list[Life]) -> None:
    charges = see([], [one for life in gang for one in life.looks()])
    wanted = sum(-(-life.per_hour * life.ran // 3_600_000_000) for life in gang)
    assert spent([Attempt(number=1, pods=charges)], NOW).micro == wanted
    assert spent([Attempt(number=1, pods=[*charges, *charges])], NOW).micro == wanted


@LAW
@given(lives(), st.lists(micros, min_size=2, max_size=6))
def test_spend_never_falls_while_time_passes(gang: list[Life], moments: list[int]) -> None:
    charges = see([], [life.looks()[1] for life in gang])
    attempt = Attempt(number=1, pods=charges)
    sums = [spent([attempt], T0 + timedelta(microseconds=m)).micro for m in sorted(moments)]
    assert sums == sorted(sums)


@LAW
@given(lives(), st.integers(0, 40 * 3600))
def test_what_is_committed_is_never_less_than_what_is_spent_then_or_later_within_the_bounds(
    gang: list[Life], later: int
) -> None:
    charges = see([], [life.looks()[1] for life in gang])
    lost = Attempt(number=1, pods=charges, reserved_seconds=RESERVED, end_time=NOW)
    now = T0 + timedelta(seconds=later)
    before = committed([lost], now)
    assert before.micro >= spent([lost], now).micro
    assert before.run_seconds >= spent([lost], now).run_seconds
    closed = observe(
        charges,
        [],
        now=max(now, T0 + timedelta(hours=100)),
        reserved_seconds=RESERVED,
        reserved_per_hour=None,
        absent=[c.uid for c in charges],
    )
    assert all_over(lost.model_copy(update={"pods": closed}))
    assert sum(c.charge_usd or 0 for c in closed) <= before.micro


@LAW
@given(
    lives(),
    st.none() | micros,
    st.none() | micros,
    st.sampled_from(list(AttemptOutcome)),
    st.sampled_from(["train", "evaluate"]),
)
def test_categories_add_up_to_the_spend_to_the_last_micro_dollar(
    gang: list[Life], first_step: int | None, checkpoint: int | None, outcome: AttemptOutcome, role: str
) -> None:
    charges = see([], [one for life in gang for one in life.looks()])
    first = None if first_step is None else T0 + timedelta(microseconds=first_step)
    saved = None if checkpoint is None else T0 + timedelta(microseconds=checkpoint)
    still_open = Attempt.model_validate(
        {"number": 1, "pods": charges, "outcome": outcome, "first_step_time": first, "role": role}
    )
    closed = close_attempt(still_open, saved)
    for attempt in (still_open, closed):
        parts = by_category([attempt], NOW)
        assert sum(parts.values()) == spent([attempt], NOW).micro
        assert all(part >= 0 for part in parts.values())
    assert closed.cost_usd == spent([still_open], NOW).micro
    assert closed.run_seconds == spent([still_open], NOW, role=closed.role).run_seconds
    assert 0 <= (closed.lost_seconds or 0) <= (closed.run_seconds or 0) <= (closed.pod_seconds or 0) + 1e-9


@LAW
@given(rates, micros, micros, micros)
def test_cutting_an_interval_never_makes_it_cheaper_and_adds_at_most_one_micro_dollar(
    rate: int, start: int, first: int, second: int
) -> None:
    a = T0 + timedelta(microseconds=start)
    b = a + timedelta(microseconds=first)
    c = b + timedelta(microseconds=second)
    assert 0 <= cost(rate, a, b) + cost(rate, b, c) - cost(rate, a, c) <= 1
    assert cost(rate, a, b) >= rate * first / 3_600_000_000 - 1e-3


@LAW
@given(rates, st.integers(0, 10**9))
def test_money_survives_the_status(rate: int, micro: int) -> None:
    charge = PodCharge(uid="a", name="a", start=T0, end=T0, per_hour_usd=Usd(rate), charge_usd=Usd(micro))
    assert PodCharge.model_validate_json(charge.model_dump_json(by_alias=True)) == charge
