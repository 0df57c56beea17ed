"""Two processes share the tests of `make test`; what stands on one cluster stays in one process."""

from __future__ import annotations

import pytest

CLUSTERS = {"node_cluster": "node", "cluster": "loopback"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One group per cluster, because each costs its start and its memory; otherwise one per file (shared fixtures)."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        group = next((group for fixture, group in CLUSTERS.items() if fixture in names), item.path.stem)
        item.add_marker(pytest.mark.xdist_group(group))
