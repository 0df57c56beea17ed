"""What a run and an idle operator write, counted from the API server's own audit log."""

from __future__ import annotations

import json
import time
from collections import Counter

import installed
import pytest
from lifecycle import Life, run_document

pytestmark = pytest.mark.integration


def written(lived: Life, since: str = "") -> Counter[tuple[str, str]]:
    """(verb, resource/subresource) -> how many accepted writes the operator made in this namespace."""
    found: Counter[tuple[str, str]] = Counter()
    for line in lived.cluster.audit_log.read_text().splitlines():
        event = json.loads(line)
        reference = event.get("objectRef", {})
        if event["stage"] != "ResponseComplete" or event["user"].get("username") != installed.USER:
            continue
        if event["verb"] in ("get", "list", "watch") or reference.get("namespace") != lived.namespace:
            continue
        if event["requestReceivedTimestamp"] <= since:
            continue
        name = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
        found[event["verb"], name] += 1
    return found


def test_a_run_of_one_attempt_costs_one_create_and_four_status_writes(lived: Life) -> None:
    lived.hold("train")
    lived.apply(run_document(judged=False))
    lived.until_phase("Running")
    time.sleep(5)  # scrapes go on, steps go up: nothing of that is a reason to write
    lived.release("train")
    lived.until_phase("Succeeded")
    time.sleep(2)
    counted = written(lived)
    assert counted["create", "jobs"] == 1
    assert counted["patch", "trainingruns/status"] <= 4
    told = counted["create", "events"]
    assert 1 <= told <= counted["patch", "trainingruns/status"], "at most one Event per transition"
    rest = {what: n for what, n in counted.items() if what[1] not in ("leases", "events", "promotionpolicies/status")}
    assert set(rest) == {("create", "jobs"), ("patch", "trainingruns/status")}
    assert counted["patch", "promotionpolicies/status"] <= 2, "of the namespace's policy, which is new as well"


@pytest.mark.full  # a minute for one write
def test_a_running_run_is_refreshed_once_a_minute_and_no_more(lived: Life) -> None:
    lived.hold("train")
    lived.apply(run_document(judged=False))
    lived.until_phase("Running")
    before = lived.run()["status"]["cost"]["spentUSD"]
    since = installed.last_audit(lived.cluster.audit_log)
    lived.until(lambda: written(lived, since)["patch", "trainingruns/status"] >= 1, "the refresh", 75)
    assert lived.run()["status"]["cost"]["spentUSD"] != before
    time.sleep(3)
    assert written(lived, since)["patch", "trainingruns/status"] == 1
    lived.release("train")
    lived.until_phase("Succeeded")


def test_beside_finished_runs_an_idle_operator_writes_nothing_but_its_lease_for_a_minute(lived: Life) -> None:
    for name in ("one", "two", "three"):
        lived.apply(run_document(name, judged=name != "three"))
    for name in ("one", "two", "three"):
        lived.until_phase("Succeeded", name=name)
    lived.until(lambda: _holder(lived) is not None, "one of them is promoted")
    time.sleep(2)
    since = installed.last_audit(lived.cluster.audit_log)
    time.sleep(60)
    assert set(written(lived, since)) == {("update", "leases")}


def _holder(lived: Life) -> str | None:
    path = f"/apis/tollgate.dev/v1alpha1/namespaces/{lived.namespace}/promotionpolicies/care"
    stages = lived.cluster.api.get(path).get("status", {}).get("stages", [])
    return next((s["holder"]["run"] for s in stages if s.get("holder")), None)
