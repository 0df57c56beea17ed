"""Runs on the real node: an installation, tiny runs whose length a test chooses, and what a person would look at.

Money is in USD as `Decimal`; a profile of these tests costs 60 USD an hour, so that a second is a sixtieth of a dollar
and a cap of 1 USD is a minute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

import trainer_fixtures
from tollgate.contract import API_VERSION, LABEL_ATTEMPT, LABEL_ROLE, LABEL_RUN, LastWords
from tollgate_local.cluster import Cluster
from tollgate_local.demo.__main__ import make_data
from tollgate_local.demo.install import SYSTEM, Installed, install
from tollgate_local.demo.volumes import TRAINER_ID
from tollgate_local.progress import Say
from tollgate_local.testing import eventually

CHECKOUT = Path(__file__).resolve().parents[2]
NAMESPACE = "e2e"
PER_HOUR = Decimal(60)
GOING = ("Pending", "Queued", "Starting", "Running", "Stopping", "Evaluating")

Run = dict[str, Any]

TINY_LLAMA = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def profile(name: str, image: str, **spec: Any) -> dict[str, Any]:
    """A CPU ComputeProfile at 60 USD an hour."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ComputeProfile",
        "metadata": {"name": name},
        "spec": {
            "image": image,
            "cpu": "700m",
            "memory": "2Gi",
            "pricePerNodeHourUSD": str(PER_HOUR),
            "environment": {"claimName": "environment"},
            **spec,
        },
    }


def run(name: str, *, steps: int, batch: int = 16, save_steps: int = 5, nodes: int = 1, **spec: Any) -> Run:
    """A TrainingRun of a tiny Llama on the tiny dataset, without evaluation, on the profile `e2e`.

    `steps` x `batch` set its length: a step of 16 x 64 tokens takes some tens of milliseconds. `spec` replaces whole
    fields of the spec; `manifest` in it is merged into the manifest section by section.
    """
    changes = spec.pop("manifest", {})
    manifest: dict[str, Any] = {
        "name": name,
        "dataset": {"path": "tiny/data.json"},
        "model": {"config": dict(TINY_LLAMA)},
        "hyperparameters": {
            "max_steps": steps,
            "learning_rate": 0.003,
            "per_device_train_batch_size": batch,
            "max_seq_length": 64,
            "save_steps": save_steps,
            "logging_steps": 1,
        },
        "reproducibility": {"seed": 11},
    }
    for key, value in changes.items():
        merged = isinstance(value, dict) and isinstance(manifest.get(key), dict)
        manifest[key] = manifest[key] | value if merged else value
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {"name": name},
        "spec": {
            "manifest": manifest,
            "compute": {"profile": "e2e", "nodes": nodes},
            "storage": {"dataset": {"claimName": "datasets"}, "output": {"claimName": "models", "path": name}},
            "limits": {"maxCostUSD": "100"},
            "evaluation": {"enabled": False},
            **spec,
        },
    }


