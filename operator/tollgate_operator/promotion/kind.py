"""PromotionPolicy as a kind of the shared reconcile loop: how its facts come together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from tollgate.api.promotion_policy import KIND
from tollgate.contract import API_VERSION
from tollgate_operator import paths
from tollgate_operator.decision import Action, Decision, Look
from tollgate_operator.facts import Key
from tollgate_operator.kube import NotFound, Object
from tollgate_operator.promotion import decide
from tollgate_operator.promotion.facts import PolicyState, PromotionFacts
from tollgate_operator.promotion.render import LABEL_STAGE, config_map_name
from tollgate_operator.reading import mapping, strings
from tollgate_operator.reconcile import Subject
from tollgate_operator.store import Store
from tollgate_operator.watch import policy_key


class Reads(Protocol):
    """The verb of KubeApi that is used here."""

    async def get(self, path: str) -> Object:
        """The object."""
        ...


class PromotionKind:
    """Gathers what promotion rests on; `promotion.decide` decides."""

    def __init__(self, store: Store, api: Reads) -> None:
        self._store = store
        self._api = api

    async def gather(self, key: Key, looks: frozenset[Look]) -> PromotionFacts | None:
        """The policy, the runs under it, and its ConfigMaps as they are now. Nothing else needs a look."""
        state = self._store.policy_state(key.namespace, key.name)
        if state is None:
            return None
        runs = tuple(run for run in self._store.runs(key.namespace) if policy_key(run) == key)
        projected: dict[str, Mapping[str, str]] = {}
        for stage in state.policy.spec.stages if state.policy.spec is not None else ():
            try:
                body = await self._api.get(paths.config_map(key.namespace, config_map_name(key.name, stage.name)))
            except NotFound:
                continue
            if strings(mapping(body.get("metadata")).get("labels")).get(LABEL_STAGE) == stage.name:
                projected[stage.name] = strings(body.get("data"))
        # What was read while we waited may be older than what came meanwhile; the policy itself is taken again.
        return PromotionFacts(self._store.policy_state(key.namespace, key.name) or state, runs, projected)

    def subject(self, facts: PromotionFacts) -> Subject:
        """The policy."""
        state = facts.state
        return Subject(
            api_version=API_VERSION,
            kind=KIND,
            namespace=state.policy.namespace,
            name=state.policy.name,
            uid=state.policy.uid,
            resource_version=state.resource_version,
            path=paths.policy(state.policy.namespace, state.policy.name),
            status=state.status,
        )

    def decide(self, facts: PromotionFacts, now: datetime) -> Decision:
        """Who holds which stage."""
        return decide.decide(facts, now)

    def refused(self, facts: PromotionFacts, action: Action, message: str, now: datetime) -> Decision:
        """The API server will not have a ConfigMap."""
        return decide.refused(facts, message, now)

    def wrote(self, body: Object) -> None:
        """Remember the policy as the API server has it now."""
        self._store.put_policy(PolicyState.from_object(body))

    def vanished(self, key: Key, uid: str) -> None:
        """The policy is gone."""
        self._store.drop_policy(key.namespace, key.name, uid)
