"""The cap, layer by layer: a run that never ends by itself, and only one of the layers there to end it.

What it costs is measured twice: by the ledger in the run's status, and here, from what a watch saw of its pods. The
second needs nothing of ours but the price.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import runs
from runs import NAMESPACE, PER_HOUR, Tollgate, moment

from tollgate.contract import ANNOTATION_STOP_REASON, LABEL_RUN, LABEL_RUN_UID
from tollgate_local.testing import eventually, restricted_pod

POLL = 5
"""Seconds: the longest delay of a due look of the operator, as promise 1 has it."""
MORE = Decimal("0.75")
"""USD that a run gets for the attempt that is measured: 45 s."""
PER_SECOND = PER_HOUR / 3600
ENDLESS = 1_000_000
ADMISSION = "/apis/admissionregistration.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Layer:
    """Which parts are there to stop a run: the launcher's timer, the kubelet's deadline, the operator."""

    name: str
    run: str
    launcher: bool
    kubelet: bool
    operator: bool

    @property
    def profile(self) -> str:
        """The ComputeProfile that it needs."""
        return "e2e" if self.launcher else "e2e-timer-off"


ALL = Layer("everything up", "cap-all", True, True, True)
LAUNCHER = Layer("launcher alone", "cap-no-deadline-launcher", True, False, False)
OPERATOR = Layer("operator alone", "cap-no-deadline-operator", False, False, True)
KUBELET = Layer("kubelet alone", "cap-kubelet", False, True, False)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run cost and how it was stopped. Money in USD, times in seconds.

    `witnessed`: from the pods' own times; `witnessed_most`: with the moments at which the watch heard of the end, which
    is later than it was. `grace`: SIGTERM to SIGKILL of the attempt.
    """

    layer: Layer
    cap: Decimal
    grace: int
    ledger: Decimal
    witnessed: Decimal
    witnessed_most: Decimal
    run: dict[str, Any]
    pods: tuple[dict[str, Any], ...]
    job: dict[str, Any]
    checkpoint: int

    @property
    def allowed(self) -> Decimal:
        """What promise 1 allows: cap + rate x (poll + grace)."""
        return self.cap + PER_SECOND * (POLL + self.grace)

    @property
    def stopped_by_operator(self) -> bool:
        """Whether the operator asked the last attempt's Job to stop."""
        return ANNOTATION_STOP_REASON in self.job["metadata"].get("annotations", {})

    @property
    def stopped_by_kubelet(self) -> bool:
        """Whether the last attempt's pod met its own deadline."""
        return bool(self.pods[-1]["status"].get("reason") == "DeadlineExceeded")


@dataclass
class Witness:
    """Every state of every pod in the namespace, as a watch of its own heard of it."""

    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[str, datetime] = field(default_factory=dict)

    def hear(self, pod: dict[str, Any]) -> None:
        """One state of a pod; the last state with an end is kept."""
        uid = pod["metadata"]["uid"]
        if finished(pod) is None and uid in self.ended:
            return
        self.pods[uid] = pod
        if finished(pod) is not None:
            self.ended.setdefault(uid, datetime.now(UTC))

    def of(self, run: str) -> tuple[dict[str, Any], ...]:
        """The run's pods, dead or alive."""
        found = [pod for pod in self.pods.values() if pod["metadata"].get("labels", {}).get(LABEL_RUN) == run]
        return tuple(sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"])))

    def over(self, run: str) -> bool:
        """Whether it has pods and all of them ended."""
        pods = self.of(run)
        return bool(pods) and all(finished(pod) is not None for pod in pods)

    def usd(self, run: str, *, most: bool = False) -> Decimal:
        """Node time x price, from binding to the container's end; `most`: to when the end was heard of."""
        seconds = 0.0
        for pod in self.of(run):
            start, end = bound(pod), self.ended[pod["metadata"]["uid"]] if most else finished(pod)
            if start is not None:
                assert end is not None, f"{pod['metadata']['name']} still runs"
                seconds += (end - start).total_seconds()
        return Decimal(str(round(seconds, 3))) * PER_SECOND


@contextmanager
def witness(tollgate: Tollgate) -> Iterator[Witness]:
    """Watches the pods of the namespace until the block is left."""
    heard = Witness()
    kubectl = tollgate.installed.kubectl
    command = [str(kubectl.program), "-n", NAMESPACE, "get", "pods", "-o", "json", "--watch", "--output-watch-events"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)}
    ) as process:

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:  # one event a line
                heard.hear(json.loads(line)["object"])

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield heard
            assert process.poll() is None, "the watch ended by itself, so it may have missed something"
        finally:
            process.terminate()
            reader.join(10)


def bound(pod: dict[str, Any]) -> datetime | None:
    """When the pod got its node; money runs from here."""
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "True":
            return moment(condition["lastTransitionTime"])
    return None


