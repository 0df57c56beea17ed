"""A laptop's allowance: the manifest's budget is the cap in micro-USD, to the cent."""

from __future__ import annotations

import pytest

from tollgate.manifest.loader import load_document
from tollgate_trainer.laptop.allowance import Allowance


@pytest.mark.parametrize(("budget", "micro"), [(1, 1_000_000), (0.5, 500_000), ("180.10", 180_100_000)])
def test_the_manifest_s_budget_is_the_cap_where_a_price_is_given(budget: object, micro: int) -> None:
    document = {"name": "m", "dataset": {"path": "d.json"}, "resources": {"max_budget_usd": budget}}
    manifest = load_document(document, "test").manifest
    assert Allowance.parse("2", None, None, manifest).caps.cost == micro
    without = Allowance.parse(None, None, None, manifest)
    assert without.caps.cost is None
    assert f"{float(str(budget)):.2f}" in without.notice or f"{budget} USD" in without.notice
