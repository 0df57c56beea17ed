"""Real failures of real pods: each ends its attempt with class, pod, node, rank, exit code and words, and what follows
is what docs/how-to/failures.md promises.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faults
import pytest
import runs
from runs import Run, Tollgate, attempts

from tollgate_local.testing import eventually

pytestmark = pytest.mark.e2e

PATIENCE = 240.0


@pytest.fixture(scope="module", autouse=True)
def profile(tollgate: Tollgate) -> None:
    """Two pods of it fill the node."""
    tollgate.apply(runs.profile("restart", tollgate.installed.trainer, cpu="800m", memory="1536Mi"))


def going_on(name: str, **spec: Any) -> Run:
    """A run that would train for hours, and saves every second or so."""
    spec = {"nodes": 2, "limits": {"maxCostUSD": "500"}, **spec}
    manifest = {"hyperparameters": {"eval_steps": 100_000, "logging_steps": 5}}
    spec["compute"] = {"profile": spec.pop("profile", "restart"), "nodes": spec.pop("nodes")}
    return runs.run(name, steps=100_000, save_steps=10, manifest=manifest, **spec)


@dataclass(frozen=True, slots=True)
class Case:
    """A fault that meets one member of the gang, and what the status has to say of it."""

    fault: faults.Fault
    member: int
    class_: str
    reason: str
    exit_code: int | None
    words: str
    rank: int | None = None


CASES = {
    "a person deletes a pod": Case(faults.delete_pod, 1, "Disruption", "PodDeleted", 75, "the pod was deleted"),
    "a rank is killed": Case(faults.kill_worker, 1, "Application", "Killed", 137, "killed by signal 9", rank=1),
    "a pod is evicted": Case(faults.evict_pod, 0, "Disruption", "EvictionByEvictionAPI", 75, "Eviction API"),
    "a launcher is killed": Case(faults.kill_launcher, 0, "Application", "Killed", 137, "killed by signal 9"),
}


def saving(tollgate: Tollgate, name: str) -> tuple[int, list[dict[str, Any]]]:
    """(number, pods) of the run's attempt once it has saved a checkpoint of its own."""

    def has_saved(run: Run) -> bool:
        number = run["status"].get("attempt")
        return runs.phase(run) == "Running" and any(e["attempt"] == number for e in tollgate.events(name, "save"))

    number = tollgate.wait_for(name, "an attempt that has saved", has_saved, PATIENCE)["status"]["attempt"]
    return number, tollgate.pods(name, number)


def ended(tollgate: Tollgate, name: str, number: int) -> dict[str, Any]:
    """The attempt once it is over."""

    def is_over(run: Run) -> bool:
        return any(a["number"] == number and "outcome" in a for a in attempts(run))

    run = tollgate.wait_for(name, f"attempt {number} is over", is_over, PATIENCE)
    return next(a for a in attempts(run) if a["number"] == number)


def of_attempt(tollgate: Tollgate, name: str, kind: str, number: int) -> list[dict[str, Any]]:
    """The trainer's events of one kind and attempt."""
    return [event for event in tollgate.events(name, kind) if event["attempt"] == number]


@pytest.fixture(scope="class")
def gang(tollgate: Tollgate) -> Iterator[str]:
    """One gang of two that outlives all that is done to it; it fills the node, so it ends with the class."""
    tollgate.apply(going_on("restart-gang", restart={"maxFailures": 50, "maxDisruptions": 50}))
    yield "restart-gang"
    faults.end(tollgate, "restart-gang")


class TestALostMember:
    """A gang that lost one of its pods."""

    @pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
    def test_a_gang_that_lost_a_member_goes_on_from_its_newest_checkpoint_and_says_what_was_lost(
        self, tollgate: Tollgate, gang: str, case: Case
    ) -> None:
        number, pods = saving(tollgate, gang)
        assert len(pods) == 2
        case.fault(tollgate, pods[case.member])

        attempt = ended(tollgate, gang, number)
        assert attempt["outcome"] == "Failed"
        failure = attempt["failure"]
        assert (failure["class"], failure["reason"]) == (case.class_, case.reason), failure
        assert failure["pod"] == faults.name_of(pods[case.member]), failure
        assert failure["node"] == pods[case.member]["spec"]["nodeName"]
        assert failure.get("exitCode") == case.exit_code, failure
        assert failure.get("rank") == case.rank, failure
        assert case.words in failure["message"], failure

        restored = eventually(lambda: of_attempt(tollgate, gang, "restore", number + 1), PATIENCE, "the gang is back")
        saved, told = of_attempt(tollgate, gang, "save", number), of_attempt(tollgate, gang, "step", number)
        assert saved[-1]["step"] <= restored[0]["step"] <= max(told[-1]["step"], saved[-1]["step"]) + 5
        assert restored[0]["checkpoint"] == f"checkpoints/checkpoint-{restored[0]['step']}"
        following = next(a for a in attempts(tollgate.get(gang)) if a["number"] == number + 1)
        assert runs.moment(following["startTime"]) >= runs.moment(attempt["endTime"]).replace(microsecond=0), (
            "no pod of an attempt is placed while one of the attempt before lives"
        )