@dataclass(frozen=True, slots=True)
class Tollgate:
    """Tollgate installed on the node by its chart, with volumes that the test can look into."""

    cluster: Cluster
    installed: Installed

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """`kubectl apply --server-side`. Raises: DemoError with the API server's words."""
        self.installed.kubectl.apply(yaml.safe_dump_all(documents))

    def patch(self, name: str, spec: Mapping[str, Any]) -> None:
        """`kubectl patch trainingrun NAME --type merge` of its spec."""
        body = json.dumps({"spec": spec})
        self.installed.kubectl.run("patch", "trainingrun", name, "--type", "merge", "-p", body)

    def delete(self, name: str) -> None:
        """Deletes the run and waits until it and its pods are gone."""
        self.installed.kubectl.run("delete", "trainingrun", name, "--ignore-not-found", "--wait")
        eventually(lambda: not self.pods(name), 90, f"the pods of {name} are gone")

    def get(self, name: str) -> Run:
        """The run as the API server has it."""
        found: Run = self.cluster.api.get(f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/trainingruns/{name}")
        return found

    def wait_for(self, name: str, what: str, condition: Callable[[Run], Any], seconds: float = 180) -> Run:
        """The run once `condition` holds for what the operator said of this generation of its spec.

        Raises: AssertionError after `seconds`, with the status, the pods' logs and the operator's.
        """
        seen: Run = {}

        def holds() -> bool:
            seen.clear()
            seen.update(self.get(name))
            status = seen.get("status", {})
            return status.get("observedGeneration") == seen["metadata"]["generation"] and bool(condition(seen))

        try:
            eventually(holds, seconds, f"{name}: {what}")
        except AssertionError as error:
            status = json.dumps(seen.get("status"), indent=1)
            logs = "\n".join(f"--- {p['metadata']['name']}\n{self.log(p)[-2000:]}" for p in self.pods(name))
            raise AssertionError(f"{error}\n{status}\n{logs}\n--- operator\n{self.operator_log()[-4000:]}") from error
        return dict(seen)

    def wait_for_phase(self, name: str, *phases: str, seconds: float = 180) -> Run:
        """The run once its phase is one of these."""
        return self.wait_for(name, f"phase {' or '.join(phases)}", lambda r: phase(r) in phases, seconds)

    def pods(self, name: str, attempt: int | None = None, role: str = "train") -> list[dict[str, Any]]:
        """The run's pods, by completion index."""
        selector = f"{LABEL_RUN}={name},{LABEL_ROLE}={role}" + (f",{LABEL_ATTEMPT}={attempt}" if attempt else "")
        found = self.cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={selector}")["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def log(self, pod: Mapping[str, Any]) -> str:
        """What a pod wrote, or why it cannot be read any more."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}/log"
        return str(self.cluster.api.call("GET", path)[1])

    def output(self, name: str) -> Path:
        """The run's output folder, on this machine."""
        return self.installed.volumes.models / name

    def events(self, name: str, kind: str | None = None) -> list[dict[str, Any]]:
        """What the trainer noted in logs/events.jsonl, of one kind or all."""
        path = self.output(name) / "logs/events.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        every = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in every if kind is None or event["event"] == kind]

    def checkpoints(self, name: str) -> list[int]:
        """Steps of the committed checkpoints on the volume."""
        return sorted(
            int(path.parent.name.rpartition("-")[2])
            for path in (self.output(name) / "checkpoints").glob("checkpoint-*/COMMIT.json")
        )

    def wait_for_checkpoint(self, name: str, seconds: float = 180) -> int:
        """The step of the newest checkpoint, once there is one. Raises: AssertionError when the run ended before."""

        def newest() -> int:
            ended = phase(self.get(name))
            assert ended in GOING, f"{name} is {ended} before it saved a checkpoint"
            return max(self.checkpoints(name), default=0)

        return eventually(newest, seconds, f"a checkpoint of {name}")

    def last_words(self, name: str, attempt: int, node: int = 0) -> LastWords:
        """The outcome that a node's local rank 0 left."""
        path = self.output(name) / f"outcomes/attempt-{attempt}/node-{node}.json"
        found = LastWords.parse(path.read_text(encoding="utf-8"))
        assert found is not None, path.read_text(encoding="utf-8")
        return found

    def operator_log(self) -> str:
        """What the operator's pods wrote."""
        arguments = ("logs", "deployment/tollgate", "--all-pods", "--tail=-1")
        return self.cluster.kubectl("-n", SYSTEM, *arguments, check=False).stdout

    def operator_pods(self) -> list[str]:
        """Names of the operator's pods that exist."""
        found = self.cluster.api.get(f"/api/v1/namespaces/{SYSTEM}/pods")["items"]
        return [str(pod["metadata"]["name"]) for pod in found]

    @contextmanager
    def operator_away(self) -> Iterator[None]:
        """No operator in the cluster, until the block is left; then it is back and ready."""
        self.cluster.kubectl("-n", SYSTEM, "scale", "deployment/tollgate", "--replicas=0")
        try:
            eventually(lambda: not self.operator_pods(), 90, "the operator is gone")
            yield
        finally:
            self.cluster.kubectl("-n", SYSTEM, "scale", "deployment/tollgate", "--replicas=1")
            self.cluster.kubectl(
                "-n", SYSTEM, "rollout", "status", "deployment/tollgate", "--timeout=120s", timeout=150
            )


def install_for_tests(cluster: Cluster, folder: Path, say: Say) -> Tollgate:
    """The chart, volumes with the tiny dataset, the profile `e2e`, in the namespace NAMESPACE (restricted)."""
    make_data(say)
    installed = install(cluster, CHECKOUT, folder, NAMESPACE, say)
    tiny = installed.volumes.datasets / "tiny"
    tiny.mkdir(mode=0o755)
    trainer_fixtures.write_conversations(tiny / "data.json").chmod(0o644)
    os.chown(tiny, TRAINER_ID, TRAINER_ID)
    tollgate = Tollgate(cluster, installed)
    tollgate.apply(profile("e2e", installed.trainer))
    return tollgate


def phase(run: Mapping[str, Any]) -> str:
    """status.phase, Pending while there is none."""
    return str(run.get("status", {}).get("phase", "Pending"))


def spent(run: Mapping[str, Any]) -> Decimal:
    """status.cost.spentUSD."""
    return Decimal(run["status"]["cost"]["spentUSD"])


def attempts(run: Mapping[str, Any], role: str = "train") -> list[dict[str, Any]]:
    """status.attempts of one role, oldest first."""
    return [a for a in run["status"].get("attempts", []) if a.get("role", "train") == role]


def moment(text: str) -> datetime:
    """A Kubernetes time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
