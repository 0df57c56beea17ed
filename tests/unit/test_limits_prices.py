from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from tollgate.api.compute_profile import ComputeProfileSpec
from tollgate.api.quantities import MICRO
from tollgate.api.training_run import UnknownPrice
from tollgate.limits.prices import (
    PodRate,
    PriceSource,
    charged_rate,
    describe,
    node_hour,
    pod_share,
    refuse_share,
    reservation_rate,
)
from tollgate.limits.refusal import Refusal

BOOK = {"p5.48xlarge": 98_320_000, "m7i.large": 100_800}


@dataclass(frozen=True)
class Node:
    name: str
    price: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: {"pool": "h100"})
    instance_type: str = ""


def profile(price: str | None = None, gpus: int | None = 8, **facts: object) -> ComputeProfileSpec:
    body: dict[str, object] = {"image": "i", "nodeSelector": {"pool": "h100"}} | facts
    if gpus is not None:
        body["resource"] = {"perNode": gpus}
    if price is not None:
        body["pricePerNodeHourUSD"] = price
    return ComputeProfileSpec.model_validate(body)


def rate(
    spec: ComputeProfileSpec,
    *nodes: Node,
    gpus: int | None = None,
    unknown: UnknownPrice = UnknownPrice.REFUSE,
    max_runtime: int | None = None,
) -> PodRate | Refusal:
    return reservation_rate("h100", spec, gpus, nodes, unknown, max_runtime=max_runtime, price_book=BOOK)


@pytest.mark.parametrize(
    ("per_node", "gpus", "asked", "share"),
    [
        (98_320_000, 8, None, 98_320_000),
        (98_320_000, 8, 8, 98_320_000),
        (98_320_000, 8, 1, 12_290_000),
        (100, 8, 3, 38),  # 37.5, never understated
        (1, 64, 1, 1),
        (0, 8, 1, 0),
        (5_000_000, None, None, 5_000_000),
        (5_000_000, None, 0, 5_000_000),
    ],
)
def test_a_pod_pays_its_share_of_the_node_rounded_up(
    per_node: int, gpus: int | None, asked: int | None, share: int
) -> None:
    assert pod_share(per_node, profile(gpus=gpus), asked) == share


@pytest.mark.parametrize(("gpus", "asked"), [(8, 0), (8, 9), (None, 1)])
def test_a_share_that_cannot_be_is_refused_and_no_pod_becomes_free(gpus: int | None, asked: int) -> None:
    answer = refuse_share("h100", profile(gpus=gpus), asked)
    assert answer is not None
    assert answer.reason == "InvalidCompute"
    assert "spec.compute.gpusPerNode" in answer.message
    assert rate(profile("1", gpus), gpus=asked) == answer
    with pytest.raises(ValueError, match="gpusPerNode"):
        pod_share(100, profile(gpus=gpus), asked)


@pytest.mark.parametrize(
    ("price", "node", "micro", "source"),
    [
        ("9", Node("a", "5", instance_type="m7i.large"), 9 * MICRO, PriceSource.PROFILE),
        ("0", Node("a", "5"), 0, PriceSource.PROFILE),
        (None, Node("a", "5.50", instance_type="m7i.large"), 5_500_000, PriceSource.NODE),
        (None, Node("a", "0"), 0, PriceSource.NODE),
        (None, Node("a", instance_type="m7i.large"), 100_800, PriceSource.PRICE_BOOK),
        (None, Node("a", instance_type="other"), None, PriceSource.UNKNOWN),
        (None, Node("a", "5,50", instance_type="m7i.large"), None, PriceSource.UNKNOWN),
        (None, Node("a", "-5"), None, PriceSource.UNKNOWN),
        (None, None, None, PriceSource.UNKNOWN),
    ],
)
def test_the_chain_is_profile_then_node_then_price_book_then_unknown(
    price: str | None, node: Node | None, micro: int | None, source: PriceSource
) -> None:
    found = node_hour(profile(price), node, BOOK)
    assert (found.micro, found.source) == (micro, source)
    assert bool(found.problem) == (micro is None)


def test_a_run_is_reserved_at_the_profiles_price() -> None:
    assert rate(profile("80"), Node("a", "100")) == PodRate(80 * MICRO, PriceSource.PROFILE)


def test_without_one_it_is_reserved_at_the_dearest_node_that_the_selector_matches() -> None:
    nodes = (Node("a", "80"), Node("b", "100"), Node("c", "900", {"pool": "other"}))
    assert rate(profile(), *nodes, gpus=4) == PodRate(50 * MICRO, PriceSource.NODE)
    assert rate(profile(), *reversed(nodes), gpus=4) == PodRate(50 * MICRO, PriceSource.NODE)


def test_one_matching_node_without_a_price_makes_the_price_unknown() -> None:
    answer = rate(profile(), Node("a", "80"), Node("b"))
    assert isinstance(answer, Refusal)
    assert answer.reason == "PriceUnknown"
    assert "node b has no annotation tollgate.dev/price-per-node-hour-usd" in answer.message


def test_no_matching_node_and_no_price_is_refused_with_the_fix() -> None:
    answer = rate(profile(), Node("c", "900", {"pool": "other"}))
    assert isinstance(answer, Refusal)
    assert "no node matches" in answer.message
    assert "pricePerNodeHourUSD" in answer.message


def test_the_ceiling_counts_where_the_price_is_unknown() -> None:
    ceiling = profile(priceCeilingUSD="120")
    assert rate(ceiling, unknown=UnknownPrice.USE_CEILING) == PodRate(120 * MICRO, PriceSource.CEILING)
    dear = rate(ceiling, Node("a", "130"), Node("b"), unknown=UnknownPrice.USE_CEILING)
    assert dear == PodRate(130 * MICRO, PriceSource.CEILING)


def test_a_ceiling_that_is_not_set_is_refused() -> None:
    answer = rate(profile(), unknown=UnknownPrice.USE_CEILING)
    assert isinstance(answer, Refusal)
    assert "priceCeilingUSD" in answer.message


def test_hours_only_needs_a_runtime_limit() -> None:
    answer = rate(profile(), unknown=UnknownPrice.HOURS_ONLY)
    assert isinstance(answer, Refusal)
    assert "spec.limits.maxRuntime" in answer.message
    found = rate(profile(), unknown=UnknownPrice.HOURS_ONLY, max_runtime=60)
    assert found == PodRate(None, PriceSource.UNKNOWN)


@pytest.mark.parametrize(
    ("reserved", "price", "charged"),
    [
        (100 * MICRO, "80", 80 * MICRO),
        (100 * MICRO, "130", 100 * MICRO),
        (100 * MICRO, None, 100 * MICRO),
        (100 * MICRO, "rubbish", 100 * MICRO),
        (None, "80", 80 * MICRO),
        (None, None, None),
        (0, "80", 0),
    ],
)
def test_the_bound_node_may_only_lower_the_charge(reserved: int | None, price: str | None, charged: int | None) -> None:
    assert charged_rate(reserved, profile(), None, Node("a", price)) == charged


def test_an_unknown_price_is_shown_as_absent_and_not_as_zero() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert PodRate(None, PriceSource.UNKNOWN).status(now) is None
    shown = PodRate(12_290_000, PriceSource.NODE).status(now)
    assert shown is not None
    assert shown.model_dump(by_alias=True)["perNodeHourUSD"] == "12.29"
    assert describe(PodRate(12_290_000, PriceSource.NODE), 2) == "24.58 USD an hour (2 pods, price from node)"
    assert "unknown" in describe(PodRate(None, PriceSource.UNKNOWN), 2)
