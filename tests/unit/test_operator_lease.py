"""Leadership: nobody takes a Lease that is still renewed, whatever the clocks of the machines say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate_operator.lease import Seen, Timing, free, observe


def lease(version: str, holder: str, renewed: str = "2020-01-01T00:00:00.000000Z", seconds: int = 30) -> dict[str, Any]:
    return {
        "metadata": {"name": "l", "resourceVersion": version},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": renewed},
    }


def test_a_renewal_of_another_process_starts_the_wait_anew() -> None:
    seen = observe(lease("1", "other"), None, 0.0, 30)
    assert not free(seen, "me", 30.0)
    seen = observe(lease("2", "other"), seen, 29.0, 30)
    assert not free(seen, "me", 58.0)
    assert free(seen, "me", 59.5)


def test_a_clock_that_is_years_behind_does_not_make_a_lease_stale() -> None:
    seen = observe(lease("1", "other", renewed="1999-01-01T00:00:00Z"), None, 0.0, 30)
    assert not free(seen, "me", 1.0)


def test_a_released_lease_and_our_own_are_free_at_once() -> None:
    assert free(observe(lease("1", ""), None, 0.0, 30), "me", 0.0)
    assert free(observe(lease("1", "me"), None, 0.0, 30), "me", 0.0)


def test_the_holder_says_how_long_its_lease_lasts() -> None:
    seen = observe(lease("1", "other", seconds=120), None, 0.0, 30)
    assert not free(seen, "me", 100.0)
    assert free(seen, "me", 121.0)


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0.1, 10)), min_size=1, max_size=30))
def test_a_foreign_lease_is_free_only_when_one_version_was_seen_for_its_whole_duration(
    looks: list[tuple[int, float]],
) -> None:
    now, version = 0.0, 0
    first_seen: dict[int, float] = {}
    seen: Seen | None = None
    for step, wait in looks:
        now += wait
        version += step - 1  # 0: unchanged
        seen = observe(lease(str(version), "other"), seen, now, 30)
        first_seen.setdefault(version, now)
        assert free(seen, "me", now) == (now - first_seen[version] > 30)


@pytest.mark.parametrize(("duration", "deadline", "retry"), [(30, 30, 5), (30, 20, 20), (30, 20, 0), (10, 20, 5)])
def test_a_timing_in_which_two_could_lead_is_refused(duration: float, deadline: float, retry: float) -> None:
    with pytest.raises(ValueError, match="retry < deadline < duration"):
        Timing(duration, deadline, retry)
