"""Promise 1 on real parts: spend at the end is <= cap + rate x (poll + grace), whichever layer is there to stop."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import caps
import pytest
import runs
from caps import ALL, ENDLESS, KUBELET, LAUNCHER, OPERATOR, Layer, Measured
from runs import Tollgate, attempts, phase, spent

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

EVERY = pytest.mark.parametrize("layer", [ALL, LAUNCHER, OPERATOR, KUBELET], ids=lambda layer: layer.name)
CENT = Decimal("0.01")
OVER = ("Succeeded", "Failed")


@pytest.fixture(scope="module")
def measured(tollgate: Tollgate) -> Mapping[str, Measured]:
    """One run for each layer that is alone, and one with all of them; two at a time, for the machine has two cores."""
    caps.prepare(tollgate)
    return caps.measure(tollgate, (ALL, OPERATOR)) | caps.measure(tollgate, (LAUNCHER, KUBELET))


@EVERY
def test_a_run_never_costs_more_than_its_cap_and_the_grace(measured: Mapping[str, Measured], layer: Layer) -> None:
    found = measured[layer.name]
    assert found.ledger <= found.allowed
    assert found.witnessed <= found.allowed
    assert found.witnessed_most <= found.allowed


@EVERY
def test_the_ledger_books_what_the_pods_used_to_the_cent(measured: Mapping[str, Measured], layer: Layer) -> None:
    found = measured[layer.name]
    assert abs(found.ledger - found.witnessed) < CENT
    assert found.ledger > found.cap - caps.MORE / 2, "it was not the cap that ended it"


@EVERY
def test_a_run_that_its_cap_ended_says_so_and_has_a_checkpoint(measured: Mapping[str, Measured], layer: Layer) -> None:
    found = measured[layer.name]
    status = found.run["status"]
    stopped = next(c for c in status["conditions"] if c["type"] == "Stopped")
    assert (status["phase"], stopped["status"], stopped["reason"]) == ("Stopped", "True", "BudgetExceeded")
    last = attempts(found.run)[-1]
    assert (last["outcome"], last["stopReason"]) == ("Stopped", "BudgetExceeded")
    assert status["checkpoint"]["step"] == found.checkpoint > 0
    assert "maxCostUSD" in status["message"]


@EVERY
def test_a_cap_below_what_is_spent_stops_at_once_and_a_higher_one_goes_on(
    measured: Mapping[str, Measured], layer: Layer
) -> None:
    first, second = attempts(measured[layer.name].run)
    assert (first["outcome"], first["stopReason"]) == ("Stopped", "BudgetExceeded")
    assert second["number"] == 2
    assert Decimal(first["costUSD"]) + Decimal(second["costUSD"]) == measured[layer.name].ledger


def test_with_everything_up_a_run_stays_below_its_cap(measured: Mapping[str, Measured]) -> None:
    assert measured[ALL.name].ledger <= measured[ALL.name].cap


def test_each_layer_stopped_its_run_by_itself(measured: Mapping[str, Measured]) -> None:
    assert {name: found.stopped_by_operator for name, found in measured.items() if name != ALL.name} == {
        LAUNCHER.name: False,
        OPERATOR.name: True,
        KUBELET.name: False,
    }
    assert {name: found.stopped_by_kubelet for name, found in measured.items() if name != ALL.name} == {
        LAUNCHER.name: False,
        OPERATOR.name: False,
        KUBELET.name: True,
    }


def test_a_suspended_run_goes_on_from_its_checkpoint_and_a_runtime_limit_stops_one(tollgate: Tollgate) -> None:
    name, timed = "cap-steered", "cap-runtime"
    tollgate.apply(
        runs.run(name, steps=400, batch=32),
        runs.run(timed, steps=ENDLESS, limits={"maxCostUSD": "50", "maxRuntime": "1h"}),
    )
    saved = tollgate.wait_for_checkpoint(name)
    tollgate.patch(name, {"suspend": True})
    tollgate.wait_for_checkpoint(timed)
    tollgate.patch(timed, {"limits": {"maxRuntime": "10s", "stopMargin": "1s"}})

    suspended = tollgate.wait_for_phase(name, "Suspended", *OVER)
    assert phase(suspended) == "Suspended"
    step = suspended["status"]["checkpoint"]["step"]
    assert step >= saved
    tollgate.patch(name, {"suspend": False})

    stopped = tollgate.wait_for_phase(timed, "Stopped", *OVER)
    assert phase(stopped) == "Stopped"
    assert attempts(stopped)[-1]["stopReason"] == "RuntimeExceeded"
    assert "maxRuntime" in stopped["status"]["message"]
    assert stopped["status"]["checkpoint"]["step"] > 0

    finished = tollgate.wait_for_phase(name, "Stopped", *OVER)
    assert phase(finished) == "Succeeded"
    assert [attempt["outcome"] for attempt in attempts(finished)] == ["Stopped", "Completed"]
    words = tollgate.last_words(name, attempt=2)
    assert (words.resumed_from_step, words.step) == (step, 400)
    assert spent(finished) == sum(Decimal(attempt["costUSD"]) for attempt in attempts(finished))
