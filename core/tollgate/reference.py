"""The reference pages, from the models: `python -m tollgate.reference --write`, or `--check` that they are in sync."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tollgate.contract import API_VERSION, MAX_MANIFEST_BYTES
from tollgate.crd import KINDS, Kind, schema_of
from tollgate.generated import Generated
from tollgate.manifest.support import NOT_YET
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.manifest.validation import fields, section_of
from tollgate.manifest.writing import EXAMPLE
from tollgate.structural import Schema

MARK = "<!-- Written by `python -m tollgate.reference --write` from the models; do not edit. -->\n"


# --- the manifest -----------------------------------------------------------------------------------------------------

_MANIFEST_RULES = f"""\
The manifest is one document in YAML or JSON. The same file runs on a laptop (`tollgate run FILE`) and on a cluster, as
`spec.manifest` of a [TrainingRun](resources.md). Its digest is the SHA-256 of its RFC 8785 JSON, without nulls and
before defaults: comments, order and `1.0` against `1` do not change it.

- Required are `name` and `dataset.path`. `null` means absent. Unknown keys are errors.
- At most {MAX_MANIFEST_BYTES} bytes as canonical JSON; numbers within 2^53; no anchors, aliases, tags or duplicate keys
  in YAML.
- A plain YAML value that readers take for different things (`no`, `010`, `1:30`, `1_000`, `2024-01-01`) must be quoted.
  `1e-4` is a number.
- Paths are relative: to the manifest's own folder on a laptop, to the volume's folder on a cluster. They may not leave
  it, and there are no absolute ones.
- Two spellings of one thing that differ are an error: `seed` and `reproducibility.seed`, `bf16`/`fp16` and `precision`,
  `evaluation_enabled` and `evaluation.enabled`, `wandb_logging`/`wandb_project` and `tracking.wandb`; so are
  `warmup_steps` with `warmup_ratio`, and `model.base` with `model.config`.
"""


def manifest_page() -> str:
    """docs/reference/manifest.md."""
    parts = ["# The training manifest\n", MARK, _MANIFEST_RULES, f"```yaml\n{EXAMPLE}```\n"]
    parts.append("## Top level\n\n" + _table(TrainingManifest, ""))
    for path, section in fields():
        if section is not None:
            name = ".".join(map(str, path))
            parts.append(f"## `{name}`\n\n{_doc(section)}\n\n" + _table(section, f"{name}."))
    rows = "\n".join(f"| `{row.field}` | {_values(row.works)} | {_cell(row.instead)} |" for row in NOT_YET)
    parts.append(
        "## Not in this version\n\nOther values of these fields than the ones below are refused, never ignored.\n\n"
        f"| field | has effect | instead |\n|---|---|---|\n{rows}\n"
    )
    return "\n".join(parts)


def _table(model: type[BaseModel], prefix: str) -> str:
    schema = model.model_json_schema()
    rows = []
    for name, info in model.model_fields.items():
        if section_of(info.annotation) is not None:
            meaning = info.description or _doc(section_of(info.annotation))
            rows.append(f"| `{name}` | [section](#{_anchor(prefix + name)}) | {_default(info)} | {_cell(meaning)} |")
        else:
            kind = _type(schema["properties"][name])
            rows.append(f"| `{name}` | {kind} | {_default(info)} | {_cell(info.description or '')} |")
    return "| field | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _doc(model: type[BaseModel] | None) -> str:
    return " ".join((model.__doc__ or "").split()) if model else ""


def _anchor(name: str) -> str:
    return name.replace(".", "").lower()


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    return "" if value is None or isinstance(value, BaseModel) else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _values(values: tuple[Any, ...]) -> str:
    return ", ".join("absent" if value is None else f"`{_plain(value)}`" for value in values)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# --- the custom resources ---------------------------------------------------------------------------------------------


def resources_page() -> str:
    """docs/reference/resources.md."""
    parts = [
        "# Custom resources\n",
        MARK,
        f"Group and version: `{API_VERSION}`. Money is in USD, a decimal string or a whole number, below a billion,\n"
        "with at most six decimals. Durations are `12h`, `90m`, `1h30m`, `45s`. All kinds: `kubectl get tollgate`.\n",
    ]
    parts += [_kind(kind) for kind in KINDS]
    return "\n".join(parts)


def _kind(kind: Kind) -> str:
    schema = schema_of(kind)
    parts = [
        f"## {kind.kind}\n",
        f"{_cell(schema['description'])}\n",
        f"{kind.scope}; short name `{kind.short}`.\n",
        f"### {kind.kind}: spec\n",
        _fields(schema["properties"]["spec"], "spec", _defaults(kind.spec, "spec")),
        f"### {kind.kind}: what the API server checks besides\n",
        "\n".join(f"- {_where(where)}{rule.message}." for where, rules in kind.rules.items() for rule in rules) + "\n",
    ]
    if kind.status is not None:
        parts += [f"### {kind.kind}: status\n", _fields(schema["properties"]["status"], "status")]
    return "\n".join(parts)


def _where(where: tuple[str, ...]) -> str:
    return f"`{'.'.join(where).replace('.[]', '[]')}`: " if where else ""


def _fields(schema: Schema, path: str, defaults: dict[str, str] | None = None) -> str:
    rows = []
    for name, node in _walk(schema, path):
        default = f", default `{defaults[name]}`" if defaults and name in defaults else ""
        rows.append(f"| `{name}` | {_type(node)}{default} | {_cell(node.get('description', ''))} |")
    return "| field | type | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _defaults(model: type[BaseModel], path: str) -> dict[str, str]:
    """What the operator takes when a field is absent, as it would be written, by dotted path."""
    found: dict[str, str] = {}
    for name, info in model.model_fields.items():
        where = f"{path}.{info.alias or name}"
        inner = section_of(info.annotation)
        if inner is not None:
            found |= _defaults(inner, where)
        elif (member := _member(info)) is not None:
            found |= _defaults(member, f"{where}[]")
        elif not info.is_required():
            value = info.get_default(call_default_factory=True, validated_data={})
            if value not in (None, "", [], {}):
                found[where] = _written(model, name, value)
    return found


def _member(info: FieldInfo) -> type[BaseModel] | None:
    """The model of a list's items."""
    return next((found for each in get_args(info.annotation) if (found := section_of(each))), None)


