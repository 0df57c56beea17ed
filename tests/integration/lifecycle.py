"""One run's whole life on the loopback cluster: an operator behind a proxy, trainers that end as they are told."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import installed
import yaml
from proxy import Proxy
from witness import Ending, Pod, Witness, evaluated, trained

from tollgate.api.quantities import parse_usd
from tollgate.contract import API_VERSION, LABEL_PROMOTE_TO
from tollgate_local.cluster import Cluster
from tollgate_local.testing import eventually, make_namespace

Body = dict[str, Any]
PRICE = 36_000_000
"""Micro-USD per node hour: one cent a second."""
QUICK = ("--lease-duration=6", "--lease-deadline=4", "--lease-retry=1", "--scrape=1", "--log-level=INFO")
PROFILE = "crash-cpu"
_numbers = itertools.count(1)


def prepare(cluster: Cluster) -> None:
    """What the platform's admin does once: the profile."""
    spec = {"image": "trainer.test/image:1", "pricePerNodeHourUSD": "36", "cpu": "10m", "memory": "16Mi"}
    document = {"apiVersion": API_VERSION, "kind": "ComputeProfile", "metadata": {"name": PROFILE}, "spec": spec}
    cluster.api.apply(f"/apis/{API_VERSION}/computeprofiles/{PROFILE}", document)


