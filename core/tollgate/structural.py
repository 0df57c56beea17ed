"""Pydantic models -> structural schemas, as Kubernetes calls the schemas that a CRD may have.

A structural schema knows no references, no null, no unions of types and no closed objects (unknown fields are pruned,
or refused
by clients that validate strictly). So references are written out, and optional fields are absent instead of null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

Schema = dict[str, Any]
Where = tuple[str, ...]

_DROPPED = frozenset({"title", "discriminator", "writeOnly", "readOnly"})
_IMPOSSIBLE = ("patternProperties", "prefixItems", "oneOf", "not", "if", "uniqueItems", "$defs")


@dataclass(frozen=True, slots=True)
class Rule:
    """One CEL rule. `reason` is the API server's word for the error; `field` a path below the value that the rule
    stands on.
    """

    rule: str
    message: str
    field: str | None = None

    def to_schema(self) -> Schema:
        """As it stands in x-kubernetes-validations."""
        return {"rule": self.rule, "message": self.message} | ({"fieldPath": self.field} if self.field else {})


class _Optional(GenerateJsonSchema):
    """Optional fields are absent, never null; defaults are the model's own affair."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """The schema of the value alone."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """The schema without the default."""
        return self.generate_inner(schema["schema"])


def structural(model: type[BaseModel]) -> Schema:
    """The model as a structural schema, with every reference written out."""
    schema = model.model_json_schema(by_alias=True, schema_generator=_Optional)
    definitions = schema.pop("$defs", {})
    return _plain(schema, definitions, (model.__name__,))


def _plain(schema: Schema, definitions: dict[str, Schema], trail: Where) -> Schema:
    """One node of pydantic's schema as a node of a structural one."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in trail:
            raise ValueError(f"{'.'.join(trail)}: {name} holds itself, which a CRD cannot say")
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        return _plain(definitions[name] | siblings, definitions, (*trail, name))
    if bad := [key for key in _IMPOSSIBLE if key in schema]:
        raise ValueError(f"{'.'.join(trail)}: {', '.join(bad)} cannot stand in a CRD")
    if "anyOf" in schema and not schema.get("x-kubernetes-int-or-string"):
        raise ValueError(f"{'.'.join(trail)}: a union cannot stand in a CRD, except an int-or-string")
    node: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            node[key] = {name: _plain(item, definitions, (*trail, name)) for name, item in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            node[key] = _plain(value, definitions, (*trail, "[]"))
        elif key == "propertyNames":
            node.setdefault("x-kubernetes-validations", []).append(_key_length(value, trail).to_schema())
        else:
            node |= _keyword(key, value)
    return node


def _keyword(key: str, value: Any) -> Schema:
    """One keyword without schemas below it, as the OpenAPI of CRDs spells it."""
    if key in _DROPPED or (key == "additionalProperties" and value is False):
        return {}
    if key == "const":
        return {"enum": [value]}
    if key in ("exclusiveMinimum", "exclusiveMaximum"):
        return {key.replace("exclusiveM", "m"): value, key: True}
    if key == "description":
        return {key: " ".join(value.split())}
    return {key: value}


def _key_length(names: Schema, trail: Where) -> Rule:
    """Keys of a map have no schema in a CRD."""
    if set(names) - {"type"} != {"maxLength"}:
        raise ValueError(f"{'.'.join(trail)}: of a map's keys only the length can be limited, not {names}")
    return Rule(f"self.all(k, size(k) <= {names['maxLength']})", f"a key has at most {names['maxLength']} characters")


def at(schema: Schema, where: Where) -> Schema:
    """The node at a path of property names and "[]" for the items of a list."""
    for part in where:
        below = schema.get("items") if part == "[]" else schema.get("properties", {}).get(part)
        if not isinstance(below, dict):
            raise ValueError(f"there is no {part} in {'.'.join(where)}")
        schema = below
    return schema
