"""The shared loop: merge patches that remove, conflicts that are decided again, stops that wait for nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operator_api_server import merged
from operator_process import KEY, NAME, NAMESPACE, RUN, Process, spec, world
from tollgate.api.training_run import Phase
from tollgate_operator.decision import EmitEvent
from tollgate_operator.events import event_body
from tollgate_operator.kube import Conflict, Unavailable
from tollgate_operator.reconcile import RefusedError, difference

JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4)


@given(DOCUMENTS, DOCUMENTS)
def test_the_difference_patches_the_old_into_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert merged(old, difference(old, new)) == new


@given(DOCUMENTS)
def test_nothing_changed_is_no_patch(document: dict[str, Any]) -> None:
    assert difference(document, document) == {}


async def test_a_status_is_written_over_the_version_it_was_decided_on_or_not_at_all() -> None:
    operator = Process(world())
    operator.world.change(RUN, {"metadata": {"annotations": {"by": "a person"}}})  # the watch has not told yet
    await operator.reconciler.reconcile(KEY)
    refused = [path for verb, path in operator.world.writes if path.endswith("/status")]
    assert len(refused) == 2, "one was refused, the run was read again and decided again"
    assert operator.status.attempt == 1
    assert len(list(operator.world.of("jobs"))) == 1


async def test_no_job_is_created_while_its_intent_is_not_written() -> None:
    operator = Process(world())
    real = operator.world.merge_patch

    async def away(path: str, body: Any) -> Any:
        if path.endswith("/status"):
            raise Unavailable(503, "ServiceUnavailable", "etcd is gone")
        return await real(path, body)

    operator.world.merge_patch = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await operator.reconciler.reconcile(KEY)
    assert not list(operator.world.of("jobs"))


async def test_a_stop_does_not_depend_on_the_status_write() -> None:
    operator = Process(world(total_steps=500))
    await operator.until(lambda s: s.phase is Phase.RUNNING)
    operator.world.change(RUN, {"spec": {"suspend": True}})
    operator.watch()
    real = operator.world.merge_patch

    async def away(path: str, body: Any) -> Any:
        if path.endswith("/status"):
            raise Unavailable(503, "ServiceUnavailable", "etcd is gone")
        return await real(path, body)

    operator.world.merge_patch = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await operator.reconciler.reconcile(KEY)
    job = next(body for _, body in operator.world.of("jobs"))
    assert job["spec"]["activeDeadlineSeconds"] == 1
    assert job["metadata"]["annotations"]["tollgate.dev/stop-reason"] == "Suspended"


async def test_a_job_of_that_name_that_belongs_to_somebody_else_is_not_taken_over() -> None:
    operator = Process(world())
    uid = operator.world.objects[RUN]["metadata"]["uid"].replace("-", "")[:8]
    name = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{NAME}-{uid}-1"
    operator.world.put(name, {"metadata": {"name": f"{NAME}-{uid}-1", "namespace": NAMESPACE}, "spec": {}}, new=True)
    with pytest.raises(RefusedError, match="belongs to somebody else"):
        await operator.reconciler.reconcile(KEY)


async def test_a_run_that_vanished_is_forgotten() -> None:
    operator = Process(world())
    operator.world.objects.pop(RUN)  # the watch has lost the deletion
    assert await operator.reconciler.reconcile(KEY) is None
    assert operator.store.run(KEY) is None


async def test_a_run_that_changes_under_every_write_is_left_to_the_queue() -> None:
    operator = Process(world())

    async def always(path: str, body: Any) -> Any:
        raise Conflict(409, "Conflict", path)

    operator.world.merge_patch = always  # type: ignore[method-assign]
    assert await operator.reconciler.reconcile(KEY) == 1.0


async def test_an_event_names_its_run_and_fits_the_api() -> None:
    operator = Process(world(spec()))
    facts = await operator.reconciler._kind.gather(KEY, frozenset())
    assert facts is not None
    body = event_body(
        operator.reconciler._kind.subject(facts), EmitEvent("Warning", "Stopping", "ü" * 2000), operator.world.now
    )
    assert body["regarding"]["name"] == NAME
    assert len(body["note"].encode()) <= 1024
    assert body["eventTime"].endswith(".000000Z")
