"""The chart on the test cluster, and the operator as a process of its own with the chart's ServiceAccount and rights.

Nothing of the operator is imported here: what the tests see is what a person with kubectl sees.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tollgate_local.api import ApiError
from tollgate_local.cluster import Cluster
from tollgate_local.testing import eventually

CHECKOUT = Path(__file__).parents[2]
CHART = CHECKOUT / "helm/tollgate"
SYSTEM = "tollgate-system"
ACCOUNT = "tollgate"
USER = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/tollgate-operator"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
NOT_APPLIED = ("Deployment", "Service", "ServiceMonitor")  # the operator runs as a process of the test


def rendered(cluster: Cluster, **values: Any) -> list[dict[str, Any]]:
    """What `helm template` makes of the chart."""
    command = [str(cluster.bin("helm")), "template", "tollgate", str(CHART), "--namespace", SYSTEM, "--values", "-"]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def install(cluster: Cluster, **values: Any) -> None:
    """Applies everything of the chart but what needs a kubelet; the namespace too."""
    documents = [d for d in rendered(cluster, **values) if d["kind"] not in NOT_APPLIED]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    text = yaml.safe_dump_all([namespace, *documents])
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    crds = [f"crd/{d['metadata']['name']}" for d in documents if d["kind"] == "CustomResourceDefinition"]
    cluster.kubectl("wait", "--for=condition=Established", *crds, "--timeout=30s")


def remove_admission(cluster: Cluster) -> None:
    """Takes the admission policies off again: the cluster is shared with tests that write status as admin."""
    for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
        for item in cluster.api.get(f"{ADMISSION}/{plural}")["items"]:
            if item["metadata"].get("labels", {}).get("app.kubernetes.io/name") == "tollgate":
                cluster.api.delete(f"{ADMISSION}/{plural}/{item['metadata']['name']}")


def token(cluster: Cluster, account: str = ACCOUNT, bound_to: dict[str, str] | None = None) -> str:
    """A token of a ServiceAccount in the system namespace; `bound_to` a Secret it dies with that Secret."""
    spec: dict[str, Any] = {"audiences": [], "expirationSeconds": 3600}
    if bound_to is not None:
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Secret", **bound_to}
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{account}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer: str = cluster.api.create(path, body)["status"]["token"]
    return answer


def kubeconfig(cluster: Cluster, folder: Path, bearer: str) -> Path:
    """A kubeconfig in which the token lies in a file of its own, as it does in a pod."""
    admin = yaml.safe_load(cluster.kubeconfig.read_text())
    (folder / "token").write_text(bearer)
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": admin["clusters"],
        "users": [{"name": "operator", "user": {"tokenFile": str(folder / "token")}}],
        "contexts": [{"name": "c", "context": {"cluster": admin["clusters"][0]["name"], "user": "operator"}}],
        "current-context": "c",
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return file


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Process:
    """One operator."""

    folder: Path
    config: Path
    arguments: tuple[str, ...] = ()
    identity: str = "operator-0"
    port: int = field(default_factory=free_port)
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> Process:
        path = os.pathsep.join(str(CHECKOUT / part) for part in ("core", "cli", "operator", "local"))
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": path,
            "HOME": str(self.folder),
            "POD_NAMESPACE": SYSTEM,
        }
        command = [
            sys.executable, "-m", "tollgate_operator",
            f"--kubeconfig={self.config}", "--lease-name=tollgate-operator", f"--identity={self.identity}",
            "--metrics-host=127.0.0.1", f"--metrics-port={self.port}", *self.arguments,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.folder)
        return self

    @property
    def log(self) -> Path:
        return self.folder / f"{self.identity}.log"

    def page(self, name: str) -> tuple[int, str]:
        """Status and text of a page; (0, why) when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{name}", timeout=5) as answer:
                return int(answer.status), str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def ready(self, seconds: float = 60) -> Process:
        """Waits until it leads and has listed everything."""
        assert self.running is not None

        def answers() -> bool:
            assert self.running is not None
            assert self.running.poll() is None, f"it ended with {self.running.returncode}: {self.log.read_text()}"
            return self.page("/readyz")[0] == 200

        try:
            eventually(answers, seconds, "the operator is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.page('/readyz')}\n{self.log.read_text()[-4000:]}") from error
        return self

    def ended(self, seconds: float) -> int:
        """Its exit code."""
        assert self.running is not None
        try:
            return self.running.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"it did not end within {seconds:.0f} s: {self.log.read_text()[-4000:]}") from error

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM, as the kubelet does it."""
        assert self.running is not None
        if self.running.poll() is None:
            self.running.send_signal(signal.SIGTERM)
        return self.ended(seconds)

    def kill(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.running.kill()
            self.running.wait()

    def metric(self, name: str) -> float:
        """The sum of a series over its labels."""
        lines = self.page("/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def writes(log: Path, user: str, since: str) -> Counter[tuple[str, str]]:
    """What a user wrote after `since` (an audit timestamp), by (verb, resource/subresource)."""
    found: Counter[tuple[str, str]] = Counter()
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["stage"] != "ResponseComplete" or event["user"].get("username") != user:
            continue
        if event["verb"] in ("get", "list", "watch") or event["requestReceivedTimestamp"] <= since:
            continue
        reference = event.get("objectRef", {})
        name = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
        found[event["verb"], name] += 1
    return found


def last_audit(log: Path) -> str:
    """The time of the newest request in the audit log."""
    return str(max(json.loads(line)["requestReceivedTimestamp"] for line in log.read_text().splitlines()))


class Asking:
    """A client with somebody's rights: who may do what is half of what these tests are about."""

    def __init__(self, cluster: Cluster, user: str, *groups: str) -> None:
        self._cluster = cluster
        self._flags = [f"--as={user}", *(f"--as-group={group}" for group in groups)]

    def kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return self._cluster.kubectl(*self._flags, *arguments, stdin=stdin, check=False)

    def apply(
        self, document: dict[str, Any], *, status: bool = False, dry_run: bool = False
    ) -> subprocess.CompletedProcess[str]:
        more = [*(["--subresource=status"] if status else []), *(["--dry-run=server"] if dry_run else [])]
        flags = ["--server-side", "--force-conflicts", "--field-manager=test"]
        return self.kubectl("apply", *flags, *more, "-f", "-", stdin=yaml.safe_dump(document))


def there(cluster: Cluster, path: str) -> dict[str, Any] | None:
    """The object, or None."""
    try:
        found: dict[str, Any] = cluster.api.get(path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return found
