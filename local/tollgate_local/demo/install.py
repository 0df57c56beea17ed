"""Puts Tollgate on a fresh embedded cluster: images, chart, namespace, volumes, profiles."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tollgate_local.cluster import Cluster
from tollgate_local.demo import volumes
from tollgate_local.demo.kubectl import DemoError, Kubectl
from tollgate_local.images.archive import Image
from tollgate_local.images.project import operator_image, trainer_image
from tollgate_local.progress import Say

SYSTEM = "tollgate-system"
IMAGE_IN_EXAMPLES = "tollgate.local/trainer:dev"


@dataclass(frozen=True, slots=True)
class Installed:
    """What the scenes need of an installation."""

    kubectl: Kubectl
    volumes: volumes.Volumes
    trainer: str


def install(cluster: Cluster, checkout: Path, folder: Path, namespace: str, say: Say) -> Installed:
    """Everything that a platform admin does once. Raises: DemoError with the tool's own words."""
    say("making the images of this checkout (seconds; the Debian base takes a minute, once per machine)")
    trainer, operator = trainer_image(say), operator_image(say)
    for image in (trainer, operator):
        cluster.import_image(image)
    kubectl = Kubectl(cluster.bin("kubectl"), cluster.kubeconfig, namespace)
    say("installing the chart: CRDs, rights, admission policies, the operator")
    helm_install(cluster, checkout, operator)
    kubectl.apply(_namespace(namespace))
    made = volumes.prepare(folder, checkout / "examples")
    kubectl.apply(volumes.claims(made, namespace))
    profiles = (checkout / "examples/cluster/profiles.yaml").read_text()
    kubectl.apply(profiles.replace(IMAGE_IN_EXAMPLES, trainer.tag))
    for claim in ("environment", "datasets", "models"):
        kubectl.run("wait", f"pvc/{claim}", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
    return Installed(kubectl, made, trainer.tag)


def helm_install(cluster: Cluster, checkout: Path, operator: Image) -> None:
    """`helm upgrade --install`, waiting until the operator is ready."""
    repository, _, tag = operator.tag.rpartition(":")
    values = {"image": {"repository": repository, "tag": tag, "pullPolicy": "Never"}}
    command = [
        str(cluster.bin("helm")), "upgrade", "--install", "tollgate", str(checkout / "helm/tollgate"),
        "--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "3m", "--values", "-",
    ]  # fmt: skip
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    done = subprocess.run(
        command, input=json.dumps(values), capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode != 0:
        pods = Kubectl(cluster.bin("kubectl"), cluster.kubeconfig, SYSTEM)
        words = pods.run("logs", "deployment/tollgate", "--tail=20", check=False)
        raise DemoError(f"helm: {done.stderr.strip()}\nthe operator's last words:\n{words}")


def _namespace(name: str) -> str:
    return f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/enforce-version: latest
"""
