"""What a waiting run says: what it waits for, since when, and what to do; and that it is written when it matters."""

from __future__ import annotations

from typing import Any

import pytest

from operator_process import RUN, Process, profile, spec, world
from tollgate.api.meta import Condition, find_condition
from tollgate.api.quantities import format_spent
from tollgate.api.training_run import ConditionType, Phase, TrainingRunStatus

NO_NODE = (
    "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: "
    "0/3 nodes are available: 3 No victims."
)
PULL = 'Back-off pulling image "registry.test/trainer:9"'


def unschedulable(message: str) -> dict[str, Any]:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


def stuck(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": state}]}


def condition(status: TrainingRunStatus, kind: ConditionType) -> Condition:
    found = find_condition(status.conditions, kind)
    assert found is not None
    return found


async def test_a_run_that_no_node_takes_says_since_when_why_and_what_happens_next() -> None:
    operator = Process(world(schedule_after=10_000))
    await operator.until(lambda s: s.phase is Phase.PENDING and bool(list(operator.world.of("pods"))))
    name, _ = next(operator.world.of("pods"))
    operator.world.change(name, {"status": unschedulable(NO_NODE)})
    await operator.second()
    status = operator.status
    assert status.message.startswith("waits since 2026-01-01 00:00 UTC: no node takes pod ")
    assert "3 Insufficient nvidia.com/gpu. It gives its nodes back at 2026-01-01 00:30 UTC" in status.message
    assert "spec.restart.schedulingTimeout" in status.message
    assert "preemption" not in status.message
    assert "deallocate" not in status.message
    assert operator.world.told.count("Unschedulable") == 1
    said = condition(status, ConditionType.RUNNING)
    assert (said.status, said.reason) == ("False", "Unschedulable")
    before = len(operator.world.writes)
    operator.world.change(name, {"status": unschedulable("0/4 nodes are available: 4 Insufficient nvidia.com/gpu.")})
    for _ in range(5):
        await operator.second()
    assert len(operator.world.writes) == before, "another count of nodes is no news"


STUCK: list[tuple[str, str, str, str, str]] = [
    ("no such image", "ErrImagePull", "not found", "ImageNotPulled", "spec.image of the ComputeProfile"),
    ("pulled again and again", "ImagePullBackOff", PULL, "ImageNotPulled", PULL),
    ("no such Secret", "CreateContainerConfigError", 'secret "s3" not found', "ContainerNotMade", 'secret "s3" not'),
]


@pytest.mark.parametrize(("name", "waiting", "message", "reason", "part"), STUCK, ids=[row[0] for row in STUCK])
async def test_a_pod_that_has_a_node_and_does_not_start_says_what_to_mend(
    name: str, waiting: str, message: str, reason: str, part: str
) -> None:
    operator = Process(world())
    await operator.until(lambda s: s.phase is Phase.STARTING)
    pod, body = next(operator.world.of("pods"))
    operator.world.cut_off.add(body["spec"]["nodeName"])  # it does not start by itself
    operator.world.change(pod, {"status": stuck(waiting, message)})
    await operator.second()
    said = condition(operator.status, ConditionType.RUNNING)
    assert (said.status, said.reason) == ("False", reason)
    assert part in operator.status.message
    assert part in said.message
    before = len(operator.world.writes)
    flips = {"ErrImagePull": "ImagePullBackOff", "ImagePullBackOff": "ErrImagePull"}
    operator.world.change(pod, {"status": stuck(flips.get(waiting, waiting), message)})
    await operator.second()
    assert len(operator.world.writes) == before, "a kubelet that tries again is no news"


async def test_a_hindrance_that_has_passed_is_taken_back() -> None:
    operator = Process(world(schedule_after=10_000))
    await operator.until(lambda s: s.phase is Phase.PENDING and bool(list(operator.world.of("pods"))))
    name, _ = next(operator.world.of("pods"))
    operator.world.change(name, {"status": unschedulable(NO_NODE)})
    await operator.second()
    operator.world.schedule_after = 1
    status = await operator.until(lambda s: s.phase is Phase.STARTING)
    assert condition(status, ConditionType.RUNNING).reason == "Starting"
    status = await operator.until(lambda s: s.phase is Phase.RUNNING)
    assert condition(status, ConditionType.RUNNING).status == "True"


async def test_pods_that_a_quota_forbids_are_named_after_half_a_minute() -> None:
    operator = Process(world())
    operator.world._make_pods = lambda name, job: None  # type: ignore[method-assign]
    status = await operator.until(lambda s: "quota" in s.message, seconds=60)
    assert condition(status, ConditionType.RUNNING).reason == "PodsNotMade"
    assert "0 of 1 pods could be made" in status.message
    assert "kubectl describe job counsel-lora-" in status.message


async def test_pods_whose_events_were_lost_are_not_called_missing() -> None:
    operator = Process(world(schedule_after=10_000))
    take = operator._take

    def without_pods(name: str, body: dict[str, Any], *, deleted: bool) -> bool:
        return "/pods/" not in name and take(name, body, deleted=deleted)

    operator._take = without_pods  # type: ignore[method-assign]
    await operator.until(lambda s: bool(s.attempts))
    for _ in range(60):
        await operator.second()
    assert list(operator.world.of("pods"))
    assert "PodsNotMade" not in {one.reason for one in operator.status.conditions}
    assert "PodsNotMade" not in operator.world.told


async def test_the_pause_before_another_attempt_has_an_end_that_people_can_read() -> None:
    operator = Process(world())
    operator.world.endings["train", 1, 0] = {
        "after": 2, "code": 70, "words": {"outcome": "failed", "reason": "Exception", "error": {"message": "boom"}}
    }  # fmt: skip
    status = await operator.until(lambda s: "boom" in s.message)
    assert "boom; attempt 2 starts at 2026-01-01 00:00:" in status.message


async def test_a_run_that_rests_says_since_when_and_how_it_goes_on() -> None:
    operator = Process(world(total_steps=500))
    await operator.until(lambda s: s.phase is Phase.RUNNING)
    operator.world.change(RUN, {"spec": {"suspend": True}})
    status = await operator.until(lambda s: s.phase is Phase.SUSPENDED)
    assert status.message.startswith("Suspended: rests since 2026-01-01 00:0")
    assert "with a checkpoint of step " in status.message
    assert status.message.endswith("set spec.suspend to false to go on")
    assert status.progress is None or status.progress.estimated_completion is None


async def test_a_stop_speaks_of_a_checkpoint_only_where_there_can_be_one() -> None:
    operator = Process(world(total_steps=500))
    await operator.until(lambda s: s.phase is Phase.RUNNING)
    operator.world.change(RUN, {"spec": {"suspend": True}})
    status = await operator.until(lambda s: s.phase is Phase.STOPPING)
    assert "to save a checkpoint" in status.message
    early = Process(world(schedule_after=10_000))
    await early.until(lambda s: s.phase is Phase.PENDING and bool(list(early.world.of("pods"))))
    early.world.change(RUN, {"spec": {"suspend": True}})
    status = await early.until(lambda s: s.phase is Phase.STOPPING)
    assert status.message.startswith("stops attempt 1 at ")
    assert "checkpoint" not in status.message


async def test_the_spend_is_shown_to_people_in_cents_and_unknown_is_never_zero() -> None:
    operator = Process(world(total_steps=500))
    status = await operator.until(lambda s: s.phase is Phase.RUNNING)
    assert status.cost is not None
    assert status.cost.spent == format_spent(status.cost.spent_usd)
    limits = {"maxRuntime": "2h", "unknownPrice": "HoursOnly"}
    unpriced = Process(
        world(spec(limits=limits), total_steps=500),
        profiles=(profile(pricePerNodeHourUSD=None, allowUnlimited=True),),
    )
    status = await unpriced.until(lambda s: s.phase is Phase.RUNNING)
    assert status.cost is not None
    assert status.cost.spent == "unknown"


SHOWN = [
    (0, False, "0.00"),
    (41_230_000, False, "41.23"),
    (41_230_001, False, "41.24"),
    (70_000, False, "0.07"),
    (10_000, False, "0.01"),
    (9_950, False, "0.01"),
    (4_211, False, "0.0043"),
    (125, False, "0.00013"),
    (7, False, "0.000007"),
    (0, True, "unknown"),
    (41_230_000, True, ">41.23"),
]


@pytest.mark.parametrize(("micro", "more", "text"), SHOWN, ids=[row[2] for row in SHOWN])
def test_a_spend_has_two_decimals_or_two_digits_and_is_never_shown_as_less(micro: int, more: bool, text: str) -> None:
    assert format_spent(micro, more=more) == text
