"""A run that was deleted and applied again, or that follows another one on its output folder: who may write there.

What the trainer makes of it (finished output is adopted, not trained again) is shown with a real trainer in the unit
and e2e tests; here it is what the operator tells it.
"""

from __future__ import annotations

import time
from typing import Any

import installed
import pytest
from lifecycle import Life, run_document

from tollgate.contract import Env

pytestmark = pytest.mark.integration


def environment(lived: Life, run_uid: str) -> dict[str, str]:
    """Environment of the newest pod of the run with that uid."""
    pods = [p for p in lived.witness.pods.values() if p.body["metadata"]["labels"]["tollgate.dev/run-uid"] == run_uid]
    container = pods[-1].body["spec"]["containers"][0]
    return {e["name"]: e.get("value", "") for e in container["env"]}


def delete(lived: Life, name: str = "counsel") -> None:
    """kubectl delete."""
    lived.cluster.api.delete(f"{lived.runs}/{name}?propagationPolicy=Background")
    lived.until(lambda: installed.there(lived.cluster, f"{lived.runs}/{name}") is None, f"{name} is gone")


def uid(body: dict[str, Any]) -> str:
    return str(body["metadata"]["uid"])


def test_a_finished_run_that_is_applied_again_may_take_over_its_own_output(lived: Life) -> None:
    document = run_document(judged=False)
    first = lived.apply(document)
    lived.until_phase("Succeeded")
    assert environment(lived, uid(first))[Env.TAKE_OVER] == "true", "nobody else ever named that folder"
    delete(lived)
    again = lived.apply(document)
    lived.until_phase("Succeeded")
    told, before = environment(lived, uid(again)), environment(lived, uid(first))
    assert told[Env.TAKE_OVER] == "true"
    assert told[Env.OUTPUT_ROOT] == before[Env.OUTPUT_ROOT]
    assert told[Env.MANIFEST_SHA256] == before[Env.MANIFEST_SHA256], "by this the trainer knows its finished output"
    assert told[Env.UID] != before[Env.UID]
    assert told[Env.ATTEMPT] == "1"


def test_a_run_that_is_applied_again_waits_until_the_old_pod_has_gone(lived: Life) -> None:
    lived.hold("train")
    document = run_document(judged=False)
    first = lived.apply(document)
    lived.until_phase("Running")
    (old,) = lived.witness.living("counsel")
    path = f"/api/v1/namespaces/{lived.namespace}/pods/{old.name}"
    stays = {"metadata": {"annotations": {"kwok.tollgate.dev/ignores-stop": "true"}, "finalizers": ["test.dev/stays"]}}
    lived.cluster.api.merge(path, stays)
    delete(lived)
    again = lived.apply(document)
    lived.until(lambda: "waits until pod" in lived.run().get("status", {}).get("message", ""), "it waits")
    time.sleep(3)
    assert len(lived.witness.living("counsel")) == 1
    assert not [
        p for p in lived.witness.of("counsel") if p.body["metadata"]["labels"]["tollgate.dev/run-uid"] == uid(again)
    ]
    lived.release("train")
    lived.cluster.api.merge(
        path, {"metadata": {"annotations": {"kwok.tollgate.dev/ignores-stop": None}, "finalizers": None}}
    )
    lived.until_phase("Succeeded")
    assert lived.witness.most_gangs == 1
    assert environment(lived, uid(again))[Env.TAKE_OVER] == "true"
    assert uid(first) != uid(again)


def test_a_deleted_run_stops_its_job_with_time_to_save(lived: Life) -> None:
    lived.hold("train")
    lived.apply(run_document(judged=False))
    lived.until_phase("Running")
    lived.cluster.api.delete(f"{lived.runs}/counsel?propagationPolicy=Foreground")
    lived.until(lambda: not lived.witness.living("counsel"), "its pod has ended")
    (pod,) = lived.witness.of("counsel")
    assert pod.ended_at is not None, "it was asked to stop, not torn away"
    lived.until(lambda: installed.there(lived.cluster, f"{lived.runs}/counsel") is None, "the run is gone")


@pytest.mark.full  # the younger one looks again once a minute
def test_two_runs_on_one_output_the_older_one_has_it_until_it_is_over(lived: Life) -> None:
    lived.hold("train")
    lived.apply(run_document("older", judged=False))
    lived.until_phase("Running", name="older")
    younger = run_document("younger", judged=False)
    younger["spec"]["storage"]["output"]["path"] = "older"
    body = lived.apply(younger)
    lived.until(lambda: "OutputInUse" in lived.run("younger").get("status", {}).get("message", ""), "it is refused")
    assert "older" in lived.run("younger")["status"]["message"]
    lived.release("train")
    lived.until_phase("Succeeded", name="older")
    lived.until_phase("Succeeded", name="younger", seconds=120)
    assert environment(lived, uid(body))[Env.TAKE_OVER] == "true"
    assert lived.witness.most_gangs == 1
