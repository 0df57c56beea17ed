"""One loopback cluster for all integration tests: the real control plane, kwok nodes, an audit log."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tollgate_local.cluster import Cluster, LoopbackShape, down, up
from tollgate_local.testing import make_namespace

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
