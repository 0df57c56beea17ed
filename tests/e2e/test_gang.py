"""Two pods train one model: one Indexed Job, torchrun over a headless Service, gradients by gloo; they stop at the same
step, and a gang that was stopped in the middle ends with the model of one that never was, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import runs
from runs import Run, Tollgate, attempts

from tollgate.contract import LABEL_ATTEMPT, LABEL_RUN, RENDEZVOUS_SERVICE, LastWords

pytestmark = pytest.mark.e2e

PATIENCE = 300.0
STEPS = 160


@pytest.fixture(scope="module", autouse=True)
def profile(tollgate: Tollgate) -> None:
    """Two pods of it fill the node."""
    tollgate.apply(runs.profile("gang", tollgate.installed.trainer, cpu="800m", memory="1536Mi"))


def exact(name: str) -> Run:
    """A run of two pods whose numbers may not depend on chance: dropout on, seeds and algorithms fixed."""
    manifest = {
        "name": "exact",  # the same document for every run of this file
        "model": {"config": {**runs.TINY_LLAMA, "attention_dropout": 0.1}},
        "hyperparameters": {"eval_steps": 80, "logging_steps": 10},
        "reproducibility": {"deterministic": True},
    }
    # saves are rare, so that a stop has to save by itself; 4 samples a step make a step short
    spec = {"limits": {"maxCostUSD": "200"}, "compute": {"profile": "gang", "nodes": 2}}
    return runs.run(name, steps=STEPS, batch=4, save_steps=1000, manifest=manifest, **spec)


def losses(tollgate: Tollgate, name: str) -> dict[int, dict[int, str]]:
    """rank -> step -> loss as exact hexadecimal, over all attempts; a step that was done twice must agree."""
    found: dict[int, dict[int, str]] = {}
    for path in sorted((tollgate.output(name) / "logs/losses").glob("attempt-*-rank-*.jsonl")):
        ranked = found.setdefault(int(path.stem.rpartition("-")[2]), {})
        for record in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            assert ranked.setdefault(record["step"], record["loss"]) == record["loss"], path
    return found


def weights(tollgate: Tollgate, name: str) -> str:
    """sha256 of the finished weights."""
    return hashlib.sha256((tollgate.output(name) / "model/model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def control(tollgate: Tollgate) -> Iterator[Run]:
    """A run that nobody disturbed."""
    tollgate.apply(exact("gang-control"))
    yield tollgate.wait_for_phase("gang-control", "Succeeded", "Failed", "Stopped", seconds=PATIENCE)
    tollgate.delete("gang-control")


@dataclass(frozen=True, slots=True)
class Stop:
    """A gang after a stop: the run, and what each of its two nodes left."""

    run: Run
    words: tuple[LastWords, LastWords]
    checkpoints: list[int]


@pytest.fixture(scope="module")
def stops(tollgate: Tollgate) -> Iterator[list[Stop]]:
    """The same run, stopped twice in the middle, by a person and by the operator for its cap, and then let go on."""
    name = "gang-stopped"
    tollgate.apply(exact(name))
    seen = []
    for until, stop, phase, go in (
        (20, {"suspend": True}, "Suspended", {"suspend": False}),
        (60, {"limits": {"maxCostUSD": "0.5"}}, "Stopped", {"limits": {"maxCostUSD": "200"}}),
    ):
        tollgate.wait_for(name, f"step {until}", lambda _, n=until: done(tollgate, name) >= n, PATIENCE)
        tollgate.patch(name, stop)
        run = tollgate.wait_for_phase(name, phase, "Succeeded", "Failed", seconds=PATIENCE)
        number = run["status"]["attempt"]
        words = (tollgate.last_words(name, number, 0), tollgate.last_words(name, number, 1))
        seen.append(Stop(run, words, tollgate.checkpoints(name)))
        tollgate.patch(name, go)
    tollgate.wait_for_phase(name, "Succeeded", "Failed", seconds=PATIENCE)
    yield seen
    tollgate.delete(name)


def done(tollgate: Tollgate, name: str) -> int:
    """The newest step that was logged."""
    return max((event["step"] for event in tollgate.events(name, "step")), default=0)


def test_two_pods_of_one_job_train_one_model(tollgate: Tollgate, control: Run) -> None:
    assert runs.phase(control) == "Succeeded", control["status"]
    api, base = tollgate.cluster.api, f"namespaces/{runs.NAMESPACE}"
    found = api.get(f"/apis/batch/v1/{base}/jobs?labelSelector={LABEL_RUN}=gang-control")["items"]
    assert len(found) == 1
    assert (found[0]["spec"]["completionMode"], found[0]["spec"]["completions"]) == ("Indexed", 2)
    service = api.get(f"/api/v1/{base}/services/{RENDEZVOUS_SERVICE}")
    assert service["spec"]["clusterIP"] == "None"

    pods = tollgate.pods("gang-control", 1)
    assert [pod["status"]["phase"] for pod in pods] == ["Succeeded", "Succeeded"]
    assert {pod["metadata"]["labels"][LABEL_ATTEMPT] for pod in pods} == {"1"}
    addresses = [f"--master-addr={found[0]['metadata']['name']}-0.{RENDEZVOUS_SERVICE}." in str(pod) for pod in pods]
    assert addresses == [True, True]
    assert [event["world"] for event in tollgate.events("gang-control", "start")] == [2]
    assert [tollgate.last_words("gang-control", 1, node).step for node in (0, 1)] == [STEPS, STEPS]
    ranks = losses(tollgate, "gang-control")
    assert sorted(ranks) == [0, 1]
    assert ranks[0] != ranks[1], "each rank has data of its own"


def test_the_cost_of_a_gang_is_that_of_all_its_pods(control: Run) -> None:
    attempt = attempts(control)[0]
    assert attempt["podSeconds"] > attempt["runSeconds"] * 1.5, "two pods ran at the same time"
    assert runs.spent(control) == runs.Decimal(attempt["costUSD"])
    expected = runs.PER_HOUR * runs.Decimal(str(attempt["podSeconds"])) / 3600
    assert abs(runs.spent(control) - expected) < runs.Decimal("0.001")


@pytest.mark.parametrize(
    ("index", "phase", "reason"), [(0, "Suspended", "Suspended"), (1, "Stopped", "BudgetExceeded")]
)
def test_a_stopped_gang_leaves_together_at_one_step_with_one_checkpoint(
    stops: list[Stop], index: int, phase: str, reason: str
) -> None:
    stop = stops[index]
    status = stop.run["status"]
    assert status["phase"] == phase, status
    attempt = attempts(stop.run)[-1]
    assert (attempt["outcome"], attempt["stopReason"]) == ("Stopped", reason)
    first, second = stop.words
    assert first.step == second.step
    assert first.step is not None
    assert 0 < first.step < STEPS
    assert first.checkpoint is not None
    assert first.checkpoint == second.checkpoint
    assert first.checkpoint.step == first.step, "it was asked to stop and had the time to save"
    assert stop.checkpoints[-1] == first.step
    assert len(stop.checkpoints) == index + 1, "nothing but the stops saved"
    assert status["checkpoint"]["step"] == first.step


def test_a_gang_stopped_in_the_middle_ends_as_one_that_never_was_bit_for_bit(
    tollgate: Tollgate, control: Run, stops: list[Stop]
) -> None:
    stopped = tollgate.get("gang-stopped")
    assert [runs.phase(control), runs.phase(stopped)] == ["Succeeded", "Succeeded"]
    assert len(attempts(stopped)) == 3
    restored = tollgate.events("gang-stopped", "restore")
    assert [event["step"] for event in restored] == [stop.words[0].step for stop in stops]
    assert [event["equality"] for event in restored] == ["bit-equal", "bit-equal"], restored

    if traits(tollgate, stopped) != traits(tollgate, control):
        # Only now is it worth the time: two runs that nobody stopped must agree before a difference says anything.
        tollgate.apply(exact("gang-again"))
        again = tollgate.wait_for_phase("gang-again", "Succeeded", "Failed", "Stopped", seconds=PATIENCE)
        assert traits(tollgate, again) == traits(tollgate, control), "inconclusive: two uninterrupted runs differ"
        assert traits(tollgate, stopped) == traits(tollgate, control)


def traits(tollgate: Tollgate, run: Run) -> dict[str, Any]:
    """All that has to be equal: each loss of each rank, the weights, the model's digest."""
    name = run["metadata"]["name"]
    return {
        "losses": losses(tollgate, name),
        "weights": weights(tollgate, name),
        "digest": run["status"]["model"]["digest"],
    }


@pytest.mark.full
def test_two_gangs_that_nobody_stopped_are_equal_bit_for_bit(tollgate: Tollgate, control: Run) -> None:
    tollgate.apply(exact("gang-second"))
    second = tollgate.wait_for_phase("gang-second", "Succeeded", "Failed", "Stopped", seconds=PATIENCE)
    assert traits(tollgate, second) == traits(tollgate, control)
    assert {step for ranked in losses(tollgate, "gang-second").values() for step in ranked} == set(range(1, STEPS + 1))
    tollgate.delete("gang-second")
