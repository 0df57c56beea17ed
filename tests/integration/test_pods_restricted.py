"""Every pod that the operator renders is admitted where the restricted Pod Security Standard is enforced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tollgate_local.api import ApiError
from tollgate_local.cluster import Cluster
from tollgate_local.testing import make_namespace

pytestmark = pytest.mark.integration

GOLDEN = Path(__file__).parents[1] / "unit/golden"
JOBS = sorted(path.name for path in GOLDEN.glob("job-*.yaml"))


@pytest.fixture(scope="module")
def restricted(cluster: Cluster) -> Iterator[str]:
    name = make_namespace(cluster.api, "pods-restricted")
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    wanted = {pod(job)["spec"].get("priorityClassName") for job in JOBS} - {None}
    for priority in wanted:
        cluster.api.create(classes, {"metadata": {"name": priority}, "value": 1000})
    yield name
    for priority in wanted:
        cluster.api.delete(f"{classes}/{priority}")
    cluster.api.delete(f"/api/v1/namespaces/{name}")


def pod(name: str) -> dict[str, Any]:
    """The pod that the Job controller makes of a rendered Job (tests/unit holds these files to what is rendered)."""
    template = yaml.safe_load((GOLDEN / name).read_text())["spec"]["template"]
    return {"metadata": {**template["metadata"], "name": "rendered"}, "spec": template["spec"]}


def create(cluster: Cluster, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = cluster.api.create(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", body)
    return made


def test_all_shapes_are_here() -> None:
    assert {"job-1-cpu.yaml", "job-1-h100.yaml", "job-8-h100-2-nodes.yaml", "job-evaluation.yaml"} <= set(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_a_rendered_pod_is_admitted(cluster: Cluster, restricted: str, name: str) -> None:
    made = create(cluster, restricted, pod(name))
    assert made["spec"]["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize("name", JOBS)
def test_a_rendered_job_is_admitted_without_a_warning_or_a_pruned_field(
    cluster: Cluster, restricted: str, name: str
) -> None:
    text = (GOLDEN / name).read_text()
    job = yaml.safe_load(text)
    job["metadata"]["namespace"] = restricted
    arguments = ("--namespace", restricted, "create", "--dry-run=server", "--validate=strict", "-f", "-")
    done = cluster.kubectl(*arguments, stdin=yaml.safe_dump(job))
    assert "Warning" not in done.stderr


def test_the_same_pod_with_one_right_more_is_refused(cluster: Cluster, restricted: str) -> None:
    spoilt = pod(JOBS[0])
    spoilt["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ApiError, match="violates PodSecurity"):
        create(cluster, restricted, spoilt)
