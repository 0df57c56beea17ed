"""Everything that a decision about one run rests on, and how to find one's way in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tollgate.api.meta import find_condition
from tollgate.api.training_run import Attempt, AttemptOutcome, ConditionType, TrainingRunSpec, TrainingRunStatus
from tollgate.contract import LABEL_QUEUE, Role
from tollgate.manifest.loader import LoadedManifest
from tollgate_operator.facts import (
    ClaimFacts,
    JobFacts,
    NodeFacts,
    PodFacts,
    PolicyFacts,
    ProfileFacts,
    ProgressFacts,
    RunFacts,
)
from tollgate_operator.runs.names import job_name


@dataclass(frozen=True, slots=True)
class Situation:
    """A run and everything about it that was observed.

    `jobs`, `pods`: of this run. `neighbours`: other runs of the namespace on the same output folder. `price_book`:
    micro-USD per node hour by instance type. `live`: jobs and pods are what the API server answered just now, so what
    is not in them is not there; `references_live`: the same for profile, policy and baseline. `claims`, `foreign_pods`
    (other runs' pods on this output folder): None until asked.
    """

    run: RunFacts
    manifest: LoadedManifest | None = None
    manifest_problem: str = ""
    jobs: tuple[JobFacts, ...] = ()
    pods: tuple[PodFacts, ...] = ()
    progress: ProgressFacts | None = None
    profiles: Mapping[str, ProfileFacts] = field(default_factory=dict)
    nodes: Mapping[str, NodeFacts] = field(default_factory=dict)
    price_book: Mapping[str, int] = field(default_factory=dict)
    policy: PolicyFacts | None = None
    baseline: RunFacts | None = None
    neighbours: tuple[RunFacts, ...] = ()
    live: bool = False
    references_live: bool = False
    claims: Mapping[str, ClaimFacts | None] | None = None
    foreign_pods: tuple[PodFacts, ...] | None = None

    @property
    def status(self) -> TrainingRunStatus:
        """The run's status, with what this look has added to it."""
        return self.run.status

    @property
    def spec(self) -> TrainingRunSpec:
        """The run's spec. Only after the policy `readable`, which keeps every run without one to itself."""
        if self.run.spec is None:
            raise AssertionError("a run whose spec cannot be read is decided on by the policy `readable` alone")
        return self.run.spec

    @property
    def queue(self) -> str | None:
        """The Kueue queue that the run asks for."""
        return self.run.labels.get(LABEL_QUEUE) or None

    @property
    def current(self) -> Attempt | None:
        """The attempt that is going on: its number was written, its outcome was not."""
        return next((a for a in reversed(self.status.attempts) if a.outcome is None), None)

    @property
    def leftovers(self) -> tuple[JobFacts, ...]:
        """Jobs of no going attempt that run or could start, and that nobody has stopped yet."""
        current = self.current
        kept = self.job_of(current) if current is not None else None
        return tuple(
            job
            for job in self.jobs
            if job.finished is None
            and job.deleting is None
            and (kept is None or job.uid != kept.uid)
            and (job.suspend or (job.stop_reason is None and job.decided is None))
        )

    def last(self, role: Role) -> Attempt | None:
        """The newest attempt of a role."""
        return max((a for a in self.status.attempts if a.role == role), key=lambda a: a.number, default=None)

    def job_of(self, attempt: Attempt) -> JobFacts | None:
        """The attempt's Job, if it is there: the one whose uid was recorded, else ours by that name."""
        name = self.job_name(attempt)
        for job in self.jobs:
            if attempt.job_uid is not None:
                if job.uid == attempt.job_uid:
                    return job
            elif job.name == name and job.controller_uid == self.run.uid:
                return job
        return None

    def job_name(self, attempt: Attempt) -> str:
        """The name that the attempt's Job has or will have."""
        return job_name(self.run.key.name, self.run.uid, Role(attempt.role), attempt.number)

    def pods_of(self, attempt: Attempt) -> tuple[PodFacts, ...]:
        """All pods that belong or belonged to the attempt's Job, by index and then uid."""
        job = self.job_of(attempt)
        uid = attempt.job_uid or (job.uid if job else None)
        found = [
            pod
            for pod in self.pods
            if (pod.job_uid == uid if uid and pod.job_uid else False)
            or (not pod.job_uid and pod.attempt == attempt.number and pod.role == attempt.role)
        ]
        return tuple(sorted(found, key=lambda pod: (pod.index, pod.uid)))

    def gang_size(self, attempt: Attempt) -> int:
        """How many pods the attempt's Job has."""
        compute = self.spec.compute
        return compute.nodes if compute is not None and attempt.role == "train" else 1

    def node_of(self, pod: PodFacts) -> NodeFacts | None:
        """The node that the pod is bound to, if both are known."""
        return self.nodes.get(pod.node)

    def holds(self, kind: ConditionType) -> bool:
        """Whether the run has that condition with status True."""
        found = find_condition(self.status.conditions, kind)
        return found is not None and found.status == "True"

    @property
    def trained(self) -> bool:
        """Whether training came to its end; what is left is to evaluate and to judge."""
        last = self.last(Role.TRAIN)
        return last is not None and last.outcome == AttemptOutcome.COMPLETED

    @property
    def terminal(self) -> bool:
        """Succeeded or Failed: attempts, spend and verdicts stand, and nothing is started any more."""
        return self.holds(ConditionType.COMPLETE) or self.holds(ConditionType.FAILED)

    def with_status(self, status: TrainingRunStatus) -> Situation:
        """The same with another status."""
        return replace(self, run=replace(self.run, status=status))


def with_attempt(status: TrainingRunStatus, attempt: Attempt) -> TrainingRunStatus:
    """The status with that attempt in place of the one of its role and number, or added."""
    rest = [a for a in status.attempts if (a.role, a.number) != (attempt.role, attempt.number)]
    place = next(
        (i for i, a in enumerate(status.attempts) if (a.role, a.number) == (attempt.role, attempt.number)), len(rest)
    )
    return status.model_copy(update={"attempts": [*rest[:place], attempt, *rest[place:]]})
