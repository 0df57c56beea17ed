"""The custom resource definitions: pydantic models -> structural schemas, with what pydantic cannot say added as CEL.

`python -m tollgate.crd --write` writes crds/, `--check` says whether they are what the models say.
Defaults stay in the models, except for a few (Kind.defaults): what the API server stores as a default is there for
ever.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from tollgate.api import compute_profile, promotion_policy, training_run
from tollgate.contract import GROUP, MAX_NAME, VERSION
from tollgate.generated import Generated
from tollgate.structural import Rule, Schema, Where, at, structural

HEADER = "# Written by `python -m tollgate.crd --write` from core/tollgate/api; do not edit.\n"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; wide ones show with `-o wide`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""

    def to_schema(self) -> Schema:
        """As it stands in additionalPrinterColumns."""
        column: Schema = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            column["description"] = self.description
        return column | ({"priority": 1} if self.wide else {})


@dataclass(frozen=True, slots=True)
class Kind:
    """One custom resource. `rules`, `keys` (of list maps), `sets` and `defaults` go by path: ("spec", "stages", "[]",
    "maxAge").
    """

    kind: str
    plural: str
    short: str
    scope: str
    spec: type[BaseModel]
    status: type[BaseModel] | None
    columns: tuple[Column, ...]
    rules: dict[Where, tuple[Rule, ...]] = field(default_factory=dict)
    keys: dict[Where, str] = field(default_factory=dict)
    sets: frozenset[Where] = frozenset()
    defaults: dict[Where, Any] = field(default_factory=dict)
    selectable: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the CustomResourceDefinition object."""
        return f"{self.plural}.{GROUP}"


AGE = Column("Age", ".metadata.creationTimestamp", "date")


def _immutable(name: str) -> Rule:
    return Rule(
        f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
        f"{name} cannot be changed, added or removed; create another TrainingRun",
        f".{name}",
    )


def _positive(path: str) -> Rule:
    return Rule("duration(self) > duration('0s')", f"{path} must be longer than 0s")


FOLDER = (
    Rule(
        "!has(self.path) || !self.path.startsWith('/')",
        "path is relative to the claim's root: remove the / in front",
        ".path",
    ),
    Rule(
        r"!has(self.path) || !self.path.matches('(^|/)[.][.](/|$)')",
        "path may not contain .., it would leave its claim",
        ".path",
    ),
)

TRAINING_RUN = Kind(
    kind=training_run.KIND,
    plural=training_run.PLURAL,
    short="trun",
    scope="Namespaced",
    spec=training_run.TrainingRunSpec,
    status=training_run.TrainingRunStatus,
    columns=(
        Column("Phase", ".status.phase"),
        Column("Step", ".status.progress.step", "integer", description="Optimizer steps that are done."),
        Column("Spent", ".status.cost.spent", description="USD, allocated node time x price, rounded up."),
        Column("Limit", ".status.cost.limitUSD", description="USD that the run may spend."),
        Column("ETA", ".status.progress.estimatedCompletion", description="When training will be done at its pace."),
        Column("Gate", ".status.gates[0].verdict", description="Verdict of the policy's first stage."),
        AGE,
        Column("Steps", ".status.progress.totalSteps", "integer", wide=True),
        Column("Attempt", ".status.attempt", "integer", wide=True),
        Column("Profile", ".spec.compute.profile", wide=True),
        Column("Message", ".status.message", wide=True),
    ),
    rules={
        (): (
            Rule(
                f"size(self.metadata.name) <= {MAX_NAME}",
                f"a TrainingRun's name has at most {MAX_NAME} characters, so that the names of its Jobs and pods fit",
            ),
            Rule(
                "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                "the name of a TrainingRun is a DNS label: lower-case letters, digits and -, without dots",
            ),
        ),
        ("spec",): (_immutable("compute"), _immutable("storage")),
        ("spec", "storage", "dataset"): FOLDER,
        ("spec", "storage", "output"): FOLDER,
        ("spec", "limits"): (
            Rule(
                "!has(self.stopMargin) || has(self.maxRuntime)",
                "stopMargin is counted back from maxRuntime: set maxRuntime, or remove stopMargin",
                ".stopMargin",
            ),
            Rule(
                "!has(self.stopMargin) || !has(self.maxRuntime)"
                " || duration(self.stopMargin) < duration(self.maxRuntime)",
                "stopMargin must be shorter than maxRuntime",
                ".stopMargin",
            ),
        ),
        ("spec", "limits", "maxRuntime"): (_positive("maxRuntime"),),
        ("spec", "restart", "schedulingTimeout"): (_positive("schedulingTimeout"),),
        ("spec", "restart", "firstStepTimeout"): (_positive("firstStepTimeout"),),
        ("spec", "restart", "stallTimeout"): (_positive("stallTimeout"),),
        ("spec", "evaluation", "timeout"): (_positive("timeout"),),
    },
    # Attempts stay atomic: their numbers count per role, and the operator writes the whole list with a resourceVersion.
    keys={("status", "conditions"): "type", ("status", "gates"): "stage"},
    defaults={("spec", "suspend"): False, ("spec", "compute", "nodes"): 1},
    selectable=(".status.phase",),
)

