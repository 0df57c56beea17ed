"""ComputeProfile (cluster-scoped): a kind of node, and all that a user may not set. The platform admin writes it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from tollgate.api.meta import Api, DnsSubdomain
from tollgate.api.quantities import Money

KIND = "ComputeProfile"
PLURAL = "computeprofiles"

QUANTITY_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|Ki|[MGTPE]i?)?$"
_QUANTITY = re.compile(QUANTITY_PATTERN)


def _quantity(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str) or not _QUANTITY.fullmatch(str(value)):
        raise ValueError(f"{value!r} is not a quantity; write a number such as 4, 500m, 16Gi or 1.5")
    return value


Quantity = Annotated[
    str | int,
    BeforeValidator(_quantity),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "pattern": QUANTITY_PATTERN,
            "minimum": 0,
        }
    ),
]
Target = Literal["cpu", "gpu_single", "gpu_multi", "cloud_gpu"]


class Resource(Api):
    """The extended resource of an accelerator."""

    name: str = Field(default="nvidia.com/gpu", min_length=1, max_length=253, description="As nodes offer it.")
    per_node: int = Field(ge=1, le=64, description="How many of it one node has, and pricePerNodeHourUSD pays for.")


class Toleration(Api):
    """A Kubernetes toleration."""

    key: str | None = Field(default=None, max_length=317)
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = Field(default=None, max_length=63)
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class Fabric(Api):
    """The fast network between nodes."""

    rdma_resource: str | None = Field(
        default=None, max_length=253, description="One of it is asked for by each pod of a run with several nodes."
    )
    env: dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=1024)]] = Field(
        default_factory=dict, max_length=64, description="Such as NCCL's variables."
    )


class Security(Api):
    """Identity of the trainer's process; never root."""

    uid: int = Field(default=65532, ge=1, description="User.")
    gid: int = Field(default=65532, ge=1, description="Group; also of the files on the claims.")
    supplemental_groups: list[int] = Field(default_factory=list, max_length=32, description="More groups.")


class EnvironmentClaim(Api):
    """A read-only site-packages folder that is shared by all runs, as HPC sites have it."""

    claim_name: DnsSubdomain = Field(description="A claim in the run's namespace.")
    path: str = Field(default="", max_length=512, description="Relative to the claim's root; may not leave it.")


class ComputeProfileSpec(Api):
    """One kind of node."""

    image: str = Field(min_length=1, max_length=512, description="The trainer's, with its tag or digest.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="As in a pod."
    )
    resource: Resource | None = Field(default=None, description="Absent: a CPU profile.")
    cpu: Quantity = Field(default="1", description="Of each pod, as request and limit.")
    memory: Quantity = Field(default="2Gi", description="Of each pod, as request and limit.")
    shm_size: Quantity | None = Field(default=None, description="Of /dev/shm; absent: 1Gi, or 16Gi on a GPU profile.")
    node_selector: dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict, max_length=32, description="Which nodes are of this kind."
    )
    tolerations: list[Toleration] = Field(default_factory=list, max_length=32, description="As in a pod.")
    price_per_node_hour_usd: Money | None = Field(
        default=None, description="Of the whole node; a run pays the share of its GPUs."
    )
    price_ceiling_usd: Money | None = Field(
        default=None, description="Per node and hour; what unknownPrice: UseCeiling counts with."
    )
    allow_unlimited: bool = Field(default=False, description="Runs without a cost limit are admitted.")
    fabric: Fabric = Field(default_factory=Fabric)
    security: Security = Field(default_factory=Security)
    environment: EnvironmentClaim | None = None
    env: dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=1024)]] = Field(
        default_factory=dict, max_length=64, description="Of every trainer; docs/reference/environment.md."
    )
    priority_class_name: str | None = Field(default=None, max_length=253, description="As in a pod.")
    runtime_class_name: str | None = Field(default=None, max_length=253, description="As in a pod.")
    default_for: list[Target] = Field(
        default_factory=list,
        max_length=4,
        description="Runs without spec.compute whose compute_target this is come here.",
    )
