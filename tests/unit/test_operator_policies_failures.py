"""Which end of a gang is its cause, and of which class: a table of what pods and Jobs were seen to say."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from operator_api_server import START, stamp
from tollgate.api.training_run import Attempt, AttemptOutcome, TrainingRunStatus
from tollgate.contract import FailureClass
from tollgate_operator.facts import JobFacts, PodFacts
from tollgate_operator.runs.classify import cause, completed, failure, first_lost
from tollgate_operator.runs.counting import count, folded
from tollgate_operator.runs.policies.restart import described

STOP = START + timedelta(seconds=100)


def pod(
    index: int = 0,
    *,
    code: int | None = None,
    words: dict[str, Any] | None = None,
    at: int = 90,
    deleted: int | None = None,
    phase: str = "Failed",
    gone: bool = False,
    **status: Any,
) -> PodFacts:
    """A pod that ended `at` seconds after the start, with what the kubelet wrote."""
    ended: dict[str, Any] = {"finishedAt": stamp(START + timedelta(seconds=at))}
    if words is not None:
        ended["message"] = json.dumps(words)
    if code is not None:
        ended["exitCode"] = code
    meta: dict[str, Any] = {"uid": f"u{index}", "name": f"pod-{index}", "labels": {}}
    meta["labels"]["batch.kubernetes.io/job-completion-index"] = str(index)
    if deleted is not None:
        meta |= {"deletionTimestamp": stamp(START + timedelta(seconds=deleted + 30)), "deletionGracePeriodSeconds": 30}
    reason = status.pop("container_reason", None)
    if reason:
        ended["reason"] = reason
    state = {"terminated": ended} if code is not None else {"running": {}}
    body = {
        "metadata": meta,
        "spec": {"nodeName": f"node-{index}"},
        "status": {"phase": phase, "containerStatuses": [{"name": "trainer", "state": state}], **status},
    }
    return PodFacts.from_object(body, gone=gone)


def job(kind: str = "Failed", reason: str = "BackoffLimitExceeded", message: str = "") -> JobFacts:
    one = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": stamp(STOP)}
    return JobFacts.from_object({"metadata": {"uid": "j"}, "status": {"conditions": [one]}})


def failed(reason: str, message: str = "m", **error: Any) -> dict[str, Any]:
    return {"outcome": "failed", "reason": reason, "error": {"message": message, **error}}


SIGNAL = {"outcome": "stopped", "reason": "Signal", "step": 7}
DISRUPTED = [
    {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "lastTransitionTime": stamp(STOP)}
]

USER, APP, OUTSIDE, LIMIT = (
    FailureClass.USER,
    FailureClass.APPLICATION,
    FailureClass.DISRUPTION,
    FailureClass.LIMIT,
)
SPENT = {"outcome": "stopped", "reason": "BudgetExceeded"}
POLICY = job(reason="PodFailurePolicy")

TABLE: list[tuple[str, list[PodFacts], JobFacts | None, FailureClass, str, str | None]] = [
    (
        "the trainer refuses the dataset",
        [pod(code=64, words=failed("DatasetRefused"))],
        None,
        USER,
        "DatasetRefused",
        "pod-0",
    ),
    ("exit 64 without words", [pod(code=64)], None, USER, "UserError", "pod-0"),
    ("an exception", [pod(code=70, words=failed("Exception"))], None, APP, "Exception", "pod-0"),
    ("not finite", [pod(code=70, words=failed("NonFinite"))], None, APP, "NonFinite", "pod-0"),
    ("memory ran out", [pod(code=70, words=failed("OutOfMemory"))], None, APP, "OutOfMemory", "pod-0"),
    (
        "memory ran out, and no smaller plan is left",
        [pod(code=70, words=failed("OutOfMemory", field="hyperparameters.max_seq_length"))],
        None,
        USER,
        "OutOfMemory",
        "pod-0",
    ),
    (
        "the kernel's memory kill",
        [pod(code=137, container_reason="OOMKilled")],
        job(),
        APP,
        "OOMKilled",
        "pod-0",
    ),
    ("kill -9 from inside", [pod(code=137)], job(), APP, "Killed", "pod-0"),
    ("an odd exit code", [pod(code=3)], job(), APP, "Exception", "pod-0"),
    (
        "evicted by the API",
        [pod(code=75, words=SIGNAL, conditions=DISRUPTED)],
        job(),
        OUTSIDE,
        "EvictionByEvictionAPI",
        "pod-0",
    ),
    (
        "evicted for its own disk use",
        [pod(reason="Evicted", message="ephemeral")],
        job(),
        APP,
        "Evicted",
        "pod-0",
    ),
    (
        "deleted by a person",
        [pod(code=75, words=SIGNAL, deleted=80)],
        job(reason="PodFailurePolicy"),
        OUTSIDE,
        "Signal",
        "pod-0",
    ),
    ("killed, then deleted with its gang", [pod(code=137, deleted=91)], job(), APP, "Killed", "pod-0"),
    ("killed and deleted in one second", [pod(code=137, deleted=90)], job(), APP, "Killed", "pod-0"),
    ("deleted, then killed after the grace", [pod(code=137, deleted=60)], job(), OUTSIDE, "PodDeleted", "pod-0"),
    ("deleted, and gone in the same second", [pod(code=143, deleted=90)], job(), OUTSIDE, "PodDeleted", "pod-0"),
    ("deleted with grace 0", [pod(phase="Running", gone=True)], job(), OUTSIDE, "PodDeleted", "pod-0"),
    (
        "a pod that never ran",
        [pod(reason="NodeAffinity", message="no longer fits")],
        job(),
        OUTSIDE,
        "NodeAffinity",
        "pod-0",
    ),
    (
        "the launcher's own limit",
        [pod(code=75, words=SPENT)],
        job(),
        LIMIT,
        "BudgetExceeded",
        "pod-0",
    ),
    (
        "the kubelet's deadline",
        [pod(code=137, reason="DeadlineExceeded")],
        job(),
        LIMIT,
        "DeadlineExceeded",
        "pod-0",
    ),
    (
        "the kubelet's deadline, which the launcher took for anybody's signal",
        [pod(code=75, words=SIGNAL, reason="DeadlineExceeded")],
        job(reason="PodFailurePolicy"),
        LIMIT,
        "DeadlineExceeded",
        "pod-0",
    ),
    (
        "a victim ended first, the cause has words",
        [pod(0, code=70, words=failed("PeerLost"), at=80), pod(1, code=70, words=failed("OutOfMemory", rank=9), at=85)],
        job(),
        APP,
        "OutOfMemory",
        "pod-1",
    ),
    (
        "two causes: the earlier one",
        [pod(0, code=70, words=failed("Exception"), at=90), pod(1, code=70, words=failed("NonFinite"), at=85)],
        job(),
        APP,
        "NonFinite",
        "pod-1",
    ),
    (
        "two causes in one second: the lower index",
        [pod(1, code=70, words=failed("Exception")), pod(0, code=70, words=failed("NonFinite"))],
        job(),
        APP,
        "NonFinite",
        "pod-0",
    ),
    (
        "the others were told to go after the Job had failed",
        [pod(0, code=75, words=SIGNAL, at=101, deleted=100), pod(1, code=137, at=98)],
        job(kind="FailureTarget"),
        APP,
        "Killed",
        "pod-1",
    ),
    (
        "only victims are left to see: the Job knows the exit code",
        [pod(0, code=75, words=SIGNAL, at=101, deleted=100)],
        job(
            reason="PodFailurePolicy",
            message="Container trainer for pod ns/pod-1 failed with exit code 64",
        ),
        USER,
        "PodFailurePolicy",
        "pod-1",
    ),
    (
        "nobody saw a pod: the Job knows of the disruption",
        [],
        job(reason="PodFailurePolicy", message="Pod ns/pod-1 has condition DisruptionTarget matching FailJob rule"),
        OUTSIDE,
        "Disrupted",
        "pod-1",
    ),
    (
        "nobody saw a pod, the Job ran out of time",
        [],
        job(reason="DeadlineExceeded"),
        LIMIT,
        "DeadlineExceeded",
        None,
    ),
    ("nobody saw a pod", [], job(), APP, "BackoffLimitExceeded", None),
]


@pytest.mark.parametrize(("name", "pods", "its_job", "kind", "reason", "who"), TABLE, ids=[row[0] for row in TABLE])
def test_the_cause_of(
    name: str, pods: list[PodFacts], its_job: JobFacts | None, kind: FailureClass, reason: str, who: str | None
) -> None:
    found = cause(pods, its_job, STOP)
    assert found is not None
    assert (found.class_, found.reason, found.pod) == (kind, reason, who)


def test_a_gang_stop_keeps_the_class_of_what_was_lost_and_learns_its_exit_code() -> None:
    lost = [pod(0, phase="Running"), pod(1, phase="Running", deleted=99)]
    noted = first_lost(lost)
    assert noted is not None
    assert (noted.class_, noted.reason, noted.pod) == (FailureClass.DISRUPTION, "PodDeleted", "pod-1")
    ended = [pod(0, code=75, words=SIGNAL, at=101, deleted=100), pod(1, code=75, words=SIGNAL, at=101, deleted=100)]
    found = cause(ended, job(kind="FailureTarget"), STOP, noted)
    assert found is not None
    assert (found.pod, found.exit_code) == ("pod-1", 75)


def test_peers_that_lost_a_peer_do_not_hide_what_was_noted() -> None:
    noted = failure(FailureClass.DISRUPTION, "PodDeleted", pod="pod-1")
    found = cause([pod(0, code=70, words=failed("PeerLost"), at=90)], job(), STOP, noted)
    assert found is not None
    assert found.reason == "PodDeleted"


def test_nothing_known_is_no_cause() -> None:
    assert cause([], None, None) is None


@pytest.mark.parametrize(
    ("pods", "its_job", "done"),
    [
        ([pod(0, code=0, phase="Succeeded", words={"outcome": "completed", "reason": "Completed"})], None, True),
        ([pod(0, code=0, phase="Succeeded", words={"outcome": "stopped", "reason": "Signal"})], None, False),
        ([pod(0, code=0, phase="Succeeded")], job("Complete", ""), False),
        ([pod(1, code=0, phase="Succeeded", words={"outcome": "completed", "reason": "Completed"})], None, False),
        ([pod(0, code=70, words={"outcome": "completed", "reason": "Completed"})], None, False),
    ],
    ids=["words and code", "the words say stopped", "no words", "rank 0 unseen", "the code says failed"],
)
def test_training_is_complete_only_by_rank_0s_own_words_and_code(
    pods: list[PodFacts], its_job: JobFacts | None, done: bool
) -> None:
    assert (completed(pods, 1, its_job) is not None) is done


def attempt(number: int, kind: FailureClass, reason: str = "x", outcome: str = "Failed") -> Attempt:
    return Attempt(number=number, outcome=AttemptOutcome(outcome), failure=failure(kind, reason))


def test_classes_are_counted_apart_and_folded_attempts_keep_counting() -> None:
    ended = [
        attempt(1, FailureClass.APPLICATION),
        attempt(2, FailureClass.APPLICATION, "OutOfMemory"),
        attempt(3, FailureClass.APPLICATION, "NonFinite"),
        attempt(4, FailureClass.STALL),
        attempt(5, FailureClass.DISRUPTION, outcome="Lost"),
        attempt(6, FailureClass.UNSCHEDULABLE),
        attempt(7, FailureClass.LIMIT, outcome="Stopped"),
        attempt(8, FailureClass.DISRUPTION),
    ]
    whole = count(TrainingRunStatus(attempts=ended))
    assert (whole.failures, whole.disruptions, whole.out_of_memory, whole.non_finite) == (3, 3, 1, 1)
    assert whole.in_a_row == 1
    shorter = TrainingRunStatus(attempts=ended[4:], folded_counts=folded({}, ended[:4]))
    assert count(shorter) == whole


def test_the_message_names_class_pod_node_rank_code_and_words() -> None:
    text = described(failure(FailureClass.APPLICATION, "NonFinite", "step 7", exit_code=70, pod="p", node="n", rank=3))
    assert text == "NonFinite (Application, pod p, node n, rank 3, exit code 70): step 7"


def test_facts_keep_the_time_of_the_api_server_beside_the_nodes() -> None:
    body = {
        "metadata": {"managedFields": [{"subresource": "status", "time": stamp(STOP)}, {"time": stamp(START)}]},
        "status": {},
    }
    assert PodFacts.from_object(body).written_at == STOP
    assert isinstance(STOP, datetime)
