"""What a script waits for: `Finished` is True at every end of a run, and False as soon as the run goes on."""

from __future__ import annotations

from typing import Any

import pytest

from operator_process import RUN, Process, manifest, spec, world
from tollgate.api.meta import Condition, find_condition
from tollgate.api.training_run import ConditionType, Phase, TrainingRunStatus

BROKEN = {"code": 64, "words": {"outcome": "failed", "reason": "DatasetRefused", "error": {"message": "no such file"}}}
CRASH = {"code": 70, "words": {"outcome": "failed", "reason": "Exception", "error": {"message": "boom"}}}

ENDS: list[tuple[str, dict[str, Any], dict[str, Any], Phase, str, str]] = [
    ("trained to the end", {}, {}, Phase.SUCCEEDED, "Succeeded", "trained to step 20"),
    ("the user's error", {}, BROKEN, Phase.FAILED, "Failed", "no such file"),
    ("too many failures", {"restart": {"maxFailures": 0}}, CRASH, Phase.FAILED, "Failed", "maxFailures is 0"),
    (
        "a broken manifest",
        {"manifest": manifest(hyperparameters={"learning_rte": 1})},
        {},
        Phase.FAILED,
        "Failed",
        "learning_rte",
    ),
    ("the money is out", {"limits": {"maxCostUSD": "0.90"}}, {}, Phase.STOPPED, "BudgetExceeded", "maxCostUSD"),
    (
        "the time is up",
        {"limits": {"maxCostUSD": "10", "maxRuntime": "90s", "stopMargin": "10s"}},
        {},
        Phase.STOPPED,
        "RuntimeExceeded",
        "maxRuntime",
    ),
]


def finished(status: TrainingRunStatus) -> Condition:
    found = find_condition(status.conditions, ConditionType.FINISHED)
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "change", "ending", "phase", "reason", "part"), ENDS, ids=[row[0] for row in ENDS])
async def test_every_end_says_so_with_the_sentence_that_people_see(
    name: str, change: dict[str, Any], ending: dict[str, Any], phase: Phase, reason: str, part: str
) -> None:
    operator = Process(world(spec(**change), total_steps=20 if phase is not Phase.STOPPED else 5_000))
    if ending:
        operator.world.endings["train", 1, 0] = {"after": 2, **ending}
    seen: list[tuple[Phase | None, str]] = []

    def over(status: TrainingRunStatus) -> bool:
        if status.phase is not None:
            seen.append((status.phase, finished(status).status))
        return status.phase is phase

    told = finished(status := await operator.until(over))
    assert (told.status, told.reason, told.message) == ("True", reason, status.message)
    assert part in told.message
    assert {said for at, said in seen if at is not phase} <= {"False"}, "and no state in between says it is over"
    assert {said for at, said in seen if at is phase} == {"True"}, "the write of the end says it"


async def test_a_run_that_was_stopped_by_its_limit_and_goes_on_is_not_finished_until_it_ends_again() -> None:
    operator = Process(world(spec(limits={"maxCostUSD": "0.90"}), total_steps=120))
    stopped = await operator.until(lambda s: s.phase is Phase.STOPPED)
    operator.world.change(RUN, {"spec": {"limits": {"maxCostUSD": "10"}}})
    going = await operator.until(lambda s: s.phase is not Phase.STOPPED)
    assert (finished(going).status, finished(going).message) == ("False", "")
    assert finished(going).last_transition_time > finished(stopped).last_transition_time
    ended = await operator.until(lambda s: s.phase is Phase.SUCCEEDED)
    assert (finished(ended).status, finished(ended).reason) == ("True", "Succeeded")


async def test_a_person_who_pauses_a_run_has_not_ended_it() -> None:
    operator = Process(world(total_steps=500))
    await operator.until(lambda s: s.phase is Phase.RUNNING)
    operator.world.change(RUN, {"spec": {"suspend": True}})
    status = await operator.until(lambda s: s.phase is Phase.SUSPENDED)
    assert (finished(status).status, finished(status).reason) == ("False", "Suspended")


async def test_who_waits_for_a_finished_run_after_an_edit_of_its_spec_is_answered() -> None:
    """`kubectl wait` passes over a condition whose observedGeneration is older than the object."""
    operator = Process(world())
    await operator.until(lambda s: s.phase is Phase.SUCCEEDED)
    operator.world.change(RUN, {"spec": {"ttlSecondsAfterFinished": 3600}})
    status = await operator.until(lambda s: s.observed_generation == 2)
    assert {c.observed_generation for c in status.conditions} == {2}
    assert finished(status).status == "True"


async def test_a_run_that_ended_before_the_condition_existed_gets_it_in_one_write() -> None:
    operator = Process(world())
    status = await operator.until(lambda s: s.phase is Phase.SUCCEEDED)
    old = [c for c in operator.world.objects[RUN]["status"]["conditions"] if c["type"] != "Finished"]
    operator.world.change(RUN, {"status": {"conditions": old}})
    before = len(operator.world.writes)
    for _ in range(5):
        await operator.second()
    assert finished(operator.status).message == status.message
    assert len([path for _, path in operator.world.writes[before:] if path.endswith("/status")]) == 1
