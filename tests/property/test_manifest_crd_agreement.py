"""Schema and model agree: what the API server lets in, the operator can read; what the operator writes, the API
server takes.

CEL rules come on top and are tested against the real API server.
"""

from __future__ import annotations

import copy
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tollgate import crd

Schema = dict[str, Any]
KINDS = pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.kind)


def draft(schema: Schema) -> Schema:
    """The structural schema as JSON schema draft 4, whose exclusive bounds are booleans as in a CRD, and closed:
    strict clients
    refuse unknown fields where the API server would prune them.
    """
    node = copy.deepcopy(schema)
    for name, below in node.get("properties", {}).items():
        node["properties"][name] = draft(below)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = draft(node[key])
    if node.get("type") == "object" and not node.get("x-kubernetes-preserve-unknown-fields"):
        node.setdefault("additionalProperties", False)
    return node


def values(schema: Schema, name: str = "") -> st.SearchStrategy[Any]:
    """Values of the schema's type, near its bounds and mostly within them."""
    if "enum" in schema:
        return st.sampled_from([*schema["enum"], "Other"])
    if schema.get("x-kubernetes-int-or-string"):
        money = ["0", "1.5", "180", "999999999.999999", "1000000000", "-1", "1e3", "1.0000001", "", "007"]
        quantity = ["1", "4Gi", "500m"]
        return st.one_of(
            st.integers(-2, 2), st.sampled_from(money if "pattern" in schema else quantity), st.just(10**9)
        )
    kind = schema["type"]
    if kind == "object" and "additionalProperties" in schema:
        return st.dictionaries(st.sampled_from(["A", "b.c/d"]), values(schema["additionalProperties"]), max_size=2)
    if kind == "object" and schema.get("x-kubernetes-preserve-unknown-fields"):
        return st.just({"name": "m", "dataset": {"path": "d"}})
    if kind == "object":
        required = set(schema.get("required", []))
        fields = {name: values(below, name) for name, below in schema.get("properties", {}).items()}
        return st.fixed_dictionaries(
            {name: fields[name] for name in fields if name in required},
            optional={name: fields[name] for name in fields if name not in required},
        )
    if kind == "array":
        return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=2)
    if kind == "string":
        return strings(schema)
    if kind == "boolean":
        return st.booleans()
    low, high = schema.get("minimum", -3), schema.get("maximum", 3)
    near = [low, high, low - 1, high + 1, low + 1]
    return st.sampled_from(near if kind == "integer" else [*map(float, near), (low + high) / 2])


def strings(schema: Schema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.just("2026-01-01T00:00:00.5Z")
    if "h)?" in schema.get("pattern", ""):
        return st.sampled_from(
            ["12h", "90m", "1h30m", "45s", "0s", "1d", "", "h", "-1h", "1.5h", "1h 30m", "m1h", "1234567h"]
        )
    names = ["a", "cpu-small", "a.b", "A", "-a", "a-", "a" * 63, "a" * 64, "a" * 254, "", "nvidia.com/gpu"]
    return st.sampled_from(names)


def accepts(model: type[BaseModel], document: Any) -> bool:
    try:
        model.model_validate(document)
    except ValidationError:
        return False
    return True


def mutated(document: Any, chance: random.Random) -> Any:
    """The document with one unknown field somewhere in an object."""
    changed = copy.deepcopy(document)
    at = changed
    while below := [v for k, v in at.items() if isinstance(v, dict) and k not in ("manifest", "nodeSelector", "env")]:
        if chance.random() < 0.4:
            break
        at = chance.choice(below)
    at["unknownField"] = 1
    return changed


@KINDS
def test_a_spec_is_taken_by_the_schema_exactly_when_the_model_takes_it(kind: crd.Kind) -> None:
    schema = crd.schema_of(kind)["properties"]["spec"]
    validator = jsonschema.Draft4Validator(draft(schema))
    seen = {True: 0, False: 0}

    @settings(max_examples=600, deadline=None)
    @given(values(schema))
    def agree(document: Any) -> None:
        taken = validator.is_valid(document)
        seen[taken] += 1
        assert accepts(kind.spec, document) == taken, [error.message for error in validator.iter_errors(document)]

    agree()
    assert min(seen.values()) > 20, f"the test saw too few of one kind: {seen}"


@KINDS
@given(seed=st.integers(0, 10**6))
def test_an_unknown_field_is_refused_by_both(kind: crd.Kind, seed: int) -> None:
    schema = crd.schema_of(kind)["properties"]["spec"]
    good = GOOD[kind.kind]
    validator = jsonschema.Draft4Validator(draft(schema))
    assert validator.is_valid(good)
    assert accepts(kind.spec, good)
    changed = mutated(good, random.Random(seed))
    assert not validator.is_valid(changed)
    assert not accepts(kind.spec, changed)


GOOD: dict[str, Any] = {
    "TrainingRun": {
        "manifest": {"name": "m", "dataset": {"path": "d"}},
        "compute": {"profile": "cpu"},
        "storage": {"dataset": {"claimName": "d"}, "output": {"claimName": "o", "path": "p"}},
        "limits": {"maxCostUSD": "1.50", "maxRuntime": "1h"},
        "evaluation": {"suites": ["standard"], "baseline": {"runName": "old"}},
    },
    "ComputeProfile": {
        "image": "i",
        "resource": {"perNode": 8},
        "fabric": {"env": {"A": "b"}},
        "security": {"uid": 1000},
    },
    "PromotionPolicy": {"stages": [{"name": "s", "checks": [{"metric": "m", "op": "<", "threshold": 1}]}]},
}


@pytest.mark.parametrize("kind", [kind for kind in crd.KINDS if kind.status], ids=lambda kind: kind.kind)
def test_what_the_operator_writes_into_a_status_fits_the_schema(kind: crd.Kind) -> None:
    schema = crd.schema_of(kind)["properties"]["status"]
    validator = jsonschema.Draft4Validator(draft(schema))
    assert kind.status is not None
    model = kind.status
    written = 0

    @settings(max_examples=300, deadline=None)
    @given(values(schema))
    def fits(document: Any) -> None:
        nonlocal written
        if not accepts(model, document):
            return
        written += 1
        status = model.model_validate(document).model_dump(mode="json", by_alias=True, exclude_none=True)
        assert [error.message for error in validator.iter_errors(status)] == []

    fits()
    assert written > 20
