"""A credential that the trainer gets from a Secret stays there: in nothing that a person or a program reads later."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import runs
from runs import NAMESPACE, Tollgate, attempts, phase

from tollgate.contract import API_VERSION

pytestmark = pytest.mark.e2e

KINDS = (
    f"apis/{API_VERSION}/namespaces/{NAMESPACE}/trainingruns",
    f"apis/batch/v1/namespaces/{NAMESPACE}/jobs",
    f"apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events",
    f"api/v1/namespaces/{NAMESPACE}/pods",
    f"api/v1/namespaces/{NAMESPACE}/configmaps",
)


@dataclass(frozen=True, slots=True)
class Canary:
    """A secret value, and every place where it may not be."""

    value: str
    tollgate: Tollgate

    def found(self) -> list[str]:
        """Where it is all the same."""
        return [where for where, text in self.places() if any(form in text for form in self.forms())]

    def forms(self) -> tuple[bytes, bytes]:
        """The value as it is, and as a Secret holds it."""
        return self.value.encode(), base64.b64encode(self.value.encode())

    def places(self) -> Iterator[tuple[str, bytes]]:
        """Each place and what it holds: objects with their status, logs, and every file on the volume."""
        api = self.tollgate.cluster.api
        for kind in KINDS:
            for item in api.get(f"/{kind}")["items"]:
                yield f"{kind} {item['metadata']['name']}", str(item).encode()
        for pod in api.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]:
            yield f"log of {pod['metadata']['name']}", self.tollgate.log(pod).encode()
        yield "log of the operator", self.tollgate.operator_log().encode()
        for path in self.files():
            yield str(path), path.read_bytes()

    def files(self) -> list[Path]:
        """Everything that runs left on the volume."""
        return [path for path in self.tollgate.installed.volumes.models.rglob("*") if path.is_file()]


@pytest.fixture
def canary(tollgate: Tollgate) -> Canary:
    """Two Secrets: a plain one, and one that also makes torch fail with the value in its exception."""
    value = f"canary-{uuid.uuid4().hex}"
    plain = {"S3_SECRET_KEY": value}
    for name, data in (("canary", plain), ("canary-torch", {**plain, "TORCH_LOGS": value})):
        tollgate.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
    return Canary(value, tollgate)


def storage(name: str, secret: str) -> dict[str, object]:
    return {
        "dataset": {"claimName": "datasets"},
        "output": {"claimName": "models", "path": name},
        "credentialsSecret": {"name": secret},
    }


def test_a_secret_is_in_no_status_event_log_file_or_report(tollgate: Tollgate, canary: Canary) -> None:
    good, bad = "secret-good", "secret-bad"
    tollgate.apply(
        runs.run(good, steps=10, storage=storage(good, "canary"), evaluation={"profile": "e2e", "timeout": "5m"}),
        runs.run(bad, steps=10, storage=storage(bad, "canary-torch"), restart={"maxFailures": 0}),
    )
    failed = tollgate.wait_for_phase(bad, "Failed", "Succeeded", "Stopped")
    done = tollgate.wait_for_phase(good, "Failed", "Succeeded", "Stopped", seconds=300)
    assert (phase(failed), phase(done)) == ("Failed", "Succeeded")

    # The secret was there to be told: torch's own words came through, and quoted it.
    assert "ValueError" in attempts(failed)[0]["failure"]["message"]
    assert any(where.startswith("log of secret-bad") and b"[hidden]" in text for where, text in canary.places())
    assert all("secretRef" in str(pod["spec"]) for name in (good, bad) for pod in tollgate.pods(name))
    # And everything is there where it could have been told.
    names = {path.relative_to(tollgate.output(good)).as_posix() for path in canary.files() if good in path.parts}
    assert {"report/index.html", "evaluation/evidence.json", "result.json", "logs/events.jsonl"} <= names

    assert canary.found() == []
