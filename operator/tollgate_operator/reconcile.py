"""The shared loop of every kind, and the only code with side effects: facts -> decide -> actions -> one status write.

`decision.py` says in which order a decision is carried out, and why. What a write returned is remembered, so that the
next decision does not act on an older copy of it. Nothing is retried here: an error goes to the work queue, which comes
back later, reads again and decides again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from tollgate.api.meta import Observed
from tollgate.contract import ANNOTATION_STOP_REASON
from tollgate_operator import paths
from tollgate_operator.decision import (
    Action,
    ApplyConfigMap,
    CreateJob,
    Decision,
    DeleteJob,
    EmitEvent,
    EnsureRendezvousService,
    Look,
    StopJob,
)
from tollgate_operator.events import event_body
from tollgate_operator.facts import JobFacts, Key
from tollgate_operator.kube import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound, Object, Propagation
from tollgate_operator.runs.render import rendezvous_service

ROUNDS: Final = 6
"""How often one call decides anew after a look or a conflict before it leaves the rest to the queue."""

FIELD_MANAGER: Final = "tollgate-operator"

logger = logging.getLogger(__name__)
F = TypeVar("F")


class Writes(Protocol):
    """The verbs of KubeApi that are used here."""

    async def get(self, path: str) -> Object:
        """The object."""
        ...

    async def create(self, path: str, body: Mapping[str, Any]) -> Object:
        """The created object."""
        ...

    async def delete(
        self, path: str, uid: str | None = None, propagation: Propagation = "Foreground", grace: int | None = None
    ) -> None:
        """Delete it."""
        ...

    async def merge_patch(self, path: str, body: Mapping[str, Any]) -> Object:
        """The patched object."""
        ...

    async def apply(self, path: str, body: Mapping[str, Any], field_manager: str, force: bool = True) -> Object:
        """The applied object."""
        ...


class JobMemory(Protocol):
    """What is remembered of Jobs that were written."""

    def put_job(self, job: JobFacts) -> None:
        """A write returned it."""
        ...

    def drop_job(self, uid: str) -> None:
        """It is gone."""
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that is decided on: where it is, which version was decided on, and the status it has."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    path: str
    status: Observed


class Kind(Protocol[F]):
    """One kind: how its facts come together, and what is decided from them."""

    async def gather(self, key: Key, looks: frozenset[Look]) -> F | None:
        """The facts, with everything in `looks` asked for live; None when the object is not known."""
        ...

    def subject(self, facts: F) -> Subject:
        """The object in these facts."""
        ...

    def decide(self, facts: F, now: datetime) -> Decision:
        """What to do; pure and total."""
        ...

    def refused(self, facts: F, action: Action, message: str, now: datetime) -> Decision:
        """What to say when the API server refused `action` for good."""
        ...

    def wrote(self, body: Object) -> None:
        """Remember the object as the API server has it now."""
        ...

    def vanished(self, key: Key, uid: str) -> None:
        """The object is gone."""
        ...


class RefusedError(Exception):
    """An action that the API server will not do as it stands; the queue tries again, slower each time."""


class Reconciler(Generic[F]):
    """Carries out the decisions about one kind."""

    def __init__(self, api: Writes, memory: JobMemory, kind: Kind[F], clock: Callable[[], datetime]) -> None:
        self._api = api
        self._memory = memory
        self._kind = kind
        self._clock = clock
        self._services: set[str] = set()

    async def reconcile(self, key: Key) -> float | None:
        """Brings one object a step further. Answers after how many seconds to come back, or None.

        Raises: ApiError or RefusedError; what was done until then stands, and a later call goes on from there.
        """
        looks: frozenset[Look] = frozenset()
        for _ in range(ROUNDS):
            facts = await self._kind.gather(key, looks)
            if facts is None:
                return None
            decision = self._kind.decide(facts, self._clock())
            if decision.look - looks:
                looks |= decision.look
                continue
            subject = self._kind.subject(facts)
            try:
                await self._carry_out(key, decision, subject)
            except Conflict:
                if not await self._read_again(key, subject):
                    return None
                continue
            except NotFound:
                if not await self._read_again(key, subject):
                    return None
                raise
            return decision.requeue_after
        return 1.0

    async def _carry_out(self, key: Key, decision: Decision, subject: Subject) -> None:
        for action in decision.before:
            await self._act(action)
        await self._write(subject, decision.status)
        for creation in decision.after:
            try:
                await self._act(creation)
            except (Forbidden, Invalid) as error:
                await self._tell_refused(key, creation, error.message)
                raise RefusedError(error.message) from error
        await self._tell(subject, decision.events)

    async def _tell_refused(self, key: Key, action: Action, message: str) -> None:
        """Says in the status, as it is after the decision's own write, what the API server will not do."""
        facts = await self._kind.gather(key, frozenset())
        if facts is None:
            return
        told, subject = self._kind.refused(facts, action, message, self._clock()), self._kind.subject(facts)
        await self._write(subject, told.status)
        await self._tell(subject, told.events)

    async def _write(self, subject: Subject, status: Observed | None) -> None:
        if status is None:
            return
        changes = difference(dump(subject.status), dump(status))
        if not changes:
            return
        body = {"metadata": {"uid": subject.uid, "resourceVersion": subject.resource_version}, "status": changes}
        self._kind.wrote(await self._api.merge_patch(f"{subject.path}/status", body))

    async def _read_again(self, key: Key, subject: Subject) -> bool:
        """Whether the object is still there; what is there now is remembered."""
        try:
            self._kind.wrote(await self._api.get(subject.path))
        except NotFound:
            self._kind.vanished(key, subject.uid)
            return False
        return True

    async def _act(self, action: Action) -> None:
        match action:
            case CreateJob():
                await self._create_job(action)
            case StopJob():
                await self._stop_job(action)
            case DeleteJob():
                await self._delete_job(action)
            case EnsureRendezvousService():
                await self._ensure_service(action.namespace)
            case ApplyConfigMap():
                await self._api.apply(
                    paths.config_map(action.namespace, action.name), action.body, FIELD_MANAGER, force=True
                )

    async def _create_job(self, action: CreateJob) -> None:
        try:
            body = await self._api.create(paths.jobs(action.namespace), action.body)
        except AlreadyExists as taken:
            body = await self._api.get(paths.job(action.namespace, action.name))
            if JobFacts.from_object(body).controller_uid != action.run_uid:
                raise RefusedError(
                    f"Job {action.namespace}/{action.name} exists and belongs to somebody else; delete it so that this "
                    "run can start"
                ) from taken
        self._memory.put_job(JobFacts.from_object(body))

    async def _stop_job(self, action: StopJob) -> None:
        body = {
            "metadata": {"uid": action.uid, "annotations": {ANNOTATION_STOP_REASON: action.reason.value}},
            "spec": {"activeDeadlineSeconds": 1},
        }
        try:
            stopped = await self._api.merge_patch(paths.job(action.namespace, action.name), body)
        except (NotFound, Conflict):  # gone, or another Job of that name: the one we meant does not run any more
            self._memory.drop_job(action.uid)
        else:
            self._memory.put_job(JobFacts.from_object(stopped))

    async def _delete_job(self, action: DeleteJob) -> None:
        try:
            await self._api.delete(paths.job(action.namespace, action.name), uid=action.uid, propagation="Foreground")
        except (NotFound, Conflict):
            self._memory.drop_job(action.uid)

    async def _ensure_service(self, namespace: str) -> None:
        if namespace in self._services:
            return
        try:
            await self._api.create(paths.services(namespace), rendezvous_service(namespace))
        except AlreadyExists:
            logger.debug("the rendezvous Service of namespace %s is there", namespace)
        self._services.add(namespace)

    async def _tell(self, subject: Subject, events: tuple[EmitEvent, ...]) -> None:
        for event in events:
            try:
                await self._api.create(paths.events(subject.namespace), event_body(subject, event, self._clock()))
            except ApiError as error:  # an Event is a courtesy; the status says the same
                logger.warning("an event about %s was not accepted: %s", subject.name, error)


def dump(status: Observed) -> dict[str, Any]:
    """The status as JSON values, without absent fields."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7386) that makes `new` of `old`: null removes, a list that differs is sent whole."""
    changes: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := difference(before, value):
                changes[key] = inner
        elif key not in old or before != value:
            changes[key] = value
    return changes
