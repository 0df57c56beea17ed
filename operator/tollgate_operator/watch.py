"""Kopf's watches: an event becomes facts in the store and a key in the queue. No decision and no write is made here.

Only `on.event` is used: handlers of changes would patch annotations and finalizers into every pod, and write progress.
Kopf logs an error of such a handler and goes on, so each one counts its own errors, and an error costs one event, not
the watch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import kopf

from tollgate.api import compute_profile, promotion_policy, training_run
from tollgate.contract import GROUP, LABEL_PROMOTE_TO, LABEL_RUN, VERSION
from tollgate_operator.facts import JobFacts, Key, NodeFacts, PodFacts, ProfileFacts, RunFacts
from tollgate_operator.promotion.facts import PolicyState
from tollgate_operator.reading import mapping, text
from tollgate_operator.store import Store

Body: TypeAlias = Mapping[str, Any]

CHILD_SELECTOR: Final = LABEL_RUN
"""Label selector of Jobs and pods: the API server sends only those that have the label at all."""

logger = logging.getLogger(__name__)


class Keys(Protocol):
    """Where a changed key goes: the work queue."""

    def add(self, key: Key) -> None:
        """Something about the key changed."""
        ...

    def forget(self, key: Key) -> None:
        """The object is gone."""
        ...


class WatchObserver(Protocol):
    """What is told about events: for `tollgate_watch_events_total` and `tollgate_watch_errors_total`."""

    def watched(self, resource: str) -> None:
        """An event was taken in."""
        ...

    def watch_failed(self, resource: str) -> None:
        """An event was lost by an error of ours."""
        ...


class LeaseEcho:
    """When the watch last showed a renewal of our own Lease: proof that events still arrive."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: float | None = None

    def seen(self) -> None:
        """The watch delivered the Lease."""
        self._seen = self._clock()

    @property
    def age(self) -> float | None:
        """Seconds since the last one; None when none was ever seen."""
        return None if self._seen is None else self._clock() - self._seen


class Watch:
    """Takes events in. `deleted` is whether the event said DELETED; the object is then its last state."""

    def __init__(
        self, store: Store, keys: Keys, observer: WatchObserver, echo: LeaseEcho, lease: tuple[str, str]
    ) -> None:
        self._store = store
        self._keys = keys
        self._observer = observer
        self._echo = echo
        self._lease = lease
        self._interest: dict[Key, tuple[object, ...]] = {}  # what promotion looks at, as the watch showed it last

    def register(self, registry: kopf.OperatorRegistry, *, watch_lease: bool) -> None:
        """Binds one handler per kind in Kopf's registry."""
        bindings: list[tuple[str, str, str, Callable[[Body, bool], None]]] = [
            (GROUP, VERSION, training_run.PLURAL, self.on_run),
            (GROUP, VERSION, promotion_policy.PLURAL, self.on_policy),
            (GROUP, VERSION, compute_profile.PLURAL, self.on_profile),
            ("batch", "v1", "jobs", self.on_job),
            ("", "v1", "pods", self.on_pod),
            ("", "v1", "nodes", self.on_node),
        ]
        if watch_lease:
            bindings.append(("coordination.k8s.io", "v1", "leases", self.on_lease))
        for group, version, plural, take in bindings:
            kopf.on.event(group, version, plural, id=f"watch-{plural}", registry=registry)(self._handler(plural, take))

    def _handler(self, resource: str, take: Callable[[Body, bool], None]) -> Callable[..., Any]:
        async def handle(event: Mapping[str, Any], **_: object) -> None:
            try:
                take(mapping(event.get("object")), event.get("type") == "DELETED")
                self._observer.watched(resource)
            except Exception:
                self._observer.watch_failed(resource)
                logger.exception("an event of %s was lost; the next resync makes up for it", resource)

        return handle

    def on_run(self, body: Body, deleted: bool) -> None:
        """A TrainingRun, and the policies it was and is under when anything changed that promotion looks at."""
        run = RunFacts.from_object(body)
        policy, interest = policy_key(run), of_interest(run)
        # Not compared with the store: our own status write is in there before its event comes.
        before = self._interest.get(run.key)
        if deleted:
            self._store.drop_run(run.key, run.uid)
            self._interest.pop(run.key, None)
            if self._store.run(run.key) is None:
                self._keys.forget(run.key)
        else:
            self._store.put_run(run)
            self._interest[run.key] = (policy, *interest)
            self._keys.add(run.key)
        if deleted or before != (policy, *interest):
            for key in {policy, before[0] if before else None}:
                if isinstance(key, Key):
                    self._keys.add(key)

    def on_job(self, body: Body, deleted: bool) -> None:
        """A Job of a run."""
        job = JobFacts.from_object(body)
        if deleted:
            self._store.drop_job(job.uid)
        else:
            self._store.put_job(job)
        self._add_run(job.namespace, job.run)

    def on_pod(self, body: Body, deleted: bool) -> None:
        """A pod of a run. A DELETED event carries its last words: the pod stays in the store as a tombstone."""
        pod = PodFacts.from_object(body, gone=deleted)
        self._store.put_pod(pod)
        self._add_run(pod.namespace, pod.run)

    def on_profile(self, body: Body, deleted: bool) -> None:
        """A ComputeProfile: of interest to runs that name it, that evaluate on it, or that have not chosen one yet."""
        profile = ProfileFacts.from_object(body)
        if deleted:
            self._store.drop_profile(profile.name)
        else:
            if self._store.profiles().get(profile.name) == profile:
                return
            self._store.put_profile(profile)
        for run in self._store.all_runs():
            if uses_profile(run, profile.name):
                self._keys.add(run.key)

    def on_policy(self, body: Body, deleted: bool) -> None:
        """A PromotionPolicy: its own key, and the runs under it when its spec changed."""
        state = PolicyState.from_object(body)
        policy = state.policy
        before = self._store.policy(policy.namespace, policy.name)
        if deleted:
            self._store.drop_policy(policy.namespace, policy.name, policy.uid)
            self._keys.forget(state.key)
        else:
            self._store.put_policy(state)
            self._keys.add(state.key)
        if not deleted and before == policy:
            return
        for run in self._store.runs(policy.namespace):
            if policy_key(run) == state.key:
                self._keys.add(run.key)

    def on_node(self, body: Body, deleted: bool) -> None:
        """A node: runs with pods on it care for its price and for whether it answers. Heartbeats change neither."""
        node = NodeFacts.from_object(body)
        if deleted:
            self._store.drop_node(node.name)
        else:
            if self._store.node(node.name) == node:
                return
            self._store.put_node(node)
        for key in self._store.runs_on(node.name):
            self._keys.add(key)

    def on_lease(self, body: Body, deleted: bool) -> None:
        """Our own Lease."""
        meta = mapping(body.get("metadata"))
        if not deleted and (text(meta.get("namespace")), text(meta.get("name"))) == self._lease:
            self._echo.seen()

    def _add_run(self, namespace: str, name: str) -> None:
        if name:
            self._keys.add(Key(training_run.KIND, namespace, name))