def finished(pod: dict[str, Any]) -> datetime | None:
    """When its container ended."""
    states = [status["state"].get("terminated") for status in pod["status"].get("containerStatuses", [])]
    ends = [moment(state["finishedAt"]) for state in states if state]
    return max(ends) if ends else None


def prepare(tollgate: Tollgate) -> None:
    """A profile whose launchers have no timer, and an admission policy that takes the kubelet's deadline off pods.

    Both layers act at the same second; to see one alone, the other has to be away.
    """
    hook = {"TOLLGATE_TEST_TIMER_OFF": "1"}
    tollgate.apply(runs.profile("e2e-timer-off", tollgate.installed.trainer, env=hook))
    api, name = tollgate.cluster.api, "no-kubelet-deadline"
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ],
        },
        "matchConditions": [
            {
                "name": "asked-for",
                "expression": f"object.metadata.?labels['{LABEL_RUN}'].orValue('').startsWith('cap-no-deadline-') "
                "&& has(object.spec.activeDeadlineSeconds)",
            }
        ],
        "mutations": [
            {
                "patchType": "JSONPatch",
                "jsonPatch": {"expression": '[JSONPatch{op: "remove", path: "/spec/activeDeadlineSeconds"}]'},
            }
        ],
    }
    api.apply(
        f"{ADMISSION}/mutatingadmissionpolicies/{name}",
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": spec,
        },
    )
    api.apply(
        f"{ADMISSION}/mutatingadmissionpolicybindings/{name}",
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name},
        },
    )
    pod = restricted_pod("probe", tollgate.installed.trainer, ["true"], activeDeadlineSeconds=9)
    pod["metadata"]["labels"] = {LABEL_RUN: "cap-no-deadline-probe"}

    def in_force() -> bool:
        made = api.create(f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", pod)
        return "activeDeadlineSeconds" not in made["spec"]

    eventually(in_force, 30, "the policy is in force")


def measure(tollgate: Tollgate, layers: Sequence[Layer], suffix: str = "") -> dict[str, Measured]:
    """Runs these layers' runs side by side until their cap stops them, all with or all without the operator.

    Each is first brought to a checkpoint, however slow this machine is just now, and stopped by lowering its cap to
    what is spent. Then the cap is raised by MORE, and what is measured is how the second attempt ends.
    """
    (there,) = {layer.operator for layer in layers}
    names = {layer.name: layer.run + suffix for layer in layers}
    with witness(tollgate) as heard:
        for layer in layers:
            tollgate.apply(runs.run(names[layer.name], steps=ENDLESS, compute={"profile": layer.profile}))
        for name in names.values():
            tollgate.wait_for_checkpoint(name)
            tollgate.patch(name, {"limits": {"maxCostUSD": "0.1"}})
        lowered = {name: tollgate.wait_for_phase(name, "Stopped", "Failed", "Succeeded") for name in names.values()}
        caps = {name: runs.spent(run) + MORE for name, run in lowered.items()}
        for name, cap in caps.items():
            tollgate.patch(name, {"limits": {"maxCostUSD": str(cap)}})
        for name in names.values():
            eventually(partial(_goes_on, heard, name), 90, f"{name} goes on")
        with nullcontext() if there else tollgate.operator_away():
            for name in names.values():
                eventually(partial(heard.over, name), 240, f"the pods of {name} ended")
        for name in names.values():
            tollgate.wait_for(name, "it is stopped", lambda run: len(ended(run)) == 2)
        return {
            layer.name: _measured(tollgate, layer, names[layer.name], caps[names[layer.name]], heard)
            for layer in layers
        }


def _goes_on(heard: Witness, name: str) -> bool:
    """Whether the second attempt's pod has a node."""
    return len(heard.of(name)) == 2 and bound(heard.of(name)[1]) is not None


def ended(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The attempts that are over, once the run says that it is stopped."""
    over = runs.phase(run) in ("Stopped", "Failed", "Succeeded")
    return [attempt for attempt in runs.attempts(run) if attempt.get("outcome")] if over else []


def _measured(tollgate: Tollgate, layer: Layer, name: str, cap: Decimal, heard: Witness) -> Measured:
    run, pods = tollgate.get(name), heard.of(name)
    for pod in pods:
        assert ("activeDeadlineSeconds" in pod["spec"]) is layer.kubelet, f"{name}: the kubelet was not as asked for"
    path = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs?labelSelector={LABEL_RUN_UID}={run['metadata']['uid']}"
    jobs = tollgate.cluster.api.get(path)["items"]
    return Measured(
        layer=layer,
        cap=cap,
        grace=int(runs.attempts(run)[-1]["graceSeconds"]),
        ledger=runs.spent(run),
        witnessed=heard.usd(name),
        witnessed_most=heard.usd(name, most=True),
        run=run,
        pods=pods,
        job=max(jobs, key=lambda job: str(job["metadata"]["creationTimestamp"])),
        checkpoint=max(tollgate.checkpoints(name), default=0),
    )
