"""Whatever dies at whatever moment, the end is the one of the undisturbed life: see crash_cells.py for the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import installed
import pytest
from crash_cells import CELLS, Cell, Result, controls_of, run_cells, selected, verdict
from lifecycle import prepare
from metrics_page import metrics_page

from tollgate_local.cluster import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def matrix(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Result]]:
    """All cells that this session asks for, some at a time; a cell that fails says so in its own test."""
    asked = {item.callspec.params["cell"].key for item in request.session.items if "cell" in _parameters(item)}
    installed.install(cluster)
    prepare(cluster)
    cluster.set_stages("scripted")
    with metrics_page() as address:
        yield run_cells(cluster, tmp_path_factory.mktemp("crashes"), selected(asked), address)
    cluster.set_stages("fast")
    installed.remove_admission(cluster)


def _parameters(item: pytest.Item) -> dict[str, object]:
    call = getattr(item, "callspec", None)
    return dict(call.params) if call is not None and item.fspath.basename == Path(__file__).name else {}


@pytest.mark.parametrize(
    "cell", [pytest.param(cell, id=cell.key, marks=[pytest.mark.full] if cell.full else []) for cell in CELLS]
)
def test_the_end_is_that_of_the_undisturbed_life(matrix: dict[str, Result], cell: Cell) -> None:
    wrong = verdict(cell, matrix[cell.key], controls_of(matrix))
    assert not wrong, "\n".join(wrong)
