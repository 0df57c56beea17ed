"""Two processes share the tests of `make test`; what stands on one cluster stays in one process."""

from __future__ import annotations

import pytest

CLUSTERS = {"node_cluster": "node", "cluster": "loopback"}


def pytest_itemcollected(item: pytest.Item) -> None:
    """One group per cluster, because each costs its start and its memory; otherwise one per file (shared fixtures).

    At collection, because the processes read the groups before conftest files may modify the list of items.
    """
    names = getattr(item, "fixturenames", ())
    group = next((group for fixture, group in CLUSTERS.items() if fixture in names), item.path.stem)
    item.add_marker(pytest.mark.xdist_group(group))
