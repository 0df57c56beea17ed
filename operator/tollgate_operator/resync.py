"""The full listing: fills the store before the first decision, and every few minutes heals what a watch lost.

A watch that had to list again delivers only what is still there, so an object that vanished meanwhile stays in the
store as a ghost. Whatever the store held before a listing began and the listing does not have is such a ghost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from tollgate_operator import paths
from tollgate_operator.facts import JobFacts, NodeFacts, PodFacts, ProfileFacts, RunFacts
from tollgate_operator.kube import ApiError, Gone, KubeApi, NotFound, Object
from tollgate_operator.promotion.facts import PolicyState
from tollgate_operator.reading import mapping, strings
from tollgate_operator.store import Store
from tollgate_operator.watch import CHILD_SELECTOR, Keys

logger = logging.getLogger(__name__)

F = TypeVar("F")


class Resync:
    """Lists everything that is watched, in the namespaces that the operator serves (None: all of them)."""

    def __init__(
        self,
        api: KubeApi,
        store: Store,
        keys: Keys,
        namespaces: Sequence[str] | None,
        price_book: tuple[str, str] | None = None,
    ) -> None:
        self._api = api
        self._store = store
        self._keys = keys
        self._scopes: tuple[str | None, ...] = (None,) if namespaces is None else tuple(namespaces)
        self._price_book = price_book

    async def once(self) -> None:
        """One full listing; then every run and policy is looked at.

        Raises: ApiError; what was listed before it stays in the store, and nothing is dropped for a list that failed.
        """
        await self._runs()
        await self._policies()
        await self._profiles_and_nodes()
        await self._children()
        self._store.drop_orphans()
        await self.read_price_book()
        for run in self._store.all_runs():
            self._keys.add(run.key)
        for state in self._store.policy_states():
            self._keys.add(state.key)

    async def _runs(self) -> None:
        store = self._store
        before = {run.uid: run.key for run in store.all_runs()}
        seen = await self._take(self._each(paths.runs), None, RunFacts.from_object, store.put_run, lambda r: r.uid)
        for uid in before.keys() - seen:
            store.drop_run(before[uid], uid)
            if store.run(before[uid]) is None:
                self._keys.forget(before[uid])

    async def _policies(self) -> None:
        store = self._store
        before = {state.policy.uid: state for state in store.policy_states()}
        seen = await self._take(
            self._each(paths.policies), None, PolicyState.from_object, store.put_policy, lambda s: s.policy.uid
        )
        for uid in before.keys() - seen:
            policy = before[uid].policy
            store.drop_policy(policy.namespace, policy.name, uid)
            if store.policy(policy.namespace, policy.name) is None:
                self._keys.forget(before[uid].key)

    async def _profiles_and_nodes(self) -> None:
        store = self._store
        before = set(store.profiles())
        seen = await self._take([paths.profiles()], None, ProfileFacts.from_object, store.put_profile, lambda p: p.name)
        for name in before - seen:
            store.drop_profile(name)
        before = {node.name for node in store.nodes()}
        seen = await self._take([paths.nodes()], None, NodeFacts.from_object, store.put_node, lambda n: n.name)
        for name in before - seen:
            store.drop_node(name)

    async def _children(self) -> None:
        store = self._store
        before = set(store.job_uids())
        seen = await self._take(
            self._each(paths.jobs), CHILD_SELECTOR, JobFacts.from_object, store.put_job, lambda j: j.uid
        )
        for uid in before - seen:
            store.drop_job(uid)
        before = set(store.pod_uids())
        seen = await self._take(
            self._each(paths.pods), CHILD_SELECTOR, PodFacts.from_object, store.put_pod, lambda p: p.uid
        )
        for uid in before - seen:
            pod = store.pod(uid)
            if pod is not None and not pod.gone:
                store.put_pod(replace(pod, gone=True))

    async def read_price_book(self) -> None:
        """Reads the price book ConfigMap; one that does not exist is an empty one.

        Raises: ApiError, and the store keeps the prices that it has.
        """
        if self._price_book is None:
            return
        try:
            body = await self._api.get(paths.config_map(*self._price_book))
        except NotFound:
            self._store.put_price_book({})
            return
        self._store.put_price_book(strings(mapping(body.get("data"))))

    async def keep(self, every: float) -> None:
        """Lists again and again, `every` seconds apart. A listing that fails is logged; the next makes up for it."""
        while True:
            await asyncio.sleep(every)
            try:
                await self.once()
            except ApiError as error:
                logger.warning("resync failed, next one in %.0f s: %s", every, error)

    def _each(self, path: Callable[[str | None], str]) -> list[str]:
        return [path(scope) for scope in self._scopes]

    async def _take(
        self,
        collections: Iterable[str],
        selector: str | None,
        parse: Callable[[Object], F],
        put: Callable[[F], None],
        identity: Callable[[F], str],
    ) -> set[str]:
        """Lists the collections page by page into the store and answers who was there."""
        seen: set[str] = set()
        for collection in collections:
            for tried in (1, 2):
                try:
                    async for page in self._api.pages(collection, label_selector=selector):
                        for body in page:
                            facts = parse(body)
                            put(facts)
                            seen.add(identity(facts))
                    break
                except Gone:  # the list expired between two pages; what was seen is true, but not all
                    if tried == 2:
                        raise
        return seen
