"""One real node for all end-to-end tests, with a bridge and networks of its own beside a user's `tollgate local up`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import runs

from tollgate_local.cluster import Cluster, NodeShape, down, up
from tollgate_local.demo.volumes import environment_folder
from tollgate_local.progress import to_stderr
from tollgate_local.testing import make_namespace

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def node_settings(tmp_path_factory: pytest.TempPathFactory) -> NodeShape:
    if os.geteuid() != 0:
        pytest.skip("the node shape needs root on Linux")
    # Several sessions on one machine take different slots (0 to 3), and never meet.
    slot = int(os.environ.get("TOLLGATE_TEST_SLOT", "0"))
    return NodeShape(
        state=tmp_path_factory.mktemp("node"),
        audit=True,
        bridge=f"tgslot{slot}",
        net=f"10.{250 - slot}.7",
        services=f"10.{100 + slot}",
        pods=f"10.{240 - slot}",
        cgroup=f"tollgate-test{slot}",
    )


@pytest.fixture(scope="session")
def node_cluster(node_settings: NodeShape) -> Iterator[Cluster]:
    yield up(node_settings)
    down(node_settings, purge=True)


@pytest.fixture
def namespace(node_cluster: Cluster) -> Iterator[str]:
    """A namespace that enforces the restricted Pod Security Standard."""
    name = make_namespace(node_cluster.api, f"test-{next(_numbers)}")
    yield name
    node_cluster.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def environment() -> Path:
    """This environment's packages, which pods get as a read-only volume."""
    return environment_folder()


@pytest.fixture(scope="session")
def tollgate(node_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> runs.Tollgate:
    """Tollgate as `helm install` puts it on a cluster, once for all tests; each test names its runs differently."""
    return runs.install_for_tests(node_cluster, tmp_path_factory.mktemp("volumes"), to_stderr)
