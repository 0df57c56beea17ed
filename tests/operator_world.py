"""A small world for the operator's brain: a Job controller, kubelets, trainers and a volume, by whole seconds.

A Job of backoffLimit 0 ends with its first lost pod, pods answer SIGTERM a second later. What the world itself knows
(who wrote to the volume, how long each pod had a node) is the truth that the operator's status is held against.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from operator_api_server import ApiServer, Body, Crash, CrashedError, stamp
from tollgate.contract import LABEL_ATTEMPT, LABEL_ROLE, Env

INDEX = "batch.kubernetes.io/job-completion-index"
OVER = ("Succeeded", "Failed")

__all__ = ["Crash", "CrashedError", "World"]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


@dataclass
class Volume:
    """The output folder: the newest committed step, who may write, and who did."""

    committed: int = 0
    lease: int = 0
    finished: bool = False
    commits: list[tuple[int, int]] = field(default_factory=list)  # (attempt, step)


@dataclass
class World(ApiServer):
    """Everything outside of the operator."""

    total_steps: int = 20
    commit_every: int = 5
    schedule_after: int = 1
    volume: Volume = field(default_factory=Volume)
    truth: dict[str, tuple[datetime, datetime | None]] = field(default_factory=dict)
    cut_off: set[str] = field(default_factory=set)  # nodes that nobody reaches; their processes go on
    endings: dict[tuple[str, int, int], Body] = field(default_factory=dict)

    # --- controllers --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One second: Jobs make pods and end, pods get nodes, run, commit, stop and fail."""
        self.now += timedelta(seconds=1)
        for name, _ in list(self.of("pods")):
            self._pod(name)
        for name, _ in list(self.of("jobs")):
            self._job(name)

    def pods_of(self, job: Body) -> list[tuple[str, Body]]:
        uid = job["metadata"]["uid"]
        return [(n, b) for n, b in self.of("pods") if b["metadata"]["ownerReferences"][0]["uid"] == uid]

    def _job(self, name: str) -> None:
        job = self.objects[name]
        status = job.get("status", {})
        held = {c["type"] for c in status.get("conditions", [])}
        if "deletionTimestamp" in job["metadata"]:
            self._job_deleted(name)
        elif held & {"Failed", "Complete"}:
            return
        elif job["spec"].get("suspend"):
            self._job_suspended(name)
        elif "startTime" not in status:
            self.change(name, {"status": {"startTime": stamp(self.now)}})
        elif not status.get("made"):
            self._make_pods(name, job)
        elif not held:
            self._judge(name, job, self.pods_of(job))
        elif "FailureTarget" in held:
            self._job_failing(name)
        else:
            self._condition(name, "Complete", "CompletionsReached", "")

    def _job_deleted(self, name: str) -> None:
        for pod, body in self.pods_of(self.objects[name]):
            if body["status"]["phase"] in OVER:
                self.remove(pod)
            else:
                self.mark_deleted(pod)
        if not self.pods_of(self.objects[name]):
            self.remove(name)

    def _job_suspended(self, name: str) -> None:
        for pod, _ in self.pods_of(self.objects[name]):
            self.mark_deleted(pod)
        if "startTime" in self.objects[name].get("status", {}):
            self.change(name, {"status": {"startTime": None, "made": None}})

    def _job_failing(self, name: str) -> None:
        pods = self.pods_of(self.objects[name])
        for pod, body in pods:
            if body["status"]["phase"] not in OVER:
                self.mark_deleted(pod)
        if all(body["status"]["phase"] in OVER for _, body in pods):
            first = self.objects[name]["status"]["conditions"][0]
            self._condition(name, "Failed", first["reason"], first["message"])

    def _make_pods(self, name: str, job: Body) -> None:
        template = job["spec"]["template"]
        for index in range(job["spec"]["completions"]):
            pod = copy.deepcopy(template)
            pod["metadata"] |= {
                "name": f"{job['metadata']['name']}-{index}-x{self._uids}",
                "namespace": job["metadata"]["namespace"],
                "labels": {**template["metadata"]["labels"], INDEX: str(index)},
                "ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"], "controller": True}],
            }
            pod["status"] = {"phase": "Pending"}
            path = f"/api/v1/namespaces/{job['metadata']['namespace']}/pods/{pod['metadata']['name']}"
            self.put(path, pod, new=True)
        self.change(name, {"status": {"made": True, "active": job["spec"]["completions"]}})

    def _judge(self, name: str, job: Body, pods: Sequence[tuple[str, Body]]) -> None:
        status, spec = job["status"], job["spec"]
        phases = [body["status"]["phase"] for _, body in pods]
        limit = spec.get("activeDeadlineSeconds")
        for pod, body in pods:
            if body["status"]["phase"] == "Failed" and "deletionTimestamp" in body["metadata"]:
                phases.append("Failed")
            if body["status"]["phase"] == "Failed":
                code = body["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
                if any(c["type"] == "DisruptionTarget" for c in body["status"].get("conditions", [])):
                    text = (
                        f"Pod research/{body['metadata']['name']} has condition DisruptionTarget matching FailJob rule"
                    )
                    return self._failing(name, "PodFailurePolicy", text)
                if code in (64, 75):
                    who = f"Container trainer for pod research/{pod.rsplit('/', 1)[1]}"
                    text = f"{who} failed with exit code {code} matching FailJob rule"
                    return self._failing(name, "PodFailurePolicy", text)
        if len(pods) < spec["completions"] or "Failed" in phases:
            return self._failing(name, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        if all(phase == "Succeeded" for phase in phases):
            return self._condition(name, "SuccessCriteriaMet", "CompletionsReached", "")
        if limit is not None and self.now >= instant(status["startTime"]) + timedelta(seconds=limit):
            return self._failing(name, "DeadlineExceeded", "Job was active longer than specified deadline")
        return None

    def _failing(self, name: str, reason: str, message: str) -> None:
        self._condition(name, "FailureTarget", reason, message)

    def _condition(self, name: str, kind: str, reason: str, message: str) -> None:
        job = self.objects[name]
        one = {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": stamp(self.now),
        }
        ended = [b["status"]["phase"] for _, b in self.pods_of(job)]
        missing = job["spec"]["completions"] - len(ended)
        counts = {"succeeded": ended.count("Succeeded"), "failed": ended.count("Failed") + missing, "active": 0}
        conditions = [*job["status"].get("conditions", []), one]
        self.change(name, {"status": {"conditions": conditions, **(counts if kind in ("Failed", "Complete") else {})}})

    # --- nodes and trainers -------------------------------------------------------------------------------------------

    def _pod(self, name: str) -> None:
        pod = self.objects[name]
        status, meta, spec = pod["status"], pod["metadata"], pod["spec"]
        leaving = "deletionTimestamp" in meta
        if spec.get("nodeName") in self.cut_off:
            return
        if status["phase"] in OVER:
            if leaving:
                self.remove(name)
            return
        if not spec.get("nodeName"):
            if leaving:
                self.remove(name)
            elif self.now >= instant(meta["creationTimestamp"]) + timedelta(seconds=self.schedule_after):
                bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(self.now)}
                self.change(
                    name, {"spec": {"nodeName": f"node-{meta['labels'][INDEX]}"}, "status": {"conditions": [bound]}}
                )
                self.truth[meta["uid"]] = (self.now, None)
            return
        if status["phase"] == "Pending":
            self.change(
                name,
                {
                    "status": {
                        "phase": "Running",
                        "podIP": "10.0.0.1",
                        "containerStatuses": [
                            {"name": "trainer", "state": {"running": {"startedAt": stamp(self.now)}}}
                        ],
                    }
                },
            )
            self._take_lease(pod)
            return
        self._run(name, pod, leaving)

    def _take_lease(self, pod: Body) -> None:
        if pod["metadata"]["labels"][LABEL_ROLE] == "train":
            self.volume.lease = max(self.volume.lease, int(pod["metadata"]["labels"][LABEL_ATTEMPT]))

    def _run(self, name: str, pod: Body, leaving: bool) -> None:
        labels = pod["metadata"]["labels"]
        attempt, role, index = int(labels[LABEL_ATTEMPT]), labels[LABEL_ROLE], int(labels[INDEX])
        env = {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0]["env"]}
        scripted = self.endings.get((role, attempt, index))
        started = instant(pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"])
        seconds = int((self.now - started).total_seconds())
        peers = [
            b for n, b in self.of("pods") if b["metadata"]["ownerReferences"] == pod["metadata"]["ownerReferences"]
        ]
        gang = [b for b in peers if b["status"]["phase"] in ("Running", "Succeeded")]
        whole = len(gang) == 1 + max(int(b["metadata"]["labels"][INDEX]) for b in peers)
        after = env.get(Env.STOP_AFTER_SECONDS)
        if scripted is not None and seconds >= scripted["after"] and not leaving:
            return self._end(name, pod, scripted["code"], scripted.get("words"), scripted.get("reason"))
        if role == "evaluate":
            if leaving:
                return self._end(name, pod, 75, {"outcome": "stopped", "reason": "Signal"})
            return self._end(name, pod, 0, self.evaluated()) if seconds >= 3 else None
        resumed = pod.setdefault("x-resumed", self.volume.committed)
        step = min(self.total_steps, resumed + seconds) if not self.volume.finished else self.total_steps
        if leaving or (after is not None and seconds + 1 >= int(after) - int(env[Env.GRACE_SECONDS])):
            reason = "Signal" if leaving else env[Env.STOP_REASON]
            if index == 0:
                self._commit(attempt, step)
            return self._end(name, pod, 75, self._words("stopped", reason, step, attempt))
        if not whole:
            return None
        if index == 0 and step % self.commit_every == 0:
            self._commit(attempt, step)
        if step >= self.total_steps:
            if index == 0:
                self._commit(attempt, step)
                self.volume.finished = self.volume.lease == attempt or self.volume.finished
            return self._end(name, pod, 0, self._words("completed", "Completed", step, attempt))
        return None

    def _commit(self, attempt: int, step: int) -> None:
        if attempt == self.volume.lease and step > self.volume.committed:  # the fence
            self.volume.committed = step
            self.volume.commits.append((attempt, step))

    def _words(self, outcome: str, reason: str, step: int, attempt: int) -> Body:
        saved = {
            "step": self.volume.committed,
            "path": f"checkpoints/checkpoint-{self.volume.committed}",
            "digest": "sha256:" + "c" * 64,
            "savedAt": stamp(self.now),
        }
        words: Body = {
            "outcome": outcome,
            "reason": reason,
            "step": step,
            "totalSteps": self.total_steps,
            "attempt": attempt,
        }
        if self.volume.committed:
            words["checkpoint"] = saved
        if outcome == "completed":
            words["model"] = {"path": "model", "digest": "sha256:" + "a" * 64}
        return words

    def evaluated(self) -> Body:
        quality = {"name": "quality", "value": 0.9, "lower": 0.88, "upper": 0.92, "confidence": 0.95, "samples": 500}
        return {
            "outcome": "completed",
            "reason": "Completed",
            "evaluation": {
                "metrics": [quality],
                "modelDigest": "sha256:" + "a" * 64,
                "manifestDigest": self.manifest_digest(),
                "suiteDigest": "sha256:" + "5" * 64,
                "datasetDigest": "sha256:" + "d" * 64,
                "evaluatedAt": stamp(self.now),
                "evidencePath": "evaluation/evidence.json",
                "evidenceDigest": "sha256:" + "e" * 64,
            },
        }

    def manifest_digest(self) -> str:
        run = next(body for _, body in self.of("trainingruns"))
        return str(run["status"]["manifestDigest"])

    def _end(self, name: str, pod: Body, code: int, words: Body | None, reason: str | None = None) -> None:
        began = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        ended: Body = {"exitCode": code, "startedAt": began, "finishedAt": stamp(self.now), "reason": reason or "Error"}
        if words is not None:
            ended["message"] = json.dumps({"schema": 1, **words})
        self.change(
            name,
            {
                "status": {
                    "phase": "Succeeded" if code == 0 else "Failed",
                    "containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}],
                },
                "metadata": {"managedFields": [{"subresource": "status", "time": stamp(self.now)}]},
            },
        )
        uid = pod["metadata"]["uid"]
        self.truth[uid] = (self.truth[uid][0], self.now)

    # --- what people and nodes do -------------------------------------------------------------------------------------

    def alive(self) -> list[Body]:
        """Pods whose processes run."""
        return [b for _, b in self.of("pods") if b["status"]["phase"] == "Running"]

    def kill_now(self, name: str) -> None:
        """Deleted with grace 0: gone at once, without words."""
        pod = self.objects[name]
        uid = pod["metadata"]["uid"]
        if uid in self.truth and self.truth[uid][1] is None:
            self.truth[uid] = (self.truth[uid][0], self.now)
        self.remove(name)

    def cut(self, node: str) -> None:
        """The node does not answer any more; its pods are told to go and cannot hear it."""
        self.cut_off.add(node)
        ready = {"type": "Ready", "status": "Unknown", "lastTransitionTime": stamp(self.now)}
        self.put(f"/api/v1/nodes/{node}", {"metadata": {"name": node}, "status": {"conditions": [ready]}}, new=True)
        for name, pod in list(self.of("pods")):
            if pod["spec"].get("nodeName") == node:
                self.mark_deleted(name)

    def evict(self, name: str) -> None:
        target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicted"}
        conditions = [
            *self.objects[name]["status"].get("conditions", []),
            {**target, "lastTransitionTime": stamp(self.now)},
        ]
        self.change(name, {"status": {"conditions": conditions}})
        self.mark_deleted(name)

    def spent(self, per_hour: int) -> int:
        """Micro-USD that the pods truly cost until now."""
        total = 0
        for start, end in self.truth.values():
            micro = int(((end or self.now) - start).total_seconds()) * per_hour
            total += -(-micro // 3600)
        return total
