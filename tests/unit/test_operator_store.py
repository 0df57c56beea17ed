"""The store protects the operator from acting on what is no longer true, and keeps the last words of gone pods."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.contract import LABEL_ATTEMPT, LABEL_PROMOTE_TO, LABEL_ROLE, LABEL_RUN, LABEL_RUN_UID
from tollgate_operator.facts import JobFacts, Key, PodFacts, RunFacts
from tollgate_operator.promotion.facts import PolicyState
from tollgate_operator.store import Store
from tollgate_operator.watch import LeaseEcho, Watch

RUN = Key("TrainingRun", "ns", "a")
POLICY = Key("PromotionPolicy", "ns", "care")


def run(version: int, uid: str = "u1", name: str = "a", **body: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": body.get("labels", {}),
        },
        "spec": {
            "manifest": {"name": "m", "dataset": {"path": "d"}},
            "storage": {"dataset": {"claimName": "d"}, "output": {"claimName": "o"}},
            **body.get("spec", {}),
        },
        "status": body.get("status", {}),
    }


def pod(version: int, uid: str = "p1", job: str = "j1", run_uid: str = "u1", **body: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"pod-{uid}",
            "namespace": "ns",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {LABEL_RUN: "a", LABEL_RUN_UID: run_uid, LABEL_ATTEMPT: "1", LABEL_ROLE: "train"},
            "ownerReferences": [{"kind": "Job", "uid": job, "controller": True}],
        },
        "spec": {"nodeName": body.get("node", "n1")},
        "status": {"phase": body.get("phase", "Running"), "containerStatuses": body.get("containers", [])},
    }


def job(version: int, uid: str = "j1") -> dict[str, Any]:
    labels = {LABEL_RUN: "a", LABEL_RUN_UID: "u1"}
    return {"metadata": {"name": uid, "namespace": "ns", "uid": uid, "resourceVersion": str(version), "labels": labels}}


def terminated(message: str) -> list[dict[str, Any]]:
    return [{"name": "trainer", "state": {"terminated": {"exitCode": 70, "message": message}}}]


class Keys:
    def __init__(self) -> None:
        self.added: list[Key] = []
        self.forgotten: list[Key] = []

    def add(self, key: Key) -> None:
        self.added.append(key)

    def forget(self, key: Key) -> None:
        self.forgotten.append(key)

    def take(self) -> set[Key]:
        added, self.added = set(self.added), []
        return added


class Counts:
    def __init__(self) -> None:
        self.taken: list[str] = []
        self.lost: list[str] = []

    def watched(self, resource: str) -> None:
        self.taken.append(resource)

    def watch_failed(self, resource: str) -> None:
        self.lost.append(resource)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def watch(store: Store, keys: Keys, counts: Counts) -> Watch:
    return Watch(store, keys, counts, LeaseEcho(), ("tollgate-system", "tollgate-operator"))


@given(st.permutations([1, 2, 9, 10, 11]))
def test_the_newest_version_wins_in_any_order(versions: list[int]) -> None:
    store = Store()
    for version in versions:
        store.put_run(RunFacts.from_object(run(version)))
    held = store.run(RUN)
    assert held is not None
    assert held.resource_version == "11"


def test_a_late_answer_does_not_bring_a_deleted_object_back(store: Store) -> None:
    store.put_run(RunFacts.from_object(run(5)))
    store.drop_run(RUN, "u1")
    store.put_run(RunFacts.from_object(run(9)))
    store.drop_job("j1")
    store.put_job(JobFacts.from_object(job(9)))
    assert store.run(RUN) is None
    assert not store.runs("ns")
    assert not store.jobs("u1")


def test_a_run_that_was_applied_again_replaces_the_one_of_the_same_name(store: Store) -> None:
    store.put_run(RunFacts.from_object(run(5, uid="u1")))
    store.put_run(RunFacts.from_object(run(7, uid="u2")))
    store.drop_run(RUN, "u1")  # the late deletion of the first one
    held = store.run(RUN)
    assert held is not None
    assert held.uid == "u2"
    assert store.run_of("u1") is None


def test_a_deleted_pod_keeps_its_last_words_until_its_attempt_is_booked(store: Store, watch: Watch) -> None:
    watch.on_run(run(1), False)
    watch.on_pod(pod(2), False)
    watch.on_pod(pod(3, phase="Failed", containers=terminated("out of memory")), True)
    (tombstone,) = store.pods("u1")
    assert tombstone.gone
    assert tombstone.last_words == "out of memory"
    store.forget_attempt("u1", "another-job")
    assert store.pods("u1")
    store.forget_attempt("u1", "j1")
    assert not store.pods("u1")


def test_a_pod_that_a_listing_missed_takes_its_last_words_from_a_deletion_that_comes_later(store: Store) -> None:
    store.put_pod(PodFacts.from_object(pod(2)))
    store.put_pod(PodFacts.from_object(pod(2), gone=True))
    store.put_pod(PodFacts.from_object(pod(2)))  # an answer that was under way
    assert store.pods("u1")[0].gone
    store.put_pod(PodFacts.from_object(pod(4, containers=terminated("bye")), gone=True))
    assert store.pods("u1")[0].last_words == "bye"


def test_the_deletion_of_a_run_takes_its_tombstones_along(store: Store, watch: Watch, keys: Keys) -> None:
    watch.on_run(run(1), False)
    watch.on_pod(pod(3), True)
    watch.on_run(run(4), True)
    assert not store.pods("u1")
    assert keys.forgotten == [RUN]


def test_orphans_go_only_after_a_listing(store: Store, watch: Watch) -> None:
    watch.on_pod(pod(3, run_uid="unknown"), True)
    assert store.pods("unknown")
    store.drop_orphans()
    assert not store.pods("unknown")


def test_a_change_of_a_child_wakes_its_run(watch: Watch, keys: Keys) -> None:
    watch.on_job(job(1), False)
    assert keys.take() == {RUN}
    watch.on_pod(pod(1), False)
    assert keys.take() == {RUN}
    watch.on_job(job(2), True)
    assert keys.take() == {RUN}


def test_a_policy_is_woken_by_what_it_looks_at_and_not_by_progress(watch: Watch, keys: Keys, store: Store) -> None:
    under: dict[str, Any] = {"spec": {"policyRef": {"name": "care"}}}
    watch.on_run(run(1, **under), False)
    assert keys.take() == {RUN, POLICY}
    watch.on_run(run(2, **under, status={"progress": {"step": 3}}), False)
    assert keys.take() == {RUN}
    watch.on_run(run(3, **under, labels={LABEL_PROMOTE_TO: "staging"}), False)
    assert keys.take() == {RUN, POLICY}
    gates = {"gates": [{"stage": "staging", "verdict": "Passed", "policyDigest": "sha256:p"}]}
    judged = run(4, **under, labels={LABEL_PROMOTE_TO: "staging"}, status=gates)
    store.put_run(RunFacts.from_object(judged))  # our own write is remembered before its event comes
    watch.on_run(judged, False)
    assert keys.take() == {RUN, POLICY}
    watch.on_run(run(5, spec={"policyRef": {"name": "other"}}), False)
    assert keys.take() == {RUN, POLICY, Key("PromotionPolicy", "ns", "other")}
    watch.on_run(run(6, spec={"policyRef": {"name": "other"}}), True)
    assert keys.take() == {Key("PromotionPolicy", "ns", "other")}


def policy(version: int, generation: int, threshold: float = 1, **status: Any) -> dict[str, Any]:
    stage = {"name": "staging", "checks": [{"metric": "perplexity", "op": "<", "threshold": threshold}]}
    meta = {"name": "care", "namespace": "ns", "uid": "pol", "resourceVersion": str(version), "generation": generation}
    return {"metadata": meta, "spec": {"stages": [stage]}, "status": status}


def test_a_policy_wakes_its_runs_when_its_spec_changes_and_not_when_its_status_does(watch: Watch, keys: Keys) -> None:
    watch.on_run(run(1, spec={"policyRef": {"name": "care"}}), False)
    watch.on_run(run(2, uid="u2", name="b"), False)
    keys.take()
    watch.on_policy(policy(3, 1), False)
    assert keys.take() == {RUN, POLICY}
    watch.on_policy(policy(4, 1, observedGeneration=1), False)
    assert keys.take() == {POLICY}
    watch.on_policy(policy(5, 2, threshold=2), False)
    assert keys.take() == {RUN, POLICY}
    watch.on_policy(policy(6, 2, threshold=2), True)
    assert keys.take() == {RUN}
    assert keys.forgotten == [POLICY]


def test_a_profile_wakes_the_runs_that_may_use_it(watch: Watch, keys: Keys) -> None:
    watch.on_run(run(1, spec={"compute": {"profile": "h100"}}), False)
    watch.on_run(run(2, uid="u2", name="b", spec={"compute": {"profile": "cpu"}}), False)
    watch.on_run(
        run(3, uid="u3", name="c", spec={"compute": {"profile": "cpu"}, "evaluation": {"profile": "h100"}}), False
    )
    watch.on_run(run(4, uid="u4", name="d"), False)  # its profile is chosen by default
    keys.take()
    profile = {"metadata": {"name": "h100", "generation": 1}, "spec": {"image": "i"}}
    watch.on_profile(profile, False)
    assert {key.name for key in keys.take()} == {"a", "c", "d"}
    watch.on_profile(profile, False)
    assert not keys.take()


def test_a_heartbeat_of_a_node_wakes_nobody_and_a_lost_node_wakes_its_runs(watch: Watch, keys: Keys) -> None:
    watch.on_run(run(1), False)
    watch.on_pod(pod(2, node="n1"), False)
    keys.take()

    def node(ready: str, beat: int) -> dict[str, Any]:
        condition = {"type": "Ready", "status": ready, "lastTransitionTime": f"2026-01-01T00:00:0{ready == 'True':d}Z"}
        return {
            "metadata": {"name": "n1", "resourceVersion": str(beat)},
            "status": {"conditions": [{**condition, "lastHeartbeatTime": f"2026-01-01T00:00:{beat:02}Z"}]},
        }

    watch.on_node(node("True", 1), False)
    assert keys.take() == {RUN}
    watch.on_node(node("True", 2), False)
    assert not keys.take()
    watch.on_node(node("Unknown", 3), False)
    assert keys.take() == {RUN}


async def test_an_event_that_cannot_be_taken_in_is_counted_and_does_not_escape(watch: Watch, counts: Counts) -> None:
    def broken(body: object, deleted: bool) -> None:
        raise RuntimeError("of ours")

    await watch._handler("pods", broken)(event={"type": "ADDED", "object": {}})
    await watch._handler("pods", watch.on_pod)(event={"type": "ADDED", "object": pod(1)}, body=None, logger=None)
    assert counts.lost == ["pods"]
    assert counts.taken == ["pods"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda c: (
            st.lists(c)
            | st.dictionaries(st.sampled_from(["metadata", "spec", "status", "labels", "uid", "name", "conditions"]), c)
        ),
    )
)
def test_no_object_however_odd_makes_a_handler_fail(body: Any) -> None:
    store, keys = Store(), Keys()
    watch = Watch(store, keys, Counts(), LeaseEcho(), ("a", "b"))
    document = body if isinstance(body, dict) else {"metadata": body, "spec": body, "status": body}
    for take in (
        watch.on_run,
        watch.on_job,
        watch.on_pod,
        watch.on_profile,
        watch.on_policy,
        watch.on_node,
        watch.on_lease,
    ):
        for deleted in (False, True):
            take(document, deleted)


def test_the_echo_is_our_own_lease(store: Store, keys: Keys, counts: Counts) -> None:
    now = [100.0]
    echo = LeaseEcho(lambda: now[0])
    watch = Watch(store, keys, counts, echo, ("tollgate-system", "tollgate-operator"))
    watch.on_lease({"metadata": {"namespace": "other", "name": "tollgate-operator"}}, False)
    assert echo.age is None
    watch.on_lease({"metadata": {"namespace": "tollgate-system", "name": "tollgate-operator"}}, False)
    now[0] = 130.0
    assert echo.age == 30.0


def test_a_policy_whose_status_cannot_be_read_says_so() -> None:
    state = PolicyState.from_object(policy(1, 1, stages="none"))
    assert "status.stages" in state.status_problem
    assert state.policy.spec is not None
