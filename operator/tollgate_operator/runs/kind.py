"""TrainingRun as a kind of the shared reconcile loop: how its situation comes together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol

from tollgate.api.quantities import parse_usd
from tollgate.api.training_run import KIND, ConditionType
from tollgate.contract import API_VERSION, LABEL_OUTPUT, LABEL_RUN_UID
from tollgate.limits.ledger import is_closed
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import LoadedManifest, load_document
from tollgate_operator import paths
from tollgate_operator.decision import Action, Decision, EmitEvent, Look
from tollgate_operator.facts import ClaimFacts, JobFacts, Key, PodFacts, ProfileFacts, RunFacts
from tollgate_operator.kube import NotFound, Object
from tollgate_operator.promotion.facts import PolicyState
from tollgate_operator.reconcile import Subject
from tollgate_operator.runs.admission import claims_of
from tollgate_operator.runs.decide import decide
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.status import Told, tell
from tollgate_operator.store import Store

_MANIFESTS_KEPT: Final = 512


class Reads(Protocol):
    """The verbs of KubeApi that are used here."""

    async def get(self, path: str) -> Object:
        """The object."""
        ...

    async def list(
        self, path: str, label_selector: str | None = None, field_selector: str | None = None
    ) -> Sequence[Object]:
        """The objects."""
        ...


class RunKind:
    """Gathers what a decision about a run rests on; `runs.decide` decides."""

    def __init__(self, store: Store, api: Reads) -> None:
        self._store = store
        self._api = api
        self._manifests: OrderedDict[tuple[str, int], tuple[LoadedManifest | None, str]] = OrderedDict()

    async def gather(self, key: Key, looks: frozenset[Look]) -> Situation | None:
        """The run as the store has it, and what `looks` names as the API server has it now."""
        run = self._store.run(key)
        if run is None:
            return None
        if Look.REFERENCES in looks:
            await self._look_at_references(run)
        claims = await self._claims(self._situation(run)) if Look.CLAIMS in looks else None
        foreign = await self._foreign_pods(run) if Look.OUTPUT in looks else None
        if Look.CHILDREN in looks:
            await self._look_at_children(run)
        # While we waited the watch went on; the run is taken again, so that its status and its children fit together.
        run = self._store.run(key)
        if run is None:
            return None
        return replace(
            self._situation(run),
            live=Look.CHILDREN in looks,
            references_live=Look.REFERENCES in looks,
            claims=claims,
            foreign_pods=foreign,
        )

    def subject(self, facts: Situation) -> Subject:
        """The run."""
        run = facts.run
        return Subject(
            api_version=API_VERSION,
            kind=KIND,
            namespace=run.key.namespace,
            name=run.key.name,
            uid=run.uid,
            resource_version=run.resource_version,
            path=paths.run(run.key.namespace, run.key.name),
            status=run.status,
        )

    def decide(self, facts: Situation, now: datetime) -> Decision:
        """What to do next for the run."""
        return decide(facts, now)

    def refused(self, facts: Situation, action: Action, message: str, now: datetime) -> Decision:
        """The API server will not have the Job: an admission rule, a quota, or rights that are missing."""
        told = Told(ConditionType.ADMITTED, "False", "CreateRefused", message)
        text = f"the API server refuses the attempt's Job: {message}"
        phase = facts.status.phase
        if phase is None or any(c.reason == "CreateRefused" and c.message == message for c in facts.status.conditions):
            return Decision()
        return Decision(
            status=tell(facts, now, phase, text, [told]), events=(EmitEvent("Warning", "CreateRefused", message),)
        )

    def wrote(self, body: Object) -> None:
        """Remember the run as the API server has it now."""
        self._store.put_run(RunFacts.from_object(body))

    def vanished(self, key: Key, uid: str) -> None:
        """The run is gone; its children follow by garbage collection."""
        self._store.drop_run(key, uid)

    def _situation(self, run: RunFacts) -> Situation:
        store = self._store
        for attempt in run.status.attempts:
            if attempt.job_uid is not None and is_closed(attempt):
                store.forget_attempt(run.uid, attempt.job_uid)
        manifest, problem = self._manifest(run)
        spec, namespace = run.spec, run.key.namespace
        evaluation = spec.evaluation if spec is not None else None
        baseline = evaluation.baseline.run_name if evaluation is not None and evaluation.baseline is not None else None
        return Situation(
            run=run,
            manifest=manifest,
            manifest_problem=problem,
            jobs=tuple(job for job in store.jobs(run.uid) if job.controller_uid == run.uid),
            pods=tuple(store.pods(run.uid)),
            progress=store.progress(run.uid),
            profiles=store.profiles(),
            nodes={node.name: node for node in store.nodes()},
            price_book=_prices(store.price_book()),
            policy=store.policy(namespace, spec.policy_ref.name) if spec is not None and spec.policy_ref else None,
            baseline=store.run(Key(KIND, namespace, baseline)) if baseline is not None else None,
            neighbours=tuple(
                other
                for other in store.runs(namespace)
                if other.output == run.output and other.uid != run.uid and run.output
            ),
        )

    def _manifest(self, run: RunFacts) -> tuple[LoadedManifest | None, str]:
        """The run's manifest, or what is wrong with it. Loading takes milliseconds, so the newest are kept."""
        if run.spec is None:
            return None, run.spec_problem
        key = (run.uid, run.generation)
        if key not in self._manifests:
            try:
                loaded, problem = load_document(run.spec.manifest, "spec.manifest"), ""
            except ManifestError as error:
                loaded, problem = None, str(error)
            self._manifests[key] = (loaded, problem)
            while len(self._manifests) > _MANIFESTS_KEPT:
                self._manifests.popitem(last=False)
        self._manifests.move_to_end(key)
        return self._manifests[key]

    async def _look_at_children(self, run: RunFacts) -> None:
        """Jobs and pods as they are now. What the store had before and the answer has not is gone.

        What came into the store while we asked may be newer than the answer and is left alone.
        """
        jobs = {job.uid for job in self._store.jobs(run.uid)}
        pods = {pod.uid: pod for pod in self._store.pods(run.uid) if not pod.gone}
        selector = f"{LABEL_RUN_UID}={run.uid}"
        namespace = run.key.namespace
        for body in await self._api.list(paths.jobs(namespace), label_selector=selector):
            job = JobFacts.from_object(body)
            self._store.put_job(job)
            jobs.discard(job.uid)
        for body in await self._api.list(paths.pods(namespace), label_selector=selector):
            pod = PodFacts.from_object(body)
            self._store.put_pod(pod)
            pods.pop(pod.uid, None)
        for uid in jobs:
            self._store.drop_job(uid)
        for pod in pods.values():
            self._store.put_pod(replace(pod, gone=True))

    async def _foreign_pods(self, run: RunFacts) -> tuple[PodFacts, ...]:
        """Pods of other runs that may write into this run's output folder."""
        found = await self._api.list(paths.pods(run.key.namespace), label_selector=f"{LABEL_OUTPUT}={run.output}")
        return tuple(pod for pod in map(PodFacts.from_object, found) if pod.run_uid != run.uid)

    async def _claims(self, situation: Situation) -> dict[str, ClaimFacts | None]:
        if situation.run.spec is None:
            return {}
        found: dict[str, ClaimFacts | None] = {}
        for name in claims_of(situation):
            try:
                body = await self._api.get(paths.claim(situation.run.key.namespace, name))
            except NotFound:
                found[name] = None
            else:
                found[name] = ClaimFacts.from_object(body)
        return found

    async def _look_at_references(self, run: RunFacts) -> None:
        """Profiles, policy and baseline that the store does not know, because their watch is late."""
        spec, namespace = run.spec, run.key.namespace
        if spec is None:
            return
        for body in await self._api.list(paths.profiles()):
            self._store.put_profile(ProfileFacts.from_object(body))
        if spec.policy_ref is not None:
            try:
                policy = await self._api.get(paths.policy(namespace, spec.policy_ref.name))
            except NotFound:
                pass  # the decision says so
            else:
                self._store.put_policy(PolicyState.from_object(policy))
        if spec.evaluation is not None and spec.evaluation.baseline is not None:
            try:
                baseline = await self._api.get(paths.run(namespace, spec.evaluation.baseline.run_name))
            except NotFound:
                pass  # the decision says so
            else:
                self._store.put_run(RunFacts.from_object(baseline))


def _prices(book: Mapping[str, str]) -> dict[str, int]:
    """The price book in micro-USD. An entry that is no amount is left out: its price is unknown, not zero."""
    found: dict[str, int] = {}
    for name, amount in book.items():
        try:
            found[name] = parse_usd(amount)
        except ValueError:
            continue
    return found
