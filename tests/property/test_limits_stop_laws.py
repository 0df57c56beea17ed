"""Laws of the stop: whatever fails and whoever is away, charges and reservations together stay within the limit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from tollgate.api.quantities import parse_duration, parse_usd
from tollgate.api.training_run import Attempt, PodCharge
from tollgate.contract import StopReason
from tollgate.limits.ledger import PodRecord, Spend, all_over, close_attempt, committed, observe, spent
from tollgate.limits.refusal import Refusal
from tollgate.limits.stop import Caps, Reservation, exhaustion, limit_reached, reserve

T0 = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLL = 5
LAW = settings(deadline=None, max_examples=150)

rates = st.integers(1, 400_000_000)
gangs = st.integers(1, 8)


def gang_cost(rate: int, seconds: int, pods: int) -> int:
    return pods * -(-rate * seconds // 3600)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Caps, Spend, int, int, int]:
    """(limit, used, rate, pods, evaluation reserve); what is left is mostly enough for an attempt, sometimes not."""
    rate, pods, kept = draw(rates), draw(gangs), draw(st.integers(0, 10_000_000))
    used = Spend(draw(st.integers(0, 500_000_000)), 0, draw(st.floats(0, 50_000)))
    affordable = draw(st.integers(-20, 400_000) | st.integers(20, 60))
    runtime = draw(st.none() | st.integers(0, 400_000))
    limit = Caps(
        cost=draw(st.none() | st.just(max(0, used.micro + kept + pods * rate * affordable // 3600))),
        runtime=None if runtime is None else int(used.run_seconds) + runtime,
        stop_margin=draw(st.none() | st.integers(0, 400)),
    )
    return limit, used, rate, pods, kept


@LAW
@given(asked())
def test_a_reservation_fits_into_what_is_left_and_takes_all_that_fits(case: tuple[Caps, Spend, int, int, int]) -> None:
    limit, used, rate, pods, kept = case
    found = reserve(limit, used, rate, pods, kept)
    if isinstance(found, Refusal) or found.seconds is None:
        event("refused or unlimited")
        return
    fits = [True]
    if limit.cost is not None:
        assert used.micro + kept + gang_cost(rate, found.seconds, pods) <= limit.cost
        fits.append(used.micro + kept + gang_cost(rate, found.seconds + 1, pods) <= limit.cost)
    if limit.runtime is not None:
        assert used.run_seconds + found.seconds <= limit.runtime
        fits.append(used.run_seconds + found.seconds + 1 <= limit.runtime)
    assert not all(fits) or found.seconds > 300_000_000
    assert found.usd == gang_cost(rate, found.seconds, pods)


@LAW
@given(asked(), st.integers(1, 3600))
def test_the_layers_are_nested_and_leave_time_to_work(case: tuple[Caps, Spend, int, int, int], minimum: int) -> None:
    limit, used, rate, pods, kept = case
    found = reserve(limit, used, rate, pods, kept, minimum)
    if isinstance(found, Refusal) or found.seconds is None:
        event("refused or unlimited")
        return
    assert found.pod_deadline_seconds is not None
    backstop = found.job_deadline_seconds(1800)
    assert backstop is not None
    assert found.seconds >= minimum
    assert 5 <= found.grace_seconds <= 120
    assert 0 < found.pod_deadline_seconds < found.seconds < backstop < 2**31
    assert 0 <= found.margin_seconds < found.seconds
    if limit.runtime is not None and limit.runtime - used.run_seconds == found.seconds:
        leaves = found.seconds - max(found.grace_seconds, found.margin_seconds)
        assert leaves <= limit.runtime - used.run_seconds - limit.margin + 1


@LAW
@given(asked())
def test_raising_the_limit_as_the_refusal_says_is_enough(case: tuple[Caps, Spend, int, int, int]) -> None:
    limit, used, rate, pods, kept = case
    refusals = 0
    while isinstance(found := reserve(limit, used, rate, pods, kept), Refusal):
        refusals += 1
        assert refusals <= 2, found
        text = re.search(r"Raise it to (\S+)( USD)? or more", found.message)
        assert text is not None
        if text[2]:
            assert limit.cost is not None
            assert parse_usd(text[1]) > limit.cost
            limit = Caps(parse_usd(text[1]), limit.runtime, limit.stop_margin)
        else:
            assert limit.runtime is not None
            assert parse_duration(text[1]) > limit.runtime
            limit = Caps(limit.cost, parse_duration(text[1]), limit.stop_margin)
    event(f"{refusals} refusals")


@LAW
@given(
    st.lists(st.tuples(st.integers(0, 10_000_000_000), rates), min_size=1, max_size=6),
    st.integers(0, 10_000_000),
    st.integers(0, 500_000_000),
)
def test_at_the_exhaustion_the_money_is_used_up_and_not_a_micro_dollar_more(
    pods: list[tuple[int, int]], others: int, left: int
) -> None:
    charges = [
        PodCharge.model_validate(
            {"uid": str(n), "name": str(n), "start": T0 + timedelta(microseconds=start), "perHourUSD": "0.00"}
        ).model_copy(update={"per_hour_usd": rate})
        for n, (start, rate) in enumerate(pods)
    ]
    attempt = Attempt(number=1, pods=charges, grace_seconds=10)
    limit = Caps(cost=others + left)
    begun = T0 + timedelta(microseconds=max(start for start, _ in pods))
    end = exhaustion(limit, attempt, Spend(others, 0, 0), 0, begun)
    assume(end is not None and end.exhausted_at >= begun)
    assert end is not None
    assert spent([attempt], end.exhausted_at).micro <= left
    rate = sum(r for _, r in pods)
    later = end.exhausted_at + timedelta(seconds=3600 * (len(pods) + 1) / rate, microseconds=2)
    assert spent([attempt], later).micro >= left
    assert limit_reached(limit, attempt, Spend(others, 0, 0), 0, end.stop_at) is not None
    assert limit_reached(limit, attempt, Spend(others, 0, 0), 0, end.stop_at - timedelta(microseconds=1)) is None


@dataclass(frozen=True)
class Fate:
    """What happens to one attempt: which layers are there, and how each of its up to eight pods fares."""

    operator: bool
    timers: bool  # launcher or kubelet
    poll: float
    gaps: list[float]  # from the Job's start to the binding, per pod
    timer_gap: float  # from the binding to the start of the pod's own timers
    crash_after: float | None
    lost: list[bool]  # ends in nobody's sight, per pod
    cheap: list[bool]  # bound to a cheaper node, per pod


@st.composite
def fates(draw: st.DrawFn) -> Fate:
    some = st.lists(st.booleans(), min_size=8, max_size=8)
    operator = draw(st.booleans())
    return Fate(
        operator,
        draw(st.booleans()) or not operator,
        draw(st.floats(0, POLL)),
        draw(st.lists(st.floats(0, 120), min_size=8, max_size=8)),
        draw(st.floats(0, 3)),
        draw(st.none() | st.floats(1, 5000)),
        draw(some),
        draw(some),
    )


@dataclass(frozen=True)
class Terms:
    """What an attempt was created with."""

    found: Reservation
    limit: Caps
    others: Spend
    kept: int
    rate: int
    pods: int

    def see(
        self, charges: list[PodCharge], looks: list[PodRecord], now: datetime, absent: list[str]
    ) -> list[PodCharge]:
        return observe(
            charges, looks, now=now, reserved_seconds=self.found.seconds, reserved_per_hour=self.rate, absent=absent
        )

    def attempt(self, charges: list[PodCharge]) -> Attempt:
        return Attempt(
            number=1, reserved_seconds=self.found.seconds, grace_seconds=self.found.grace_seconds, pods=charges
        )


def operator_acts(terms: Terms, records: list[PodRecord], poll: float) -> tuple[datetime, int]:
    """When the operator's stop reaches the pods, and how many were bound by then. It decides again at each binding."""
    act = T0
    for count in range(1, len(records) + 1):
        now = records[count - 1].start
        assert now is not None
        end = exhaustion(
            terms.limit, terms.attempt(terms.see([], records[:count], now, [])), terms.others, terms.kept, now
        )
        act = max(end.stop_at if end else datetime.max.replace(tzinfo=UTC) - timedelta(days=2), now)
        act += timedelta(seconds=poll)
        following = records[count].start if count < len(records) else None
        if following is not None and act < following:
            return act, count
    return act, len(records)