def new_namespace(cluster: Cluster) -> str:
    """A restricted namespace with bound claims, a policy, and the Lease's rights that the chart gives in its own."""
    name = make_namespace(cluster.api, f"life-{next(_numbers)}-{int(time.time()) % 100000}")
    for claim in ("datasets", "models"):
        common = {"accessModes": ["ReadWriteMany"], "storageClassName": "static"}
        volume = f"{name}-{claim}"
        reference = {"namespace": name, "name": claim}
        cluster.api.create(
            "/api/v1/persistentvolumes",
            {
                "metadata": {"name": volume},
                "spec": {
                    **common, "capacity": {"storage": "1Gi"}, "claimRef": reference, "hostPath": {"path": "/nowhere"}
                },
            },
        )  # fmt: skip
        cluster.api.create(
            f"/api/v1/namespaces/{name}/persistentvolumeclaims",
            {
                "metadata": {"name": claim},
                "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
            },
        )
    check = {"metric": "quality", "op": ">=", "threshold": 0.8, "minSamples": 100}
    policy = {
        "apiVersion": API_VERSION,
        "kind": "PromotionPolicy",
        "metadata": {"name": "care"},
        "spec": {"stages": [{"name": "staging", "checks": [check]}]},
    }
    cluster.api.create(f"/apis/{API_VERSION}/namespaces/{name}/promotionpolicies", policy)
    rights = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}"
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["create", "get", "list", "watch", "update"],
    }
    cluster.api.create(f"{rights}/roles", {"metadata": {"name": "lease"}, "rules": [rule]})
    cluster.api.create(
        f"{rights}/rolebindings",
        {
            "metadata": {"name": "lease"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lease"},
            "subjects": [{"kind": "ServiceAccount", "name": installed.ACCOUNT, "namespace": installed.SYSTEM}],
        },
    )
    return name


def remove_namespace(cluster: Cluster, name: str) -> None:
    """Takes it away with its volumes."""
    cluster.api.delete(f"/api/v1/namespaces/{name}")
    for claim in ("datasets", "models"):
        cluster.api.delete(f"/api/v1/persistentvolumes/{name}-{claim}")


def run_document(name: str = "counsel", *, judged: bool = True, **spec: Any) -> Body:
    """A TrainingRun; `judged`: with evaluation, policy and the wish to be promoted."""
    document: Body = {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {"name": name, "labels": {LABEL_PROMOTE_TO: "staging"} if judged else {}},
        "spec": {
            "manifest": {"name": name, "dataset": {"path": "train.jsonl"}, "evaluation": {"enabled": judged}},
            "compute": {"profile": PROFILE, "nodes": 1},
            "storage": {
                "dataset": {"claimName": "datasets", "path": "care/v2"},
                "output": {"claimName": "models", "path": name},
            },
            "limits": {"maxCostUSD": "50"},
            **({"policyRef": {"name": "care"}, "evaluation": {"enabled": True, "timeout": "5m"}} if judged else {}),
            **spec,
        },
    }
    return document


@dataclass
class Life:
    """One namespace with its operator, its proxy and its witness."""

    cluster: Cluster
    namespace: str
    proxy: Proxy
    operator: installed.Process
    witness: Witness
    held: set[tuple[str, int]] = field(default_factory=set)
    """(role, attempt) whose pods go on until `release`."""
    kills: int = 0
    away: bool = False
    """True: a killed operator stays dead until `come_back`; else it is started again at once, as by a Deployment."""
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def runs(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/trainingruns"

    def apply(self, document: Body) -> Body:
        """Creates the run."""
        created: Body = self.cluster.api.create(self.runs, document)
        return created

    def run(self, name: str = "counsel") -> Body:
        found: Body = self.cluster.api.get(f"{self.runs}/{name}")
        return found

    def phase(self, name: str = "counsel") -> str:
        return str(self.run(name).get("status", {}).get("phase", ""))

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 90) -> Any:
        """Waits; what the operator said last is in the error."""
        try:
            return eventually(condition, seconds, what)
        except AssertionError as error:
            log = self.operator.log.read_text()[-3000:] if self.operator.log.exists() else ""
            runs = yaml.safe_dump([r.get("status", {}) for r in self.cluster.api.get(self.runs)["items"]])
            raise AssertionError(f"{error}\n{runs}\n{log}") from error

    def until_phase(self, *phases: str, name: str = "counsel", seconds: float = 90) -> Body:
        self.until(lambda: self.phase(name) in phases, f"{name} is {' or '.join(phases)}", seconds)
        return self.run(name)

    def hold(self, role: str, attempt: int = 1) -> None:
        self.held.add((role, attempt))

    def release(self, role: str, attempt: int = 1) -> None:
        self.held.discard((role, attempt))

    def kill(self) -> None:
        """SIGKILL of the operator, now."""
        self.kills += 1
        self.operator.kill()

    def kill_for_long(self) -> None:
        """SIGKILL, and nobody starts it again before `come_back`."""
        self.away = True
        self.kill()

    def come_back(self) -> None:
        """It is started again."""
        self.away = False

    def patch(self, spec: Body, name: str = "counsel") -> None:
        """kubectl patch of a run's spec."""
        self.cluster.api.merge(f"{self.runs}/{name}", {"spec": spec})

    def supervise(self) -> None:
        """Starts the operator again whenever it is dead, until the life is over."""
        while not self._over.wait(0.1):
            running = self.operator.running
            if not self.away and running is not None and running.poll() is not None:
                self.operator.start()

    def end(self) -> None:
        """No more restarts."""
        self._over.set()

    def ending(self, pod: Pod) -> Ending | None:
        """The usual script: training ends well, an evaluation brings its evidence."""
        if (pod.role, pod.attempt) in self.held:
            return None
        if pod.role == "train":
            return trained()
        digest = self.run(pod.run)["status"].get("manifestDigest")
        return evaluated(str(digest))


@contextmanager
def life(cluster: Cluster, folder: Path, *arguments: str, pod_ip: str = "", start: bool = True) -> Iterator[Life]:
    """A life in a namespace of its own; at the end everything of it is taken down."""
    namespace = new_namespace(cluster)
    proxy = Proxy(cluster)
    folder.mkdir(parents=True, exist_ok=True)
    made = Life(cluster, namespace, proxy, None, None)  # type: ignore[arg-type]
    made.operator = operator(cluster, folder, namespace, proxy.url, *arguments)
    made.witness = Witness(cluster, namespace, made.ending, pod_ip=pod_ip)
    supervisor = threading.Thread(target=made.supervise, daemon=True)
    try:
        if start:
            made.operator.start()
        supervisor.start()
        yield made
    finally:
        made.end()
        supervisor.join(10)
        made.operator.kill()
        made.witness.close()
        proxy.close()
        remove_namespace(cluster, namespace)


def operator(
    cluster: Cluster, folder: Path, namespace: str, server: str, *arguments: str, identity: str = "operator-0"
) -> installed.Process:
    """An operator of one namespace with the chart's ServiceAccount, that reaches the API server at `server`."""
    config = installed.kubeconfig(cluster, folder, installed.token(cluster))
    document = yaml.safe_load(config.read_text())
    document["clusters"][0]["cluster"]["server"] = server
    own = config.rename(folder / f"kubeconfig-{identity}")
    own.write_text(yaml.safe_dump(document))
    flags = (*QUICK, f"--namespace={namespace}", f"--lease-namespace={namespace}", *arguments)
    return installed.Process(folder, own, flags, identity)


# --- what is left at the end ------------------------------------------------------------------------------------------


def end_state(life: Life, name: str = "counsel") -> Body:
    """What a user sees of a run at its end, without times, uids and money."""
    status = life.run(name)["status"]
    policy = life.cluster.api.get(f"/apis/{API_VERSION}/namespaces/{life.namespace}/promotionpolicies/care")
    stages = policy.get("status", {}).get("stages", [])
    projection = installed.there(life.cluster, f"/api/v1/namespaces/{life.namespace}/configmaps/model-care-staging")
    return {
        "phase": status["phase"],
        "conditions": {c["type"]: c["status"] for c in status["conditions"] if c["type"] != "Progressing"},
        "attempts": [
            {
                "role": a["role"],
                "number": a["number"],
                "outcome": a.get("outcome"),
                "stopReason": a.get("stopReason"),
                "failure": (a["failure"]["class"], a["failure"]["reason"]) if "failure" in a else None,
            }
            for a in status["attempts"]
        ],
        "model": status.get("model", {}).get("digest"),
        "evidence": status.get("evaluation", {}).get("evidenceDigest"),
        "gates": [(g["stage"], g["verdict"]) for g in status.get("gates", [])],
        "promoted": [(s["name"], s.get("holder", {}).get("run")) for s in stages],
        "projected": projection["data"]["run"] if projection else None,
    }


def books(life: Life, name: str = "counsel") -> dict[str, int | None]:
    """Micro-USD of a run: as its status says, by attempts, by category, and as its pods' records say."""
    status = life.run(name)["status"]
    cost = status["cost"]
    return {
        "spent": parse_usd(cost["spentUSD"]),
        "attempts": sum(parse_usd(a["costUSD"]) for a in status["attempts"] if "costUSD" in a),
        "categories": sum(parse_usd(v) for v in cost.get("byCategory", {}).values()),
        "pods": life.witness.micro_usd(name, PRICE),
    }


def promoted(life: Life, name: str = "counsel") -> bool:
    """Whether the run is over, promoted and projected."""
    if life.phase(name) != "Succeeded":
        return False
    state = end_state(life, name)
    return state["projected"] == name and (("staging", name) in state["promoted"])
