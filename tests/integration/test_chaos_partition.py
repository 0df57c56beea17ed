"""Two operators and a partition, an API server that restarts, an operator that dies again and again: one acts."""

from __future__ import annotations

import random
import time
from datetime import datetime
from pathlib import Path

import installed
import pytest
from lifecycle import PRICE, Life, books, end_state, operator, promoted, run_document

pytestmark = pytest.mark.integration


def lease(lived: Life) -> dict[str, str]:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{lived.namespace}/leases/tollgate-operator"
    found: dict[str, str] = (installed.there(lived.cluster, path) or {"spec": {}})["spec"]
    return found


def once_and_exact(lived: Life, *names: str) -> None:
    """What must hold of every run, whatever happened."""
    for name in names:
        jobs = lived.witness.jobs_of(name)
        assert all(len(uids) == 1 for uids in jobs.values()), jobs
        assert end_state(lived, name)["phase"] == "Succeeded"
        money = books(lived, name)
        assert money["spent"] == money["attempts"] == money["categories"] == lived.witness.micro_usd(name, PRICE)
    assert lived.witness.most_gangs == 1


def test_a_partitioned_operator_stops_before_the_next_one_acts(lived: Life, tmp_path: Path) -> None:
    lived.away = True  # who stops here stays stopped
    lived.hold("train")
    lived.apply(run_document())
    lived.until_phase("Running")
    second = operator(lived.cluster, tmp_path, lived.namespace, lived.cluster.server, identity="second").start()
    try:
        lived.until(lambda: second.page("/healthz")[0] == 200, "the second one waits")
        assert lease(lived)["holderIdentity"] == "operator-0"
        lived.proxy.hold()
        cut = time.time()
        lived.until(lambda: lease(lived)["holderIdentity"] == "second", "the second one leads", 60)
        taken = datetime.fromisoformat(lease(lived)["acquireTime"]).timestamp()
        assert lived.operator.ended(20) == 1, "it gave up by itself"
        lived.release("train")
        lived.proxy.mend()  # what was on its way arrives now
        lived.until(lambda: promoted(lived), "the second one takes the run to its end")
        late = [e for e in lived.proxy.log if e.at >= cut and e.request.method in ("POST", "PUT", "PATCH", "DELETE")]
        assert all(e.code == 409 for e in late), f"a write of the first one was accepted after {taken}: {late}"
        once_and_exact(lived, "counsel")
    finally:
        second.kill()


def test_an_api_server_that_restarts_under_runs_changes_nothing(lived: Life) -> None:
    names = ["a", "b", "c"]
    lived.hold("train")
    for name in names:
        lived.apply(run_document(name))
    for name in names:
        lived.until_phase("Running", name=name)
    for _ in range(2):
        lived.cluster.stop_server("kube-apiserver")
        time.sleep(1)
        lived.cluster.start_server("kube-apiserver")
    lived.release("train")
    for name in names:
        lived.until_phase("Succeeded", name=name, seconds=150)
    lived.witness.problems.clear()
    once_and_exact(lived, *names)


def test_lists_so_long_that_the_api_server_compresses_them_are_read(lived: Life) -> None:
    for number in range(2):
        document = run_document(f"run-{number}")
        document["metadata"]["annotations"] = {"example.com/note": "long " * 30_000}
        lived.apply(document)
    lived.kill()  # the next one begins with a list
    for number in range(2):
        lived.until_phase("Succeeded", name=f"run-{number}")
    assert lived.proxy.compressed > 0, "or nothing is proven"
    once_and_exact(lived, "run-0", "run-1")


@pytest.mark.full  # minutes on a busy machine; test_crashes has each death by itself
def test_an_operator_that_dies_again_and_again_under_several_runs_loses_nothing(lived: Life) -> None:
    dice = random.Random(7)
    names = [f"run-{number}" for number in range(6)]
    for name in names:
        lived.apply(run_document(name))
    for _ in range(5):
        time.sleep(dice.uniform(0.2, 4))
        lived.kill()
    for name in names:
        lived.until_phase("Succeeded", name=name, seconds=150)
    assert lived.kills == 5
    once_and_exact(lived, *names)
    assert all(a["number"] == 1 for name in names for a in lived.run(name)["status"]["attempts"])
