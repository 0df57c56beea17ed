"""What the watches, the live reads and the operator's own writes have delivered so far, as slim facts.

It proves presence, never absence: a watch can lose a deletion. Of two versions of one object the newer resourceVersion
wins, so a late watch event cannot take back what a write returned, and an object that was seen DELETED does not come
back by a late answer. Pods that were seen DELETED stay as tombstones (`gone`) until their attempt is booked: their last
words are in no other place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar

from tollgate_operator.facts import (
    JobFacts,
    Key,
    NodeFacts,
    PodFacts,
    PolicyFacts,
    ProfileFacts,
    ProgressFacts,
    RunFacts,
)
from tollgate_operator.promotion.facts import PolicyState

DELETED_KEPT: Final = 20_000
"""How many uids of deleted objects are remembered, so that a late answer cannot bring one back."""


class Versioned(Protocol):
    """An object of which the newer version is kept."""

    @property
    def uid(self) -> str:
        """Of the object."""
        ...

    @property
    def resource_version(self) -> str:
        """Of this view of it."""
        ...


class Child(Versioned, Protocol):
    """An object that belongs to a run."""

    @property
    def run_uid(self) -> str:
        """The uid of its run, from its label."""
        ...


def newer(new: str, old: str) -> bool:
    """Whether a resourceVersion is at least as new. They are decimal numbers; if one is not, what comes later wins."""
    if new.isdecimal() and old.isdecimal():
        return int(new) >= int(old)
    return True


C = TypeVar("C", bound=Child)


@dataclass(slots=True)
class _Deleted:
    """The uids of deleted objects, the oldest forgotten first."""

    uids: OrderedDict[str, None]

    def add(self, uid: str) -> None:
        self.uids[uid] = None
        while len(self.uids) > DELETED_KEPT:
            self.uids.popitem(last=False)

    def __contains__(self, uid: str) -> bool:
        return uid in self.uids


class _Children(Generic[C]):
    """Jobs or pods, by uid and by the uid of their run."""

    def __init__(self) -> None:
        self.by_uid: dict[str, C] = {}
        self._by_run: dict[str, dict[str, None]] = {}

    def put(self, child: C) -> None:
        old = self.by_uid.get(child.uid)
        if old is not None and not newer(child.resource_version, old.resource_version):
            return
        if old is not None and old.run_uid != child.run_uid:
            self.drop(old.uid)
        self.by_uid[child.uid] = child
        self._by_run.setdefault(child.run_uid, {})[child.uid] = None

    def drop(self, uid: str) -> None:
        child = self.by_uid.pop(uid, None)
        if child is None:
            return
        siblings = self._by_run.get(child.run_uid, {})
        siblings.pop(uid, None)
        if not siblings:
            self._by_run.pop(child.run_uid, None)

    def of(self, run_uid: str) -> tuple[C, ...]:
        return tuple(self.by_uid[uid] for uid in self._by_run.get(run_uid, {}))


class Store:
    """The one memory of the operator. Only the event loop's thread touches it."""

    def __init__(self) -> None:
        self._runs: dict[Key, RunFacts] = {}
        self._names: dict[str, dict[str, Key]] = {}
        self._keys: dict[str, Key] = {}
        self._jobs: _Children[JobFacts] = _Children()
        self._pods: _Children[PodFacts] = _Children()
        self._progress: dict[str, ProgressFacts] = {}
        self._nodes: dict[str, NodeFacts] = {}
        self._profiles: dict[str, ProfileFacts] = {}
        self._policies: dict[tuple[str, str], PolicyState] = {}
        self._price_book: Mapping[str, str] = MappingProxyType({})
        self._deleted = _Deleted(OrderedDict())

    # --- reading ------------------------------------------------------------------------------------------------------

    def run(self, key: Key) -> RunFacts | None:
        """The run, or None when no watch delivered it."""
        return self._runs.get(key)

    def runs(self, namespace: str) -> Sequence[RunFacts]:
        """All known runs of a namespace."""
        return tuple(self._runs[key] for key in self._names.get(namespace, {}).values())

    def all_runs(self) -> Sequence[RunFacts]:
        """All known runs."""
        return tuple(self._runs.values())

    def run_of(self, run_uid: str) -> RunFacts | None:
        """The run with that uid."""
        key = self._keys.get(run_uid)
        return self._runs.get(key) if key is not None else None

    def jobs(self, run_uid: str) -> Sequence[JobFacts]:
        """Jobs with that run-uid label that were not seen DELETED."""
        return self._jobs.of(run_uid)

    def pods(self, run_uid: str) -> Sequence[PodFacts]:
        """Pods with that run-uid label, those that were seen DELETED with `gone`."""
        return self._pods.of(run_uid)

    def progress(self, run_uid: str) -> ProgressFacts | None:
        """The last scrape of rank 0, or None when there was none."""
        return self._progress.get(run_uid)

    def node(self, name: str) -> NodeFacts | None:
        """The node, or None when it is not known."""
        return self._nodes.get(name)

    def nodes(self) -> Sequence[NodeFacts]:
        """All known nodes."""
        return tuple(self._nodes.values())

    def runs_on(self, node: str) -> Sequence[Key]:
        """The runs that have a pod on the node."""
        uids = {pod.run_uid for pod in self._pods.by_uid.values() if pod.node == node and not pod.gone}
        return tuple(self._keys[uid] for uid in uids if uid in self._keys)

    def profiles(self) -> Mapping[str, ProfileFacts]:
        """All known ComputeProfiles by name."""
        return MappingProxyType(self._profiles)

    def policy(self, namespace: str, name: str) -> PolicyFacts | None:
        """The PromotionPolicy, or None when it is not known."""
        state = self._policies.get((namespace, name))
        return state.policy if state is not None else None

    def policy_state(self, namespace: str, name: str) -> PolicyState | None:
        """The PromotionPolicy with its status, or None when it is not known."""
        return self._policies.get((namespace, name))

    def policy_states(self) -> Sequence[PolicyState]:
        """All known PromotionPolicies."""
        return tuple(self._policies.values())

    def price_book(self) -> Mapping[str, str]:
        """Data of the price book ConfigMap: node or instance type -> price; empty when there is none."""
        return self._price_book

    # --- what watches, live reads and writes returned -----------------------------------------------------------------

    def put_run(self, run: RunFacts) -> None:
        """Remember a run, unless a newer version of it, or its deletion, was already seen."""
        if run.uid in self._deleted:
            return
        old = self._runs.get(run.key)
        if old is not None:
            if not newer(run.resource_version, old.resource_version):
                return
            if old.uid != run.uid:
                self.drop_run(old.key, old.uid)
        self._runs[run.key] = run
        self._names.setdefault(run.key.namespace, {})[run.key.name] = run.key
        self._keys[run.uid] = run.key

    def put_job(self, job: JobFacts) -> None:
        """Remember a Job, unless a newer version of it, or its deletion, was already seen."""
        if job.uid not in self._deleted:
            self._jobs.put(job)

    def put_pod(self, pod: PodFacts) -> None:
        """Remember a pod; once it was seen `gone` it stays so, and keeps the most telling last view."""
        old = self._pods.by_uid.get(pod.uid)
        if pod.uid in self._deleted and not pod.gone:
            return
        if pod.gone:
            self._deleted.add(pod.uid)
            if old is not None and not newer(pod.resource_version, old.resource_version):
                pod = replace(old, gone=True)
        self._pods.put(pod)

    def put_node(self, node: NodeFacts) -> None:
        """Remember a node."""
        self._nodes[node.name] = node

    def put_profile(self, profile: ProfileFacts) -> None:
        """Remember a ComputeProfile."""
        self._profiles[profile.name] = profile

    def put_policy(self, state: PolicyState) -> None:
        """Remember a PromotionPolicy, unless a newer version of it was already seen."""
        name = (state.policy.namespace, state.policy.name)
        old = self._policies.get(name)
        if state.policy.uid in self._deleted:
            return
        if old is None or newer(state.resource_version, old.resource_version):
            self._policies[name] = state

    def put_progress(self, run_uid: str, progress: ProgressFacts) -> None:
        """Remember a scrape."""
        self._progress[run_uid] = progress

    def put_price_book(self, prices: Mapping[str, str]) -> None:
        """Remember the price book."""
        self._price_book = MappingProxyType(dict(prices))

    # --- what is gone -------------------------------------------------------------------------------------------------

    def drop_run(self, key: Key, uid: str) -> None:
        """The run with that uid is gone; its tombstones and its progress go with it."""
        self._deleted.add(uid)
        self._keys.pop(uid, None)
        self._progress.pop(uid, None)
        for pod in self._pods.of(uid):
            if pod.gone:
                self._pods.drop(pod.uid)
        held = self._runs.get(key)
        if held is None or held.uid != uid:
            return
        del self._runs[key]
        names = self._names[key.namespace]
        names.pop(key.name, None)
        if not names:
            del self._names[key.namespace]

    def drop_job(self, uid: str) -> None:
        """The Job is gone."""
        self._deleted.add(uid)
        self._jobs.drop(uid)

    def drop_node(self, name: str) -> None:
        """The node is gone."""
        self._nodes.pop(name, None)

    def drop_profile(self, name: str) -> None:
        """The ComputeProfile is gone."""
        self._profiles.pop(name, None)

    def drop_policy(self, namespace: str, name: str, uid: str) -> None:
        """The PromotionPolicy with that uid is gone."""
        self._deleted.add(uid)
        held = self._policies.get((namespace, name))
        if held is not None and held.policy.uid == uid:
            del self._policies[namespace, name]

    def forget_attempt(self, run_uid: str, job_uid: str) -> None:
        """The attempt is booked: its tombstones are of no more use."""
        for pod in self._pods.of(run_uid):
            if pod.gone and pod.job_uid == job_uid:
                self._pods.drop(pod.uid)

    # --- for the resync -----------------------------------------------------------------------------------------------

    def job_uids(self) -> Iterator[str]:
        """The uids of all known Jobs."""
        return iter(tuple(self._jobs.by_uid))

    def job(self, uid: str) -> JobFacts | None:
        """The Job with that uid."""
        return self._jobs.by_uid.get(uid)

    def pod_uids(self) -> Iterator[str]:
        """The uids of all pods that were not seen DELETED."""
        return iter(tuple(uid for uid, pod in self._pods.by_uid.items() if not pod.gone))

    def pod(self, uid: str) -> PodFacts | None:
        """The pod with that uid."""
        return self._pods.by_uid.get(uid)

    def drop_orphans(self) -> None:
        """Forget tombstones and progress of runs that are not known: nobody will book them. Only after a listing."""
        for uid, pod in tuple(self._pods.by_uid.items()):
            if pod.gone and pod.run_uid not in self._keys:
                self._pods.drop(uid)
        for run_uid in tuple(self._progress):
            if run_uid not in self._keys:
                del self._progress[run_uid]