def live(fate: Fate, terms: Terms, start: datetime) -> Attempt:
    """One attempt as it would go: its pods bound, stopped by whoever is there first, seen or not."""
    records = [
        PodRecord(
            str(n),
            str(n),
            n,
            "node",
            scheduled_at=start + timedelta(seconds=gap),
            per_hour=terms.rate // 2 if fate.cheap[n] else terms.rate,
        )
        for n, gap in enumerate(sorted(fate.gaps[: terms.pods]))
    ]
    ends = [datetime.max.replace(tzinfo=UTC)] * len(records)
    if fate.operator:
        act, count = operator_acts(terms, records, fate.poll)
        records = records[:count]
        ends = [act + timedelta(seconds=terms.found.grace_seconds)] * count
    bound = [record.start for record in records if record.start is not None]
    if fate.timers:
        assert terms.found.seconds is not None
        timer = timedelta(seconds=terms.found.seconds + fate.timer_gap)
        ends = [min(end, at + timer) for end, at in zip(ends, bound, strict=True)]
    if fate.crash_after is not None:
        ends = [min(end, max(bound) + timedelta(seconds=fate.crash_after)) for end in ends]
    over = [
        replace(record, finished_at=max(end, at), written_at=max(end, at))
        for record, end, at in zip(records, ends, bound, strict=True)
        if not fate.lost[record.index]
    ]
    now = max([*ends, *bound])
    lost = [record.uid for record in records if fate.lost[record.index]]
    charges = terms.see(terms.see([], records, max(bound), []), over, now, lost)
    return terms.attempt(charges).model_copy(update={"end_time": now, "stop_reason": StopReason.BUDGET})