def policy_key(run: RunFacts) -> Key | None:
    """The key of the PromotionPolicy that the run is under."""
    if run.spec is None or run.spec.policy_ref is None:
        return None
    return Key(promotion_policy.KIND, run.key.namespace, run.spec.policy_ref.name)


def of_interest(run: RunFacts) -> tuple[object, ...]:
    """What promotion looks at. Progress and spend, which change each minute, are not part of it."""
    return (
        run.uid,
        run.labels.get(LABEL_PROMOTE_TO),
        run.status.gates,
        run.status.model,
        run.status.evaluation,
        run.deleting,
    )


def uses_profile(run: RunFacts, name: str) -> bool:
    """Whether the run may be computed or evaluated on that profile."""
    if run.spec is None:
        return False
    if run.spec.compute is None or run.spec.compute.profile == name:
        return True
    return run.spec.evaluation is not None and run.spec.evaluation.profile == name


def kopf_settings(settings: kopf.OperatorSettings, lease: tuple[str, str] | None) -> None:
    """How Kopf is to behave here: it watches, filters on the server, and never writes.

    `lease`: (namespace, name) of our Lease when its echo is watched.
    """
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.execution.max_workers = 1  # nothing of ours is synchronous
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (0.5, 1, 1, 2, 2, 3, 3, 5, 5, 5, 5, 5)  # after an outage, soon again
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.chunk_size = 500
    settings.watching.label_selectors["", "v1", "pods"] = CHILD_SELECTOR
    settings.watching.label_selectors["batch", "v1", "jobs"] = CHILD_SELECTOR
    if lease is not None:
        settings.watching.field_selectors["coordination.k8s.io", "v1", "leases"] = f"metadata.name={lease[1]}"
    settings.queueing.exit_timeout = 2
    settings.process.ultimate_exiting_timeout = 30


__all__ = ["CHILD_SELECTOR", "LeaseEcho", "Watch", "kopf_settings", "of_interest", "policy_key", "uses_profile"]
