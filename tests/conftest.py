"""Two processes share the tests of `make test`; what stands on one cluster stays in one process."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# A law is about what is true, never about how long a loaded machine takes to show it.
settings.register_profile("tollgate", deadline=None)
settings.load_profile("tollgate")

CLUSTERS = ("tests/e2e", "tests/integration")
"""Folders whose tests share a cluster, which costs its start and its memory. What lies deeper needs none."""


class ByCluster(LoadScopeScheduling):
    """A folder with a cluster goes to one process as a whole, any other file by itself (for its fixtures)."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        folder = file.rpartition("/")[0]
        return folder if folder in CLUSTERS else file


def pytest_xdist_make_scheduler(config: Any, log: Any) -> ByCluster:
    """Asked once by pytest-xdist; its own groups by mark are not seen by pytest 9.2."""
    return ByCluster(config, log)