def _written(model: type[BaseModel], name: str, value: Any) -> str:
    """The value as the model writes it: seconds as `30m`, micro-USD as dollars."""
    written = model.model_construct(**{name: value}).model_dump(mode="json", include={name})[name]
    return ", ".join(map(str, written)) if isinstance(written, list) else _plain(written)


def _walk(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    required = schema.get("required", [])
    for name, node in schema.get("properties", {}).items():
        inner = f"{path}.{name}"
        yield inner, node | ({"x-required": True} if name in required else {})
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            items = node.get("items", {})
            yield from _walk(items, f"{inner}[]") if "properties" in items else _walk(node, inner)


def _type(node: Schema) -> str:
    """A JSON schema node in a few words."""
    text = _base(node)
    if (low := node.get("minimum")) is not None and low != 0:
        text += f", {'>' if node.get('exclusiveMinimum') is True else '>='} {low}"
    elif low is not None:
        text += ", > 0" if node.get("exclusiveMinimum") is True else ", >= 0"
    if (high := node.get("maximum")) is not None and not node.get("x-kubernetes-int-or-string"):
        text += f", {'<' if node.get('exclusiveMaximum') is True else '<='} {high}"
    for key, sign in (("exclusiveMinimum", ">"), ("exclusiveMaximum", "<")):
        if not isinstance(bound := node.get(key, False), bool):
            text += f", {sign} {bound}"
    return text + (" (required)" if node.get("x-required") else "")


def _base(node: Schema) -> str:
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"])
    if node.get("x-kubernetes-int-or-string"):
        return "money" if "maximum" in node else "quantity"
    if "anyOf" in node:
        members = [_base(member) for member in node["anyOf"] if member.get("type") != "null"]
        return " or ".join(dict.fromkeys(members))
    if "const" in node:
        return f"`{node['const']}`"
    kind = node.get("type", "any")
    if kind == "array":
        return f"list of {_base(node.get('items', {}))}"
    if kind == "object" and isinstance(node.get("additionalProperties"), dict):
        return f"map to {_base(node['additionalProperties'])}"
    if kind == "string":
        return (
            "duration" if "h)?" in node.get("pattern", "") else "time" if node.get("format") == "date-time" else "text"
        )
    return {"object": "mapping", "integer": "integer", "number": "number", "boolean": "true or false"}.get(
        kind, str(kind)
    )


# --- files ------------------------------------------------------------------------------------------------------------


def files() -> dict[str, str]:
    """File name -> contents."""
    return {"manifest.md": manifest_page(), "resources.md": resources_page()}


PAGES = Generated("tollgate.reference", "Reference pages from the models.", Path("docs/reference"), files)
stale = PAGES.stale
main = PAGES.main

if __name__ == "__main__":
    sys.exit(main())
