"""Attempts that do not go as they should: no step, no progress, no image, no node, and what is left of older ones."""

from __future__ import annotations

from datetime import timedelta

import pytest

from operator_api_server import stamp
from operator_process import NAMESPACE, PRICE, RUN, Process, spec, world
from tollgate.api.training_run import AttemptOutcome, Phase, TrainingRunStatus
from tollgate.contract import LABEL_ATTEMPT, FailureClass, FailureReason
from tollgate_operator.facts import PodFacts, ProgressFacts
from tollgate_operator.runs.classify import failure
from tollgate_operator.runs.counting import Counts
from tollgate_operator.runs.policies.restart import due_at
from tollgate_operator.runs.situation import Attempt


def running(status: TrainingRunStatus) -> bool:
    return status.phase is Phase.RUNNING


def stand_still(operator: Process, *, ok: bool, step: int) -> None:
    """From now on the scrapes say this, whatever the trainer does."""
    since = operator.world.now

    def scrape() -> None:
        for _, body in operator.world.of("pods"):
            pod = PodFacts.from_object(body)
            if pod.phase == "Running" and pod.attempt == 1:
                told = ProgressFacts(operator.world.now, ok, "refused", pod.uid, step=step, last_progress=since)
                operator.store.put_progress(pod.run_uid, told)

    operator.scrape = scrape  # type: ignore[method-assign]


async def test_a_trainer_that_answers_and_stands_still_is_restarted_and_that_counts_as_a_failure() -> None:
    operator = Process(world(spec(restart={"stallTimeout": "60s"}), total_steps=10_000))
    await operator.until(running)
    stand_still(operator, ok=True, step=7)
    status = await operator.until(lambda s: s.attempt == 2)
    lost = status.attempts[0].failure
    assert lost is not None
    assert (lost.class_, lost.reason) == (FailureClass.STALL, "Stalled")
    assert "at step 7" in lost.message
    assert "stallTimeout" in lost.message


async def test_scrapes_that_fail_stop_nothing_and_only_make_progress_unknown() -> None:
    operator = Process(world(spec(restart={"stallTimeout": "60s"}), total_steps=10_000))
    await operator.until(running)
    stand_still(operator, ok=False, step=7)
    for _ in range(200):
        await operator.second()
    assert operator.status.attempt == 1
    assert {c.type: c.status for c in operator.status.conditions}["Progressing"] == "Unknown"


async def test_no_first_step_in_time_is_a_stall() -> None:
    operator = Process(world(spec(restart={"firstStepTimeout": "30s", "stallTimeout": "10m"}), total_steps=10_000))
    stand_still(operator, ok=True, step=0)
    status = await operator.until(lambda s: s.attempt == 2)
    lost = status.attempts[0].failure
    assert lost is not None
    assert "firstStepTimeout" in lost.message


async def test_an_image_name_that_cannot_be_one_is_the_users_error_at_once() -> None:
    operator = Process(world(schedule_after=1))
    await operator.until(lambda s: s.phase is Phase.STARTING)
    name, body = next(operator.world.of("pods"))
    waiting = {"name": "trainer", "state": {"waiting": {"reason": "InvalidImageName", "message": "bad name: A B"}}}
    operator.world.change(name, {"status": {"phase": "Pending", "containerStatuses": [waiting]}})
    operator.world.cut_off.add(body["spec"]["nodeName"])  # the kubelet would try for ever
    await operator.work()
    operator.world.cut_off.clear()
    status = await operator.until(lambda s: s.phase is Phase.FAILED)
    assert "bad name" in status.message


async def test_a_pod_on_a_lost_node_is_waited_for_then_replaced_and_charged_to_its_bound() -> None:
    run = spec(limits={"maxCostUSD": "20"}, compute={"profile": "cpu", "nodes": 2})
    operator = Process(world(run, total_steps=60))
    await operator.until(running)
    operator.world.cut("node-1")
    seconds = 0
    while operator.status.attempt == 1:
        await operator.second()
        seconds += 1
        assert seconds < 300
    assert seconds >= 60 + 120, "toleration and grace"
    lost, second = operator.status.attempts[:2]
    assert lost.outcome is AttemptOutcome.FAILED
    assert lost.unknown_pods is None, "its pod may still run and cost, so it is not booked before its bound"
    bound = (lost.reserved_seconds or 0) * PRICE // 3600
    assert second.reserved_usd is not None
    assert second.reserved_usd <= 20_000_000 - bound
    operator.world.cut_off.clear()
    status = await operator.until(lambda s: s.phase is Phase.SUCCEEDED)
    assert {attempt for attempt, step in operator.world.volume.commits if step > 1} <= {1, 2}
    assert status.attempts[0].unknown_pods == 0, "booked when the pod was seen to end"


