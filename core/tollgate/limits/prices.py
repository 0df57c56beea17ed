"""What one pod's hour costs: the chain profile > node annotation > price book > (OpenCost, later) > unknown.

Unknown is not zero: an absent price is None and somebody has to decide (spec.limits.unknownPrice); a price of "0" is a
price. All amounts are micro-USD per hour, and every division rounds up, so that a charge is never understated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from tollgate.api.compute_profile import ComputeProfileSpec
from tollgate.api.quantities import Usd, format_usd, parse_usd
from tollgate.api.training_run import Price, UnknownPrice
from tollgate.contract import ANNOTATION_PRICE
from tollgate.limits.refusal import Refusal

_NAMED = 3  # so many nodes are named in a message, the rest are counted


class PriceSource(StrEnum):
    """Where a price comes from; the values of status.cost.price.source."""

    PROFILE = "profile"
    NODE = "node"
    PRICE_BOOK = "priceBook"
    CEILING = "ceiling"
    UNKNOWN = "unknown"


class PricedNode(Protocol):
    """What this module wants to know of a node. `price` is the text of its annotation, unparsed."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def labels(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def price(self) -> str | None: ...  # noqa: D102
    @property
    def instance_type(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class NodeHour:
    """The price of one whole node's hour in micro-USD, or None with the problem that made it unknown."""

    micro: int | None
    source: PriceSource
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PodRate:
    """What one pod of the gang costs in an hour, in micro-USD: its share of a node. None: unknown, admitted by
    HoursOnly.
    """

    per_hour: int | None
    source: PriceSource

    def status(self, as_of: datetime) -> Price | None:
        """For status.cost.price; None while unknown, because an absent price is not a price of zero."""
        if self.per_hour is None:
            return None
        return Price(per_node_hour_usd=Usd(self.per_hour), source=self.source.value, as_of=as_of)


def node_hour(profile: ComputeProfileSpec, node: PricedNode | None, price_book: Mapping[str, int]) -> NodeHour:
    """The price of a whole node by the chain. `node` None: not bound yet, so only the profile can know.

    Args: price_book: micro-USD per hour by the node's instance type.
    A node annotation that is not an amount makes the price unknown; falling through to the price book would hide the
    mistake.
    """
    if profile.price_per_node_hour_usd is not None:
        return NodeHour(profile.price_per_node_hour_usd, PriceSource.PROFILE)
    if node is None:
        return NodeHour(None, PriceSource.UNKNOWN, "no node is known")
    if node.price is not None:
        try:
            return NodeHour(parse_usd(node.price), PriceSource.NODE)
        except ValueError as error:
            return NodeHour(None, PriceSource.UNKNOWN, f"node {node.name}: annotation {ANNOTATION_PRICE}: {error}")
    if (booked := price_book.get(node.instance_type)) is not None and node.instance_type:
        return NodeHour(booked, PriceSource.PRICE_BOOK)
    return NodeHour(None, PriceSource.UNKNOWN, f"node {node.name} has no annotation {ANNOTATION_PRICE}")


def refuse_share(profile_name: str, profile: ComputeProfileSpec, gpus_per_node: int | None) -> Refusal | None:
    """Why this number of GPUs cannot be a share of the profile's node, or None when it can."""
    if profile.resource is None:
        if gpus_per_node:
            return Refusal(
                "InvalidCompute",
                f"spec.compute.gpusPerNode is {gpus_per_node}, but profile {profile_name} has no accelerator; "
                "leave gpusPerNode out, or choose a profile with spec.resource",
            )
        return None
    most = profile.resource.per_node
    if gpus_per_node is not None and not 1 <= gpus_per_node <= most:
        return Refusal(
            "InvalidCompute",
            f"spec.compute.gpusPerNode is {gpus_per_node}, but a node of profile {profile_name} has {most} of "
            f"{profile.resource.name}; set it to 1..{most}, or leave it out for all of them",
        )
    return None


def pod_share(per_node_hour: int, profile: ComputeProfileSpec, gpus_per_node: int | None) -> int:
    """One pod's part of its node's price: price x gpusPerNode / resource.perNode, rounded up; all of it on a CPU
    profile.

    Raises: ValueError for a number of GPUs that `refuse_share` refuses: 0 GPUs must never make a node free.
    """
    if refusal := refuse_share("of the run", profile, gpus_per_node):
        raise ValueError(refusal.message)
    if profile.resource is None:
        return per_node_hour
    most = profile.resource.per_node
    return -(-per_node_hour * (most if gpus_per_node is None else gpus_per_node) // most)


def matches(profile: ComputeProfileSpec, node: PricedNode) -> bool:
    """Whether the profile's nodeSelector admits the node."""
    return all(node.labels.get(key) == value for key, value in profile.node_selector.items())


def reservation_rate(
    profile_name: str,
    profile: ComputeProfileSpec,
    gpus_per_node: int | None,
    nodes: Iterable[PricedNode],
    unknown_price: UnknownPrice,
    *,
    max_runtime: int | None,
    price_book: Mapping[str, int] | None = None,
) -> PodRate | Refusal:
    """The rate that an attempt is reserved at: an upper bound of what any of its pods can be charged.

    The profile's price; else the highest among the nodes that its selector matches, if every one of them has a price
    (one unpriced node could be the dearest); else by `unknown_price`: Refuse; UseCeiling counts with priceCeilingUSD
    (or with a dearer node that is known); HoursOnly counts no money and asks for `max_runtime` (seconds).
    """
    if refusal := refuse_share(profile_name, profile, gpus_per_node):
        return refusal
    book = price_book or {}
    if profile.price_per_node_hour_usd is not None:
        return PodRate(pod_share(profile.price_per_node_hour_usd, profile, gpus_per_node), PriceSource.PROFILE)
    found = [node_hour(profile, node, book) for node in sorted(nodes, key=lambda n: n.name) if matches(profile, node)]
    problems = [hour.problem for hour in found if hour.micro is None]
    dearest = max(
        (hour for hour in found if hour.micro is not None),
        key=lambda hour: (hour.micro or 0, hour.source),
        default=None,
    )
    if dearest is not None and dearest.micro is not None and not problems:
        return PodRate(pod_share(dearest.micro, profile, gpus_per_node), dearest.source)
    why = _why(profile_name, problems, bool(found))
    if unknown_price is UnknownPrice.USE_CEILING:
        if profile.price_ceiling_usd is None:
            return Refusal(
                "PriceUnknown",
                f"{why}; unknownPrice is UseCeiling, but profile {profile_name} has no priceCeilingUSD: "
                "the platform admin sets one, or spec.pricePerNodeHourUSD",
            )
        known = dearest.micro if dearest is not None and dearest.micro is not None else 0
        return PodRate(
            pod_share(max(profile.price_ceiling_usd, known), profile, gpus_per_node),
            PriceSource.CEILING,
        )
    if unknown_price is UnknownPrice.HOURS_ONLY:
        if max_runtime is None:
            return Refusal(
                "PriceUnknown",
                f"{why}; unknownPrice is HoursOnly, which needs spec.limits.maxRuntime: "
                "without a price, time is the only limit",
            )
        return PodRate(None, PriceSource.UNKNOWN)
    return Refusal(
        "PriceUnknown",
        f"{why}; the platform admin sets spec.pricePerNodeHourUSD of the profile (or annotates the nodes), or set "
        "spec.limits.unknownPrice to UseCeiling or, with maxRuntime, HoursOnly",
    )


def charged_rate(
    reserved: int | None,
    profile: ComputeProfileSpec,
    gpus_per_node: int | None,
    node: PricedNode | None,
    price_book: Mapping[str, int] | None = None,
) -> int | None:
    """What a pod is charged per hour once its node is known, in micro-USD; None: nobody knows.

    The node may lower the charge below the rate that was reserved, never raise it: the reservation was made with the
    reserved rate, and a cap that a node's annotation could move would not be one.
    """
    hour = node_hour(profile, node, price_book or {})
    share = None if hour.micro is None else pod_share(hour.micro, profile, gpus_per_node)
    if reserved is None or share is None:
        return share if reserved is None else reserved
    return min(reserved, share)


def _why(profile_name: str, problems: list[str], any_node: bool) -> str:
    if not any_node:
        return f"the price is unknown: profile {profile_name} has none, and no node matches its nodeSelector yet"
    more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return f"the price is unknown: profile {profile_name} has none, and {'; '.join(problems[:_NAMED])}{more}"


def describe(rate: PodRate, pods: int) -> str:
    """For people: `98.32 USD an hour (2 pods, price of the profile)`."""
    if rate.per_hour is None:
        return "price unknown, only hours are limited"
    gang = f"{pods} pod{'s' if pods != 1 else ''}"
    return f"{format_usd(rate.per_hour * pods)} USD an hour ({gang}, price from {rate.source})"
