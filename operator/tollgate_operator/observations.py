"""What reconcile asks of the memory of the watches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

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


class Observations(Protocol):
    """What the watches have delivered so far. It proves presence, never absence.

    `put_*` remembers what a write or a live read returned: the newer resourceVersion of one uid wins, so a late watch
    event cannot take a fact back. Pods that were seen DELETED stay, with `gone`, until `forget_attempt`.
    """

    def run(self, key: Key) -> RunFacts | None:
        """The run, or None when no watch delivered it."""
        ...

    def runs(self, namespace: str) -> Sequence[RunFacts]:
        """All known runs of a namespace."""
        ...

    def jobs(self, run_uid: str) -> Sequence[JobFacts]:
        """Jobs with that run-uid label that were not seen DELETED."""
        ...

    def pods(self, run_uid: str) -> Sequence[PodFacts]:
        """Pods with that run-uid label, those that were seen DELETED with `gone`."""
        ...

    def progress(self, run_uid: str) -> ProgressFacts | None:
        """The last scrape of rank 0, or None when there was none."""
        ...

    def node(self, name: str) -> NodeFacts | None:
        """The node, or None when it is not known."""
        ...

    def nodes(self) -> Sequence[NodeFacts]:
        """All known nodes."""
        ...

    def profiles(self) -> Mapping[str, ProfileFacts]:
        """All known ComputeProfiles by name."""
        ...

    def policy(self, namespace: str, name: str) -> PolicyFacts | None:
        """The PromotionPolicy, or None when it is not known."""
        ...

    def price_book(self) -> Mapping[str, str]:
        """Data of the price book ConfigMap: node or instance type -> price; empty when there is none."""
        ...

    def put_run(self, run: RunFacts) -> None:
        """Remember a run that a write or a live read returned."""
        ...

    def put_job(self, job: JobFacts) -> None:
        """Remember a Job that a write or a live read returned."""
        ...

    def put_pod(self, pod: PodFacts) -> None:
        """Remember a pod that a live read returned, or that a live list did not have (`gone`)."""
        ...

    def drop_run(self, key: Key, uid: str) -> None:
        """Forget a run that a live read did not find."""
        ...

    def drop_job(self, uid: str) -> None:
        """Forget a Job that a live read did not find."""
        ...

    def forget_attempt(self, run_uid: str, job_uid: str) -> None:
        """The attempt is booked: its gone pods are of no more use."""
        ...