COMPUTE_PROFILE = Kind(
    kind=compute_profile.KIND,
    plural=compute_profile.PLURAL,
    short="tprof",
    scope="Cluster",
    spec=compute_profile.ComputeProfileSpec,
    status=None,
    columns=(
        Column("Resource", ".spec.resource.name"),
        Column("PerNode", ".spec.resource.perNode", "integer"),
        Column("CPU", ".spec.cpu"),
        Column("Memory", ".spec.memory"),
        Column("NodeHour", ".spec.pricePerNodeHourUSD", description="USD for the whole node."),
        AGE,
        Column("Image", ".spec.image", wide=True),
    ),
    rules={
        ("spec", "environment"): FOLDER,
        ("spec",): (
            Rule(
                "!has(self.fabric) || !has(self.fabric.rdmaResource) || has(self.resource)",
                "fabric.rdmaResource needs resource: a CPU profile has no fabric",
                ".fabric",
            ),
        ),
    },
    sets=frozenset({("spec", "defaultFor")}),
)

PROMOTION_POLICY = Kind(
    kind=promotion_policy.KIND,
    plural=promotion_policy.PLURAL,
    short="tpol",
    scope="Namespaced",
    spec=promotion_policy.PromotionPolicySpec,
    status=promotion_policy.PromotionPolicyStatus,
    columns=(
        Column("Stage", ".spec.stages[0].name", description="The first stage."),
        Column("Run", ".status.stages[0].holder.run", description="The run that holds the first stage."),
        Column("Since", ".status.stages[0].holder.since", "date"),
        AGE,
        Column("Model", ".status.stages[0].holder.modelDigest", wide=True),
    ),
    rules={
        (): (
            Rule(
                "size(self.metadata.name) <= 180",
                "a PromotionPolicy's name has at most 180 characters, so that the names of its ConfigMaps fit",
            ),
        ),
        ("spec",): (
            Rule(
                "self.stages.all(s, !has(s.requires) || s.requires.all(r, self.stages.exists(t, t.name == r)))",
                "requires names a stage that this policy does not have",
                ".stages",
            ),
            Rule(
                "[self.stages.map(t, t.name)].all(names, self.stages.all(s, !has(s.requires) || s.requires.all(r,"
                " names.indexOf(r) < names.indexOf(s.name))))",
                "requires may only name earlier stages: stages stand in the order in which a model passes them",
                ".stages",
            ),
        ),
        ("spec", "stages", "[]", "maxAge"): (_positive("maxAge"),),
    },
    keys={("spec", "stages"): "name", ("status", "stages"): "name", ("status", "conditions"): "type"},
    sets=frozenset({("spec", "stages", "[]", "requires")}),
)

KINDS = (TRAINING_RUN, COMPUTE_PROFILE, PROMOTION_POLICY)


# --- the schema -------------------------------------------------------------------------------------------------------


def schema_of(kind: Kind) -> Schema:
    """The openAPIV3Schema of a kind.

    Raises: ValueError when a model says what a structural schema cannot, or a rule names a path that does not exist.
    """
    properties: Schema = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": structural(kind.spec),
    }
    if kind.status is not None:
        properties["status"] = structural(kind.status)
    document = (sys.modules[kind.spec.__module__].__doc__ or "").strip()
    root: Schema = {"type": "object", "description": document, "required": ["spec"], "properties": properties}
    for where, rules in kind.rules.items():
        at(root, where).setdefault("x-kubernetes-validations", []).extend(rule.to_schema() for rule in rules)
    for where, key in kind.keys.items():
        at(root, where).update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]})
    for where in kind.sets:
        at(root, where)["x-kubernetes-list-type"] = "set"
    for where, default in kind.defaults.items():
        at(root, where)["default"] = default
    return root


def definition(kind: Kind) -> Schema:
    """The CustomResourceDefinition object."""
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [column.to_schema() for column in kind.columns],
        "schema": {"openAPIV3Schema": schema_of(kind)},
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    if kind.status is not None:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.name},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short],
                "categories": ["tollgate"],
            },
            "scope": kind.scope,
            "versions": [version],
        },
    }


# --- files ------------------------------------------------------------------------------------------------------------


def files() -> dict[str, str]:
    """File name -> contents of every definition."""
    return {
        f"{kind.name}.yaml": HEADER + yaml.safe_dump(definition(kind), sort_keys=False, width=120, allow_unicode=True)
        for kind in KINDS
    }


DEFINITIONS = Generated(
    "tollgate.crd", "Custom resource definitions from the models.", Path("crds"), files, alone="*.yaml"
)
stale = DEFINITIONS.stale
main = DEFINITIONS.main

if __name__ == "__main__":
    sys.exit(main())