async def test_a_job_of_a_closed_attempt_that_comes_back_is_stopped() -> None:
    operator = Process(world(spec(suspend=True)))
    await operator.until(lambda s: s.phase is Phase.SUSPENDED)
    other = Process(world())
    await other.until(running)
    job = next(body for _, body in other.world.of("jobs"))
    uid = operator.world.objects[RUN]["metadata"]["uid"]
    job["metadata"]["ownerReferences"][0]["uid"] = uid
    job["metadata"]["labels"] = {**job["metadata"]["labels"], "tollgate.dev/run-uid": uid, LABEL_ATTEMPT: "7"}
    job["metadata"]["name"] = "left-over"
    operator.world.put(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/left-over", job, new=True)
    await operator.work()
    left = operator.world.objects[f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/left-over"]
    assert left["spec"]["activeDeadlineSeconds"] == 1


async def test_a_stop_that_somebody_undid_is_made_again() -> None:
    operator = Process(world(total_steps=500))
    await operator.until(running)
    operator.world.change(RUN, {"spec": {"suspend": True}})
    await operator.work()
    name, _ = next(operator.world.of("jobs"))
    operator.world.change(name, {"metadata": {"annotations": {"tollgate.dev/stop-reason": None}}})
    operator.world.change(name, {"spec": {"activeDeadlineSeconds": 5000}})
    status = await operator.until(lambda s: s.phase is Phase.SUSPENDED)
    assert status.attempts[0].outcome is AttemptOutcome.STOPPED


async def test_memory_that_no_smaller_plan_can_spare_ends_the_run_with_the_field_to_change() -> None:
    operator = Process(world())
    error = {"message": "it cannot be halved", "field": "hyperparameters.max_seq_length", "rank": 0}
    words = {"outcome": "failed", "reason": "OutOfMemory", "error": error}
    operator.world.endings["train", 1, 0] = {"after": 2, "code": 70, "words": words}
    status = await operator.until(lambda status: status.phase is Phase.FAILED)
    assert len(status.attempts) == 1
    assert "hyperparameters.max_seq_length: it cannot be halved" in status.message


async def test_a_loss_that_is_no_number_is_tried_once_more_whatever_max_failures_allows() -> None:
    operator = Process(world(spec(restart={"maxFailures": 9})))
    for number in (1, 2, 3):
        words = {"outcome": "failed", "reason": "NonFinite", "error": {"message": "step 7", "rank": 0}}
        operator.world.endings["train", number, 0] = {"after": 2, "code": 70, "words": words}
    status = await operator.until(lambda status: status.phase is Phase.FAILED)
    assert len(status.attempts) == 2
    assert "not finite a second time" in status.message


PAUSES = [
    (FailureClass.DISRUPTION, "Evicted", 1, 0),
    (FailureClass.DISRUPTION, "Evicted", 2, 5),
    (FailureClass.DISRUPTION, "Evicted", 9, 300),
    (FailureClass.APPLICATION, "Exception", 1, 10),
    (FailureClass.APPLICATION, "Exception", 3, 40),
    (FailureClass.APPLICATION, FailureReason.OUT_OF_MEMORY, 2, 0),
    (FailureClass.APPLICATION, FailureReason.NON_FINITE, 1, 0),
    (FailureClass.UNSCHEDULABLE, "Unschedulable", 1, 60),
    (FailureClass.UNSCHEDULABLE, "Unschedulable", 99, 1800),
]


@pytest.mark.parametrize(("kind", "reason", "in_a_row", "seconds"), PAUSES)
def test_the_pause_before_the_next_attempt(kind: FailureClass, reason: str, in_a_row: int, seconds: int) -> None:
    ended = world().now
    last = Attempt(number=1, end_time=ended)
    at = due_at(last, failure(kind, reason), Counts(in_a_row=in_a_row))
    assert at - ended == timedelta(seconds=seconds)
    assert stamp(at).endswith("Z")
