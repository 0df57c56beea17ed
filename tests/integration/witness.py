"""What really happened in a namespace, seen beside the operator: every state of every pod and Job, by own watches.

It is the truth that a run's status is held against: how long each pod had a node, how many gangs lived at a time, how
many Jobs an attempt had. It also plays the trainers: a pod on a fake node runs until it is told how to end.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from tollgate.contract import (
    LABEL_ATTEMPT,
    LABEL_ROLE,
    LABEL_RUN,
    CheckpointRef,
    EvaluationSummary,
    LastWords,
    Metric,
    ModelRef,
    Outcome,
)
from tollgate_local.api import ApiError
from tollgate_local.cluster import Cluster

Body = dict[str, Any]
EXIT, MESSAGE = "kwok.tollgate.dev/exit-code", "kwok.tollgate.dev/message"
STOP_EXIT, STOP_MESSAGE = "kwok.tollgate.dev/stop-exit-code", "kwok.tollgate.dev/stop-message"
MODEL = "sha256:" + "a" * 64
EVIDENCE = "sha256:" + "e" * 64
STEPS = 100


@dataclass(frozen=True, slots=True)
class Ending:
    """How a pod ends: its exit code and its last words."""

    code: int
    words: LastWords | None = None

    @property
    def message(self) -> str:
        """The termination message."""
        return self.words.to_termination_message() if self.words is not None else ""


def trained() -> Ending:
    """Rank 0 after the last step."""
    at = datetime.now(UTC)
    saved = CheckpointRef(step=STEPS, path=f"checkpoints/checkpoint-{STEPS}", digest="sha256:" + "c" * 64, saved_at=at)
    words = LastWords(
        outcome=Outcome.COMPLETED, reason="Completed", step=STEPS, total_steps=STEPS, loss=0.5, checkpoint=saved,
        model=ModelRef(path="model", digest=MODEL), ended_at=at,
    )  # fmt: skip
    return Ending(0, words)


def interrupted() -> Ending:
    """A trainer that was told to go and saved."""
    at = datetime.now(UTC)
    saved = CheckpointRef(step=50, path="checkpoints/checkpoint-50", digest="sha256:" + "c" * 64, saved_at=at)
    words = LastWords(
        outcome=Outcome.STOPPED, reason="Signal", step=50, total_steps=STEPS, checkpoint=saved, ended_at=at
    )
    return Ending(75, words)


def evaluated(manifest_digest: str, quality: float = 0.9) -> Ending:
    """An evaluation with its evidence."""
    summary = EvaluationSummary(
        metrics=[
            Metric(
                name="quality", value=quality, lower=quality - 0.02, upper=quality + 0.02, confidence=0.95, samples=500
            )
        ],
        model_digest=MODEL,
        manifest_digest=manifest_digest,
        suite_digest="sha256:" + "5" * 64,
        dataset_digest="sha256:" + "d" * 64,
        evaluated_at=datetime.now(UTC),
        evidence_path="evaluation/evidence.json",
        evidence_digest=EVIDENCE,
    )
    return Ending(0, LastWords(outcome=Outcome.COMPLETED, reason="Completed", evaluation=summary))


@dataclass
class Pod:
    """Everything that was seen of one pod: its newest object, and when it was seen DELETED."""

    body: Body
    deleted: bool = False
    told: bool = False

    @property
    def role(self) -> str:
        return str(self.body["metadata"]["labels"][LABEL_ROLE])

    @property
    def attempt(self) -> int:
        return int(self.body["metadata"]["labels"][LABEL_ATTEMPT])

    @property
    def run(self) -> str:
        return str(self.body["metadata"]["labels"][LABEL_RUN])

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def bound_at(self) -> datetime | None:
        """When the API server bound it."""
        for condition in self.body["status"].get("conditions", []):
            if (condition["type"], condition["status"]) == ("PodScheduled", "True"):
                return datetime.fromisoformat(condition["lastTransitionTime"])
        return None

    @property
    def ended_at(self) -> datetime | None:
        """When its container ended."""
        for status in self.body["status"].get("containerStatuses", []):
            if ended := status.get("state", {}).get("terminated"):
                return datetime.fromisoformat(ended["finishedAt"])
        return None

    @property
    def lives(self) -> bool:
        """Its process may run."""
        return not self.deleted and self.body["status"].get("phase") == "Running" and self.ended_at is None

    def micro_usd(self, per_hour: int) -> int | None:
        """Node time x price, rounded up to a micro-USD; None while it has a node and no end was seen."""
        if self.bound_at is None:
            return 0
        if self.ended_at is None:
            return None
        return -(-per_hour * max(int((self.ended_at - self.bound_at).total_seconds()), 0) // 3600)


Script = Callable[[Pod], Ending | None]


@dataclass
class Witness:
    """Watches one namespace until `close`. `script`: how a running pod ends; None: it runs on."""

    cluster: Cluster
    namespace: str
    script: Script
    pods: dict[str, Pod] = field(default_factory=dict)
    jobs: dict[str, Body] = field(default_factory=dict)
    most_gangs: int = 0
    """The most training attempts of one run that ever had a living pod at a time."""
    problems: list[str] = field(default_factory=list)
    pod_ip: str = ""
    """Address that every running pod is given, so that its metrics can be scraped there; empty: what kwok gave."""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._follow, args=(path, take), daemon=True)
            for path, take in (
                (f"/api/v1/namespaces/{self.namespace}/pods", self._take_pod),
                (f"/apis/batch/v1/namespaces/{self.namespace}/jobs", self._take_job),
            )
        ]
        self._threads.append(threading.Thread(target=self._play, daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the watches."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def of(self, run: str, role: str | None = None, attempt: int | None = None) -> list[Pod]:
        """The pods that a run ever had."""
        with self._lock:
            return [
                pod
                for pod in self.pods.values()
                if pod.run == run and role in (None, pod.role) and attempt in (None, pod.attempt)
            ]

    def living(self, run: str, role: str = "train", attempt: int | None = None) -> list[Pod]:
        """Those that run now."""
        return [pod for pod in self.of(run, role, attempt) if pod.lives]

    def jobs_of(self, run: str) -> dict[tuple[str, int], list[str]]:
        """(role, attempt) -> uids of all Jobs that ever were there for it."""
        found: dict[tuple[str, int], list[str]] = {}
        with self._lock:
            for uid, job in self.jobs.items():
                labels = job["metadata"]["labels"]
                if labels[LABEL_RUN] == run:
                    found.setdefault((labels[LABEL_ROLE], int(labels[LABEL_ATTEMPT])), []).append(uid)
        return found

    def micro_usd(self, run: str, per_hour: int) -> int | None:
        """What all pods of the run cost; None when the end of one was never seen."""
        amounts = [pod.micro_usd(per_hour) for pod in self.of(run)]
        return None if None in amounts else sum(a for a in amounts if a is not None)

    def _take_pod(self, body: Body, deleted: bool) -> None:
        if LABEL_RUN not in body["metadata"].get("labels", {}):
            return
        with self._lock:
            pod = self.pods.setdefault(body["metadata"]["uid"], Pod(body))
            pod.body, pod.deleted = body, pod.deleted or deleted
            runs: dict[str, set[int]] = {}
            for other in self.pods.values():
                if other.lives and other.role == "train":
                    runs.setdefault(other.run, set()).add(other.attempt)
            self.most_gangs = max([self.most_gangs, *(len(attempts) for attempts in runs.values())])

    def _take_job(self, body: Body, deleted: bool) -> None:
        if LABEL_RUN in body["metadata"].get("labels", {}):
            with self._lock:
                self.jobs[body["metadata"]["uid"]] = body

    def _play(self) -> None:
        """Tells running pods how they end, and where their metrics are."""
        while not self._stop.wait(0.05):
            with self._lock:
                running = [pod for pod in self.pods.values() if pod.lives]
            for pod in running:
                try:
                    self._direct(pod)
                except (OSError, ApiError) as error:
                    if not (isinstance(error, ApiError) and error.status == 404):
                        self.problems.append(str(error))

    def _direct(self, pod: Pod) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod.name}"
        if self.pod_ip and pod.body["status"].get("podIP") != self.pod_ip:
            self.cluster.api.merge(
                f"{path}/status", {"status": {"podIP": self.pod_ip, "podIPs": [{"ip": self.pod_ip}]}}
            )
        notes = pod.body["metadata"]["annotations"]
        if STOP_EXIT not in notes and not pod.told:
            self.cluster.api.merge(path, {"metadata": {"annotations": _stop_notes()}})
            pod.told = True
        if EXIT not in notes and (ending := self.script(pod)) is not None:
            said = {EXIT: str(ending.code), MESSAGE: ending.message}
            self.cluster.api.merge(path, {"metadata": {"annotations": said}})

    def _follow(self, path: str, take: Callable[[Body, bool], None]) -> None:
        while not self._stop.is_set():
            try:
                listed = self.cluster.api.get(path)
                for item in listed["items"]:
                    take(item, False)
                version = listed["metadata"]["resourceVersion"]
                for event in self._events(path, version):
                    if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                        take(event["object"], event["type"] == "DELETED")
            except (OSError, ApiError, http.client.HTTPException, ValueError):
                time.sleep(0.2)  # the API server was stopped by the test; a new listing follows

    def _events(self, path: str, version: str) -> Iterator[Body]:
        address = urlsplit(self.cluster.server)
        pki = self.cluster.state / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        connection = http.client.HTTPSConnection(
            address.hostname or "", address.port or 443, context=context, timeout=2
        )
        query = urlencode({"watch": "true", "resourceVersion": version, "timeoutSeconds": 600})
        try:
            connection.request("GET", f"{path}?{query}")
            answer = connection.getresponse()
            buffer = b""
            while not self._stop.is_set():
                try:
                    chunk = answer.read1(65536)
                except TimeoutError:
                    return  # quiet for two seconds: list again, so that nothing is ever missed for long
                if not chunk:
                    return
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    yield json.loads(line)
        finally:
            connection.close()


def _stop_notes() -> dict[str, str]:
    ending = interrupted()
    return {STOP_EXIT: str(ending.code), STOP_MESSAGE: ending.message}
