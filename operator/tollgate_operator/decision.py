"""What a decide function answers: which actions, which status, when to look again.

The order in which the reconcile loop carries a decision out is the safety argument (docs/design/lifecycle.md):

1. `look`: facts that the store cannot prove are asked for live, and decide is called again. An answer that asks carries
   nothing else.
2. `before`: stops and deletes. They save money, so they do not wait for a status write that could fail.
3. `status`: one merge patch that carries metadata.resourceVersion, and only if something changed. A conflict ends this
   round: nothing after it happens, the run is read again and decided again.
4. `after`: creates. They happen only when the intent (the attempt's number) stands in the status.
5. `events`: what people are told, once the status that it tells of was written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from tollgate.api.meta import Observed
from tollgate.contract import StopReason


class Look(StrEnum):
    """Something that has to be asked of the API server itself before a decision can rest on it."""

    CHILDREN = "children"  # Jobs and pods of the run, by name and by label
    CLAIMS = "claims"  # the PersistentVolumeClaims that the run names
    OUTPUT = "output"  # other runs and their pods on this run's output folder
    REFERENCES = "references"  # profile, policy and baseline that the store does not know


@dataclass(frozen=True, slots=True)
class CreateJob:
    """Create this Job. AlreadyExists with our run as controller is success: the Job is adopted."""

    namespace: str
    name: str
    run_uid: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StopJob:
    """One patch: activeDeadlineSeconds 1 and the reason, on exactly that Job (uid in the patch). Gone is success."""

    namespace: str
    name: str
    uid: str
    reason: StopReason


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete exactly that Job in the foreground (uid precondition). Gone is success."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class EnsureRendezvousService:
    """The namespace's headless Service for multi-node gangs; there already is success."""

    namespace: str


@dataclass(frozen=True, slots=True)
class ApplyConfigMap:
    """Server-side apply of a ConfigMap that is the operator's own; what others wrote into its fields is overwritten."""

    namespace: str
    name: str
    body: dict[str, Any]


Action = CreateJob | StopJob | DeleteJob | EnsureRendezvousService | ApplyConfigMap


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """A Kubernetes Event about the object that was decided on. At most one per transition."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now. `status` None: it stays as it is.

    `requeue_after`: seconds until time alone may change the answer; None: only an event can.
    """

    before: tuple[StopJob | DeleteJob, ...] = ()
    status: Observed | None = None
    after: tuple[Action, ...] = ()
    requeue_after: float | None = None
    events: tuple[EmitEvent, ...] = ()
    look: frozenset[Look] = field(default_factory=frozenset)
