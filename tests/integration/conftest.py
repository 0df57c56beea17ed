"""One loopback cluster for all integration tests: the real control plane, kwok nodes, an audit log."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import installed
import pytest
from kind_objects import CRDS, conditions
from lifecycle import Life, life, prepare
from metrics_page import metrics_page

from s3_server import BUCKET, Server, s3_server
from tollgate.crd import KINDS
from tollgate_local.cluster import Cluster, LoopbackShape, down, up
from tollgate_local.testing import eventually, make_namespace
from tollgate_trainer.lifecycle.remote.store import Place, Store

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = LoopbackShape(state=tmp_path_factory.mktemp("cluster"), fresh=True, audit=True)
    yield up(settings)
    down(settings, purge=True)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = make_namespace(cluster.api, f"test-{next(_numbers)}", restricted=False)
    yield name
    cluster.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="module")
def kinds(cluster: Cluster) -> Cluster:
    """The cluster with our CRDs applied the way the docs say, and without a word of warning."""
    applied = cluster.kubectl("apply", "--server-side", "-f", str(CRDS))
    assert applied.stderr == ""
    for kind in KINDS:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.name}"
        eventually(
            lambda path=path: conditions(cluster, path).get("Established") == "True", 30, f"{kind.name} is served"
        )
    return cluster


@pytest.fixture(scope="module")
def chart(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the chart in it, and pods that end as their annotations say."""
    installed.install(cluster)
    prepare(cluster)
    cluster.set_stages("scripted")
    yield cluster
    cluster.set_stages("fast")
    installed.remove_admission(cluster)


@pytest.fixture
def lived(chart: Cluster, tmp_path: Path) -> Iterator[Life]:
    """An operator with the chart's rights in a namespace of its own, and what a test asks of it."""
    with metrics_page() as address, life(chart, tmp_path, pod_ip=address) as made:
        made.operator.ready()
        yield made


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def store(s3: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return Store(Place(BUCKET, f"runs/{abs(hash(request.node.name))}"))
