"""The operator's own code over a World: store, gather, decide, reconcile. It can die at any call and start anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from operator_world import CrashedError, World
from tollgate.api.training_run import KIND, TrainingRunStatus
from tollgate.contract import LABEL_ROLE
from tollgate_operator.facts import JobFacts, Key, NodeFacts, PodFacts, ProfileFacts, ProgressFacts, RunFacts
from tollgate_operator.promotion.facts import PolicyState
from tollgate_operator.reconcile import Reconciler
from tollgate_operator.runs.kind import RunKind
from tollgate_operator.scrape import paced
from tollgate_operator.store import Store

NAMESPACE = "research"
NAME = "counsel-lora"
RUN = f"/apis/tollgate.dev/v1alpha1/namespaces/{NAMESPACE}/trainingruns/{NAME}"
KEY = Key(KIND, NAMESPACE, NAME)
CLAIMS = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
PRICE = 36_000_000  # micro-USD an hour: one cent a second


def manifest(**changes: Any) -> dict[str, Any]:
    return {"name": "counsel", "dataset": {"path": "train.jsonl"}, "evaluation": {"enabled": False}, **changes}


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "manifest": manifest(),
        "compute": {"profile": "cpu", "nodes": 1},
        "storage": {
            "dataset": {"claimName": "datasets", "path": "care/v2"},
            "output": {"claimName": "models", "path": "counsel-lora"},
        },
        "limits": {"maxCostUSD": "10"},
        **changes,
    }


def profile(name: str = "cpu", **changes: Any) -> ProfileFacts:
    body = {"image": "trainer:1", "pricePerNodeHourUSD": "36", "defaultFor": ["cpu"], **changes}
    return ProfileFacts.from_object({"metadata": {"name": name}, "spec": body})


def policy(**stage: Any) -> PolicyState:
    check = {"metric": "quality", "op": ">=", "threshold": 0.8, "minSamples": 100}
    stages = [{"name": "staging", "checks": [check], **stage}]
    return PolicyState.from_object(
        {
            "metadata": {"name": "care", "namespace": NAMESPACE, "uid": "policy-uid", "resourceVersion": "1"},
            "spec": {"stages": stages},
        }
    )


@dataclass
class Process:
    """One operator over one world. `lossy`: DELETED events that a watch can lose are lost."""

    world: World
    lossy: bool = False
    profiles: tuple[ProfileFacts, ...] = (profile(),)
    policy: PolicyState | None = None
    crashes: int = 0
    due: datetime | None = None
    _read: int = 0
    _seen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A new process: nothing is known but what a listing tells."""
        self.store = Store()
        self.reconciler = Reconciler(self.world, self.store, RunKind(self.store, self.world), lambda: self.world.now)
        for known in self.profiles:
            self.store.put_profile(known)
        if self.policy is not None:
            self.store.put_policy(self.policy)
        self._read = len(self.world.events)
        for name, body in list(self.world.objects.items()):
            self._take(name, body, deleted=False)
        self.due = self.world.now

    def _take(self, name: str, body: dict[str, Any], *, deleted: bool) -> bool:
        if "/trainingruns/" in name:
            run = RunFacts.from_object(body)
            self.store.drop_run(run.key, run.uid) if deleted else self.store.put_run(run)
        elif "/jobs/" in name:
            job = JobFacts.from_object(body)
            self.store.drop_job(job.uid) if deleted else self.store.put_job(job)
        elif "/pods/" in name:
            self.store.put_pod(PodFacts.from_object(body, gone=deleted))
        elif "/nodes/" in name:
            self.store.put_node(NodeFacts.from_object(body))
        else:
            return False
        return True

    def watch(self) -> bool:
        """Takes in what happened since; whether anything did."""
        news = self.world.events[self._read :]
        self._read = len(self.world.events)
        told = [self._take(n, b, deleted=d) for n, b, d in news if not (self.lossy and d and "/pods/" not in n)]
        return any(told)

    def resync(self) -> None:
        """The full listing that prunes what a watch lost."""
        alive = {body["metadata"]["uid"] for body in self.world.objects.values()}
        for uid in list(self.store.job_uids()):
            if uid not in alive:
                self.store.drop_job(uid)
                self.due = self.world.now

    def scrape(self) -> None:
        for _, pod in self.world.of("pods"):
            labels = pod["metadata"]["labels"]
            if pod["status"]["phase"] == "Running" and labels[LABEL_ROLE] == "train":
                facts = PodFacts.from_object(pod)
                if facts.index or facts.started_at is None:
                    continue
                seconds = int((self.world.now - facts.started_at).total_seconds())
                step = min(pod.get("x-resumed", 0) + seconds, self.world.total_steps)
                old = self.store.progress(facts.run_uid)
                kept = old.seen if old is not None and old.pod_uid == facts.uid else ()
                self.store.put_progress(
                    facts.run_uid,
                    ProgressFacts(
                        self.world.now,
                        True,
                        seen=paced(kept, step, self.world.now),
                        pod_uid=facts.uid,
                        step=step,
                        total_steps=self.world.total_steps,
                        loss=2.0,
                        last_progress=self.world.now,
                    ),
                )
                before = self._seen.get(facts.uid, 0)
                self._seen[facts.uid] = step
                if step > 0 and before == 0:
                    self.due = self.world.now

    async def work(self) -> None:
        """Reconciles when something happened or when it is time; an operator that dies is started anew."""
        if not self.watch() and (self.due is None or self.world.now < self.due):
            return
        try:
            after = await self.reconciler.reconcile(KEY)
        except CrashedError:
            self.crashes += 1
            self.start()
            return
        self.due = None if after is None else self.world.now + timedelta(seconds=after)

    async def second(self) -> None:
        """One second of the world, and what the operator makes of it."""
        self.world.tick()
        self.scrape()
        if self.world.now.second == 0:
            self.resync()
        for _ in range(3):
            await self.work()

    async def until(self, done: Callable[[TrainingRunStatus], bool], seconds: int = 600) -> TrainingRunStatus:
        """Lets time pass until the run's status says so."""
        for _ in range(seconds):
            await self.second()
            if RUN not in self.world.objects:
                break
            status = self.status
            if done(status):
                return status
            self._sleep()
        raise AssertionError(f"not within {seconds} s: {self.world.objects.get(RUN, {}).get('status')}")

    def _sleep(self) -> None:
        """Time passes at once while nothing can happen but by the operator's own clock."""
        idle = all(
            {"Failed", "Complete"} & {c["type"] for c in job.get("status", {}).get("conditions", [])}
            for _, job in self.world.of("jobs")
        )
        if idle and self.due is not None and self.due > self.world.now + timedelta(seconds=5):
            self.world.now = self.due - timedelta(seconds=2)

    @property
    def status(self) -> TrainingRunStatus:
        """As the API server has it."""
        return TrainingRunStatus.model_validate(self.world.objects[RUN].get("status", {}))


def world(run_spec: dict[str, Any] | None = None, labels: dict[str, str] | None = None, **options: Any) -> World:
    """A world with claims, and with the run if a spec is given."""
    made = World(**options)
    for claim in ("datasets", "models"):
        body = {"metadata": {"name": claim}, "spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}
        made.put(f"{CLAIMS}/{claim}", body, new=True)
    apply(made, spec() if run_spec is None else run_spec, labels)
    return made


def apply(made: World, run_spec: dict[str, Any], labels: dict[str, str] | None = None) -> None:
    """kubectl apply of the run."""
    body = {"metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels or {}}, "spec": run_spec}
    made.put(RUN, body, new=True)