def look_again(attempts: list[Attempt], now: datetime) -> list[Attempt]:
    """What the operator does before it decides: pods that stay lost end at their bounds."""
    result = []
    for attempt in attempts:
        charges = observe(
            attempt.pods or [],
            [],
            now=now,
            reserved_seconds=attempt.reserved_seconds,
            reserved_per_hour=None,
            absent=[charge.uid for charge in attempt.pods or []],
        )
        again = attempt if attempt.unknown_pods is not None else attempt.model_copy(update={"pods": charges})
        result.append(close_attempt(again, None) if all_over(again) else again)
    return result


def run(
    limit: Caps, rate: int, pods: int, kept: int, course: list[Fate]
) -> Iterator[tuple[list[Attempt], datetime, Terms]]:
    """The run after each of its attempts, until the limit refuses another one."""
    attempts: list[Attempt] = []
    now = T0
    for fate in course:
        attempts = look_again(attempts, now)
        used = committed(attempts, now)
        found = reserve(limit, used, rate, pods, kept)
        if isinstance(found, Refusal):
            return
        terms = Terms(found, limit, used, kept, rate, pods)
        attempt = live(fate, terms, now)
        assert attempt.end_time is not None
        now = attempt.end_time
        attempts = look_again([*attempts, attempt], now)
        yield attempts, now, terms


@st.composite
def runs(draw: st.DrawFn) -> tuple[Caps, int, int, int, list[Fate]]:
    """(limit, rate, pods, evaluation reserve, the fates of its attempts), with money for one or a few attempts."""
    rate, pods, kept = draw(st.integers(1000, 400_000_000)), draw(gangs), draw(st.integers(0, 1_000_000))
    affordable = draw(st.integers(25, 20_000))
    limit = Caps(cost=kept + pods * rate * affordable // 3600, runtime=draw(st.none() | st.integers(60, 40_000)))
    return limit, rate, pods, kept, draw(st.lists(fates(), min_size=1, max_size=8))


@LAW
@given(runs())
def test_a_run_never_spends_more_than_its_limit_and_the_time_to_stop_it(
    case: tuple[Caps, int, int, int, list[Fate]],
) -> None:
    limit, rate, pods, kept, course = case
    count, grace = 0, 0
    for attempts, now, terms in run(limit, rate, pods, kept, course):
        count += 1
        grace = max(grace, terms.found.grace_seconds)
        assert limit.cost is not None
        to_stop = gang_cost(rate, POLL + grace, pods) + pods
        assert committed(attempts, now).micro + kept <= limit.cost + to_stop
    event(f"{count} attempts")


@LAW
@given(runs())
def test_with_the_pods_own_timers_on_time_not_a_micro_dollar_passes_the_limit(
    case: tuple[Caps, int, int, int, list[Fate]],
) -> None:
    limit, rate, pods, kept, course = case
    exact = [replace(fate, timers=True, timer_gap=0.0) for fate in course]
    for attempts, now, _ in run(limit, rate, pods, kept, exact):
        assert limit.cost is not None
        assert committed(attempts, now).micro + kept <= limit.cost
        assert spent(attempts, now).micro <= committed(attempts, now).micro
