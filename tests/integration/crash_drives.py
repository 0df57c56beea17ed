"""Whole lives of a run, undisturbed or with what goes wrong in them; crash_cells.py makes the matrix of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import proxy as at
from lifecycle import Life, promoted, run_document
from proxy import Fault

Body = dict[str, Any]
Drive = Callable[[Life], None]


# --- lives ------------------------------------------------------------------------------------------------------------


def judged(life: Life, nodes: int = 1) -> None:
    """Trained, evaluated, judged, promoted."""
    life.hold("train")
    life.apply(run_document(compute={"profile": "crash-cpu", "nodes": nodes}))
    life.until_phase("Running")
    time.sleep(1.2)  # Kubernetes' times have whole seconds: it has to cost something
    life.release("train")
    life.until(lambda: promoted(life), "the run is promoted")


def capped(life: Life) -> None:
    """Stopped by a cap that was lowered under it, then taken to the end by a raised one."""
    life.hold("train")
    life.apply(run_document())
    life.until_phase("Running")
    life.patch({"limits": {"maxCostUSD": "0.01"}})
    life.until_phase("Stopped")
    life.patch({"limits": {"maxCostUSD": "50"}})
    life.until(lambda: promoted(life), "the run is promoted")


def restarted(life: Life) -> None:
    """The first attempt waits for what the cell does to it; the second one trains to the end."""
    life.hold("train")
    life.apply(run_document())
    life.until_phase("Running")


# --- the operator is away ---------------------------------------------------------------------------------------------


def trains_on_alone(life: Life) -> None:
    restarted(life)
    life.kill()
    time.sleep(0.3)
    life.release("train")
    life.until(lambda: promoted(life), "the run is promoted")


def ends_alone(life: Life) -> None:
    """The pod does its work to the end while no operator is there."""
    restarted(life)
    life.kill_for_long()
    life.release("train")
    life.until(lambda: not life.witness.living("counsel"), "the pod ended")
    time.sleep(1.5)  # the Job is Complete as well
    life.come_back()
    life.until(lambda: promoted(life), "the run is promoted")


def stop_ends_alone(life: Life) -> None:
    """Killed with the answer to the stop; the gang is gone before anybody looks."""
    life.hold("train")
    life.apply(run_document())
    life.until_phase("Running")
    fault = life.proxy.strike(Fault(at.stops_job, "after", act=life.kill_for_long))
    life.patch({"limits": {"maxCostUSD": "0.01"}})
    life.until(fault.happened.is_set, "the stop was sent")
    life.until(lambda: not life.witness.living("counsel"), "the gang is gone")
    time.sleep(1.5)
    life.come_back()
    life.until_phase("Stopped")
    life.patch({"limits": {"maxCostUSD": "50"}})
    life.until(lambda: promoted(life), "the run is promoted")


def evaluation_ends_alone(life: Life) -> None:
    life.hold("evaluate")
    life.apply(run_document())
    life.until(lambda: life.witness.living("counsel", "evaluate"), "the evaluation runs")
    life.kill_for_long()
    life.release("evaluate")
    life.until(lambda: not life.witness.living("counsel", "evaluate"), "the evaluation ended")
    time.sleep(1.5)
    life.come_back()
    life.until(lambda: promoted(life), "the run is promoted")


# --- children that vanish ---------------------------------------------------------------------------------------------


def _job(life: Life, role: str = "train", attempt: int = 1) -> str:
    for job in life.cluster.api.get(f"/apis/batch/v1/namespaces/{life.namespace}/jobs")["items"]:
        labels = job["metadata"]["labels"]
        if (labels["tollgate.dev/role"], labels["tollgate.dev/attempt"]) == (role, str(attempt)):
            return str(job["metadata"]["name"])
    raise AssertionError(f"no Job of {role} {attempt}")


def _delete_job(life: Life, propagation: str) -> None:
    path = f"/apis/batch/v1/namespaces/{life.namespace}/jobs/{_job(life)}?propagationPolicy={propagation}"
    life.cluster.api.delete(path)


def _delete_pods(life: Life, grace: int | None = None) -> None:
    for pod in life.witness.living("counsel"):
        query = "" if grace is None else f"?gracePeriodSeconds={grace}"
        life.cluster.api.delete(f"/api/v1/namespaces/{life.namespace}/pods/{pod.name}{query}")


def job_deleted(propagation: str, away: bool) -> Drive:
    """The Job goes under a running attempt."""

    def drive(life: Life) -> None:
        restarted(life)
        if away:
            life.kill_for_long()
        _delete_job(life, propagation)
        life.until(lambda: all(p.deleted for p in life.witness.of("counsel")), "its pods are gone")
        life.come_back()
        life.until(lambda: promoted(life), "the run is promoted")

    return drive


def pod_deleted(grace: int | None, away: bool) -> Drive:
    """The pod goes, the Job is left to fail."""

    def drive(life: Life) -> None:
        restarted(life)
        if away:
            life.kill_for_long()
        _delete_pods(life, grace)
        life.until(lambda: all(p.deleted for p in life.witness.of("counsel", attempt=1)), "its pod is gone")
        if away:
            time.sleep(2)  # the Job has failed as well
        life.come_back()
        life.until(lambda: promoted(life), "the run is promoted")

    return drive


def late_events(life: Life) -> None:
    """Every pod event comes seconds late, so the Job's end is known first."""
    life.proxy.delays["pods"] = 1.5
    life.apply(run_document())
    life.until(lambda: promoted(life), "the run is promoted")


def doubled_events(life: Life) -> None:
    life.proxy.double_events = True
    judged(life)


def conflicts(life: Life) -> None:
    """Somebody else writes to the run all the time, so that status writes keep losing."""
    life.hold("train")
    life.apply(run_document())
    for number in range(40):
        life.cluster.api.merge(f"{life.runs}/counsel", {"metadata": {"annotations": {"touched": str(number)}}})
        time.sleep(0.05)
    life.proxy.strike(Fault(at.writes_run, "before", answer=409, times=5))
    life.until_phase("Running")
    life.proxy.strike(Fault(at.writes_run, "after", answer=409, times=3))
    life.release("train")
    life.until(lambda: promoted(life), "the run is promoted")


def errors(code: int) -> Drive:
    """Every third request fails; of those that may have taken effect half did."""

    def drive(life: Life) -> None:
        counted = {"n": 0}

        def every_third(request: at.Request) -> bool:
            counted["n"] += 1
            return "leases" not in request.path and counted["n"] % 3 == 0

        life.proxy.strike(Fault(every_third, "before", answer=code, times=40))
        if code >= 500:  # who answers 429 has done nothing
            life.proxy.strike(Fault(every_third, "after", answer=code, times=40))
        judged(life)

    return drive


def broken_connections(life: Life) -> None:
    """Every fourth write breaks after the API server did it."""
    counted = {"n": 0}

    def every_fourth(request: at.Request) -> bool:
        counted["n"] += request.is_write
        return request.is_write and counted["n"] % 4 == 0

    life.proxy.strike(Fault(every_fourth, "after", answer=0, times=20))
    judged(life)
