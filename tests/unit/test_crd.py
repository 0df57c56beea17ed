"""The CRDs: structural, in sync with the models, and complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel

from tollgate import crd, reference
from tollgate.structural import at, structural

ROOT = Path(__file__).parents[2]

# What JSONSchemaProps of apiextensions.k8s.io/v1 knows and a structural schema may hold.
ALLOWED = {
    *("type", "description", "format", "properties", "required", "items", "additionalProperties", "enum", "default"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "anyOf"),
    *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}

Schema = dict[str, Any]


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every node of a schema with its path."""
    yield path, schema
    for name, node in schema.get("properties", {}).items():
        yield from nodes(node, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


EVERY = [
    pytest.param(path, node, id=f"{kind.kind}{path}") for kind in crd.KINDS for path, node in nodes(crd.schema_of(kind))
]


def test_the_files_are_what_the_models_say() -> None:
    assert crd.stale(ROOT / "crds") == [], "run `python -m tollgate.crd --write`"
    assert reference.stale(ROOT / "docs/reference") == [], "run `python -m tollgate.reference --write`"


@pytest.mark.parametrize(("path", "node"), EVERY)
def test_every_node_is_structural(path: str, node: Schema) -> None:
    assert set(node) <= ALLOWED
    if node.get("x-kubernetes-int-or-string"):
        assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}]
        assert "type" not in node
    else:
        assert node["type"] in ("object", "array", "string", "integer", "number", "boolean")
        assert "anyOf" not in node
    assert not ("properties" in node and "additionalProperties" in node)
    assert isinstance(node.get("exclusiveMinimum", False), bool)
    assert isinstance(node.get("exclusiveMaximum", False), bool)
    assert (node.get("type") == "array") == ("items" in node)
    for name in node.get("required", []):
        assert name in node["properties"]
    for rule in node.get("x-kubernetes-validations", []):
        assert rule["message"]
        if "fieldPath" in rule:
            assert rule["fieldPath"].removeprefix(".") in node["properties"]
    for key in node.get("x-kubernetes-list-map-keys", []):
        assert key in node["items"]["required"]


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.kind)
def test_what_a_user_may_write_is_bounded(kind: crd.Kind) -> None:
    # Without bounds CEL rules cost too much, and one object can fill etcd.
    for path, node in nodes(crd.schema_of(kind)["properties"]["spec"]):
        if node.get("type") == "string" and not path.startswith(".manifest"):
            assert "maxLength" in node or "enum" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if isinstance(node.get("additionalProperties"), dict):
            assert "maxProperties" in node, path


def test_the_manifest_is_required_but_never_pruned() -> None:
    manifest = at(crd.schema_of(crd.TRAINING_RUN), ("spec", "manifest"))
    assert manifest["required"] == ["name", "dataset"]
    assert manifest["x-kubernetes-preserve-unknown-fields"] is True
    assert manifest["properties"]["dataset"]["x-kubernetes-preserve-unknown-fields"] is True


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.kind)
def test_stored_defaults_are_the_models_own(kind: crd.Kind) -> None:
    for where, default in kind.defaults.items():
        model: Any = kind.spec
        for name in where[1:-1]:
            model = reference.section_of(field(model, name).annotation)
        assert field(model, where[-1]).default == default
    stored = {path for path, node in nodes(crd.schema_of(kind)) if "default" in node}
    assert stored == {f".{'.'.join(where)}" for where in kind.defaults}


def field(model: type[BaseModel], alias: str) -> Any:
    return next(info for name, info in model.model_fields.items() if alias in (name, info.alias))


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.kind)
def test_columns_show_fields_that_exist(kind: crd.Kind) -> None:
    schema = crd.schema_of(kind)
    for column in kind.columns:
        if column.path.startswith(".metadata"):
            continue
        at(schema, tuple(part for part in re.split(r"\.|(?=\[)", column.path.replace("[0]", ".[]")) if part))


def test_check_fails_and_write_mends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "crds"
    assert crd.main(["--check", "--to", str(folder)]) == 1
    assert "run `python -m tollgate.crd --write`" in capsys.readouterr().err
    assert crd.main(["--write", "--to", str(folder)]) == 0
    assert crd.main(["--check", "--to", str(folder)]) == 0
    changed = folder / f"{crd.TRAINING_RUN.name}.yaml"
    changed.write_text(changed.read_text(encoding="utf-8").replace("trun", "tr"), encoding="utf-8")
    (folder / "of-no-kind.yaml").write_text("{}", encoding="utf-8")
    assert crd.stale(folder) == ["of-no-kind.yaml", changed.name]
    assert crd.main(["--write", "--to", str(folder)]) == 0
    assert crd.stale(folder) == []


def test_the_files_are_objects_that_kubectl_can_apply() -> None:
    for name, text in crd.files().items():
        document = yaml.safe_load(text)
        assert document["kind"] == "CustomResourceDefinition"
        assert f"{document['metadata']['name']}.yaml" == name
        assert len(text) < 250_000  # kubectl apply keeps a copy in an annotation of at most 256 KiB


# --- what cannot be said is an error, not a hole ----------------------------------------------------------------------


class Recursive(BaseModel):
    again: Recursive | None = None


class Union(BaseModel):
    either: int | str


class Pair(BaseModel):
    pair: tuple[int, str]


class Unique(BaseModel):
    members: set[str]


class Single(BaseModel):
    only: Literal["one"]
    maybe: float | None = None


@pytest.mark.parametrize(
    ("model", "message"),
    [(Recursive, "holds itself"), (Union, "a union"), (Pair, "prefixItems"), (Unique, "uniqueItems")],
)
def test_a_model_that_a_crd_cannot_say_is_refused(model: type[BaseModel], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        structural(model)


def test_constants_and_optionals_are_plain() -> None:
    assert structural(Single)["properties"] == {
        "only": {"enum": ["one"], "type": "string"},
        "maybe": {"type": "number"},
    }


def test_a_rule_on_a_path_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"there is no limit in spec\.limit"):
        at(crd.schema_of(crd.TRAINING_RUN), ("spec", "limit"))
