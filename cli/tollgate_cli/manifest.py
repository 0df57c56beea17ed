"""`tollgate manifest`: validate, show, schema, init; import and wrap stand in files of their own."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from tollgate.contract import ExitCode
from tollgate.manifest.errors import ABSENT, ManifestError, Problem, field_name
from tollgate.manifest.loader import LoadedManifest
from tollgate.manifest.overrides import Change
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.manifest.writing import EXAMPLE, to_yaml
from tollgate_cli import options
from tollgate_cli.errors import UserError
from tollgate_cli.helping import ending
from tollgate_cli.importing import import_
from tollgate_cli.init import Said, fitted
from tollgate_cli.wishes import Wishes, effective
from tollgate_cli.wrapping import wrap


@click.group(epilog=ending("tollgate manifest init --data data.jsonl", "tollgate manifest validate manifest.yaml"))
def manifest() -> None:
    """Write, check and explain training manifests.

    MANIFEST is a file in YAML or JSON, also one with a TrainingRun, whose spec.manifest is taken.
    """


@manifest.command(
    epilog=ending(
        "tollgate manifest validate manifest.yaml",
        "tollgate manifest validate manifest.yaml --set hyperparameters.learning_rate=1e-4",
        then=f"{options.LAYERS} Exit codes: 0 valid, 2 wrong usage, 64 not valid; "
        "every problem is told with its line, field, value and fix.",
    )
)
@options.ARGUMENT
@options.overriding_a_run
@options.form("text", "json")
@click.pass_context
def validate(ctx: click.Context, file: Path, wishes: Wishes, form: str) -> None:
    """Say whether this version can train MANIFEST.

    With --set and the like: whether it could with them. It is what `tollgate run` would check first.
    """
    try:
        found = effective(file, wishes, os.environ)
    except ManifestError as error:
        if form == "text":
            raise
        document = {"valid": False, "source": error.source, "problems": [_problem(each) for each in error.problems]}
        click.echo(json.dumps(document, indent=2))
        ctx.exit(ExitCode.USER)
    loaded = found.loaded
    if form == "json":
        click.echo(json.dumps({"valid": True, "source": loaded.source, "digest": loaded.digest}, indent=2))
    else:
        click.echo(f"{loaded.source}: valid, {len(loaded.canonical)} bytes, {loaded.digest}")


def _problem(problem: Problem) -> dict[str, Any]:
    document: dict[str, Any] = {"field": problem.field, "message": problem.message, "fix": problem.fix}
    if problem.value is not ABSENT:
        document["value"] = problem.value if _is_json(problem.value) else str(problem.value)
    return document | ({"line": problem.line} if problem.line else {})


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


@manifest.command(
    epilog=ending(
        "tollgate manifest show manifest.yaml",
        "tollgate manifest show manifest.yaml --quick-test -o json | jq .changes",
        then="The digest is what `tollgate run` with the same options, and a cluster, records and checks: that of the "
        "manifest as written with what stands over it, before defaults.",
    )
)
@options.ARGUMENT
@options.overriding_a_run
@options.form("yaml", "json")
def show(file: Path, wishes: Wishes, form: str) -> None:
    """Show what MANIFEST would train, with all defaults.

    Short forms are resolved. What --overlay, the environment, --set and the flags changed is told first, with its
    origin and its value before.
    """
    found = effective(file, wishes, os.environ)
    loaded, document = found.loaded, complete(found.loaded)
    if form == "json":
        changes = [_change(change) for change in found.changes]
        answer = {"source": loaded.source, "digest": loaded.digest, "changes": changes, "manifest": document}
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        lines = [loaded.source, loaded.digest, *(f"changed: {change}" for change in found.changes)]
        told = "\n".join(f"# {line}".replace("\n", " ") for line in lines)
        click.echo(f"{told}\n{to_yaml(document)}", nl=False)


def _change(change: Change) -> dict[str, Any]:
    values = {
        name: value for name, value in (("before", change.before), ("after", change.after)) if value is not ABSENT
    }
    return {"field": field_name(change.path), "origin": change.origin, **values}


def complete(loaded: LoadedManifest) -> dict[str, Any]:
    """The manifest with all defaults that have effect, in the order of the reference; it loads as the same manifest."""
    document = loaded.manifest.model_dump(mode="json", exclude_none=True)
    if document["adapter"]["type"] == "none":
        document["adapter"] = {"type": "none"}
    return document


manifest.add_command(import_)
manifest.add_command(wrap)


@manifest.command(
    epilog=ending(
        "tollgate manifest schema > manifest.schema.json",
        then="An editor with a YAML language server takes it from the first line of a manifest: "
        "# yaml-language-server: $schema=manifest.schema.json",
    )
)
def schema() -> None:
    """Print the JSON schema of the manifest, for editors."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TrainingManifest.model_json_schema()}
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


@manifest.command(
    epilog=ending(
        "tollgate manifest init --data data.jsonl",
        "tollgate manifest init --data data.jsonl --base models/small lora.yaml",
        "tollgate manifest init --data tickets.csv --text-field Message --label-field Team teams.yaml",
        "tollgate manifest init -              # the annotated example, printed",
    )
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="manifest.yaml")
@click.option(
    "--data",
    type=options.Named("Name a data file, or a folder of them.", folders=True),
    metavar="PATH",
    help="Fit it to this data: format, length, batch, share held out.",
)
@click.option("--base", metavar="FOLDER", help="With --data: the model to start from, relative to FILE's folder.")
@click.option(
    "--format", "format", metavar="FORMAT", help="With --data: what a record is.  [default: by what it holds]"
)
@click.option("--text-field", metavar="NAME", help="With --data: where the text stands.  [default: text]")
@click.option("--label-field", metavar="NAME", help="With --data: where the label stands.  [default: label]")
def init(
    file: Path,
    data: Path | None,
    base: str | None,
    format: str | None,
    text_field: str | None,
    label_field: str | None,
) -> None:
    """Write a manifest with comments to FILE.

    FILE is manifest.yaml where it is not named; - prints. A file that exists is never overwritten.
    """
    said = Said(format, text_field, label_field)
    if base is not None and data is None:
        raise UserError("--base goes with --data, whose tokens it counts. Add --data FILE.")
    if said.options() and data is None:
        raise UserError(f"{said.options()[-2]} says something about --data. Add --data FILE.")
    if file.exists():
        raise UserError(f"{file} exists. Name another file, or remove it first.")
    text = EXAMPLE if data is None else fitted(data, file, base, said)
    if str(file) == "-":
        click.echo(text, nl=False)
        return
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UserError(f"{file} exists. Name another file, or remove it first.") from error
    except OSError as error:
        with suppress(OSError):
            if file.stat().st_size < len(text.encode()):
                file.unlink()  # a disk that is full leaves the beginning, which would stand in the next one's way
        raise UserError(
            f"{file} cannot be written: {error.strerror}. Name a file in a folder that you may write to."
        ) from error
    if data is None:
        click.echo(f"{file} written. Set dataset.path, then: tollgate manifest validate {file}")
    else:
        click.echo(f"{file} written. See what it teaches: tollgate dataset preview {file}")