def test_a_dataset_that_is_not_there_fails_the_run_at_once_in_the_trainers_words(tollgate: Tollgate) -> None:
    name = "restart-no-data"
    broken = going_on(name, nodes=1)
    broken["spec"]["manifest"]["dataset"]["path"] = "tiny/nowhere.json"
    tollgate.apply(broken)
    run = tollgate.wait_for_phase(name, "Failed", "Succeeded", "Stopped", seconds=PATIENCE)
    assert len(attempts(run)) == 1, "trying again would change nothing"
    failure = attempts(run)[0]["failure"]
    assert (failure["class"], failure["reason"], failure["exitCode"]) == ("User", "DatasetRefused", 64)
    assert "tiny/nowhere.json" in failure["message"]
    assert "tiny/nowhere.json" in run["status"]["message"]
    tollgate.delete(name)


def test_a_container_that_outgrows_its_memory_is_said_to_have_done_so(tollgate: Tollgate) -> None:
    name = "restart-memory"
    tollgate.apply(runs.profile("restart-small", tollgate.installed.trainer, cpu="800m", memory="200Mi"))
    small = going_on(name, profile="restart-small", nodes=1, restart={"maxFailures": 0})
    tollgate.apply(small)
    run = tollgate.wait_for_phase(name, "Failed", "Succeeded", "Stopped", seconds=PATIENCE)
    failure = attempts(run)[0]["failure"]
    assert failure["class"] == "Application"
    assert failure["exitCode"] == 137
    assert "memory" in failure["message"], failure
    assert "maxFailures is 0" in run["status"]["message"]
    tollgate.delete(name)


@pytest.mark.full
def test_a_frozen_rank_is_a_stall_and_the_gang_starts_again(tollgate: Tollgate) -> None:
    name = "restart-frozen"
    tollgate.apply(going_on(name, restart={"stallTimeout": "20s"}))
    number, pods = saving(tollgate, name)
    faults.freeze_worker(tollgate, pods[1])
    attempt = ended(tollgate, name, number)
    failure = attempt["failure"]
    assert (failure["class"], failure["reason"]) == ("Stall", "Stalled"), failure
    assert "no progress for 20s at step" in failure["message"]
    faults.wait_until_frozen_processes_are_gone(pods[1])
    eventually(lambda: of_attempt(tollgate, name, "restore", number + 1), PATIENCE, "the gang is back")
    faults.end(tollgate, name)


@pytest.mark.full
def test_a_loss_that_is_not_a_number_is_tried_once_more_and_then_fails_the_run(tollgate: Tollgate) -> None:
    name = "restart-not-finite"
    wild = going_on(name, nodes=1)
    wild["spec"]["manifest"]["hyperparameters"]["learning_rate"] = 1e15
    tollgate.apply(wild)
    run = tollgate.wait_for_phase(name, "Failed", "Succeeded", "Stopped", seconds=2 * PATIENCE)
    reasons = [a["failure"]["reason"] for a in attempts(run)]
    assert reasons == ["NonFinite", "NonFinite"], run["status"]
    assert attempts(run)[0]["failure"]["rank"] == 0
    assert "lower the learning rate" in run["status"]["message"]
    tollgate.delete(name)


@pytest.mark.full
def test_a_gang_outlives_a_cut_of_its_node_that_is_shorter_than_its_toleration(tollgate: Tollgate) -> None:
    """The pods run on and cannot be seen; nobody may claim that they ended, and no second gang may start."""
    name = "restart-cut"
    tollgate.apply(going_on(name))
    number, _ = saving(tollgate, name)
    tollgate.cluster.cut()
    try:
        eventually(lambda: not_ready(tollgate), 120, "the node is seen to be away")
        assert runs.phase(tollgate.get(name)) == "Running"
    finally:
        tollgate.cluster.mend()
    eventually(lambda: not not_ready(tollgate), 120, "the node is back")
    before = max(tollgate.checkpoints(name))
    eventually(lambda: max(tollgate.checkpoints(name)) > before, PATIENCE, "the gang goes on")
    run = tollgate.get(name)
    assert (runs.phase(run), run["status"]["attempt"]) == ("Running", number)
    faults.end(tollgate, name)


def not_ready(tollgate: Tollgate) -> bool:
    """Whether the control plane holds the node for lost."""
    conditions = tollgate.cluster.api.get("/api/v1/nodes/node1")["status"]["conditions"]
    return any(c["type"] == "Ready" and c["status"] != "True" for c in conditions)
