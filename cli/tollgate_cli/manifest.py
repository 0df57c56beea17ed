"""`tollgate manifest`: validate, show, schema, init; import and wrap stand in files of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tollgate.contract import ExitCode
from tollgate.manifest.errors import ABSENT, ManifestError, Problem
from tollgate.manifest.loader import LoadedManifest, load_file
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.manifest.writing import EXAMPLE, to_yaml
from tollgate_cli.errors import UserError
from tollgate_cli.importing import import_
from tollgate_cli.init import fitted
from tollgate_cli.wrapping import wrap

FILE = click.argument("file", type=click.Path(path_type=Path))
OUTPUT = click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to answer.")


@click.group()
def manifest() -> None:
    """Write, check and explain training manifests.

    FILE is a manifest in YAML or JSON, or a TrainingRun object, whose spec.manifest is taken.
    """


@manifest.command()
@FILE
@OUTPUT
@click.pass_context
def validate(ctx: click.Context, file: Path, output: str) -> None:
    """Say whether FILE is a manifest that this version can train.

    Exit code 0 when it is, 64 when not; every problem is told with its line, field, value and fix.
    """
    try:
        loaded = load_file(file)
    except ManifestError as error:
        if output == "text":
            raise
        document = {"valid": False, "source": error.source, "problems": [_problem(each) for each in error.problems]}
        click.echo(json.dumps(document, indent=2))
        ctx.exit(ExitCode.USER)
    if output == "json":
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


@manifest.command()
@FILE
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="How to show it.")
def show(file: Path, output: str) -> None:
    """Show FILE as the trainer sees it: short forms resolved, defaults filled in.

    The digest is that of the manifest as written; it is what a cluster records and checks.
    """
    loaded = load_file(file)
    document = complete(loaded)
    if output == "json":
        answer = {"source": loaded.source, "digest": loaded.digest, "manifest": document}
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        click.echo(f"# {loaded.source}\n# {loaded.digest}\n{to_yaml(document)}", nl=False)


def complete(loaded: LoadedManifest) -> dict[str, Any]:
    """The manifest with all defaults that have effect, in the order of the reference; it loads as the same manifest."""
    document = loaded.manifest.model_dump(mode="json", exclude_none=True)
    if document["adapter"]["type"] == "none":
        document["adapter"] = {"type": "none"}
    return document


manifest.add_command(import_)
manifest.add_command(wrap)


@manifest.command()
def schema() -> None:
    """Print the JSON schema of the manifest, for editors."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TrainingManifest.model_json_schema()}
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


@manifest.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="manifest.yaml")
@click.option("--data", type=click.Path(path_type=Path), help="Fit it to this data file: format, length, batch.")
@click.option("--base", metavar="FOLDER", help="With --data: the model to start from, relative to FILE's folder.")
def init(file: Path, data: Path | None, base: str | None) -> None:
    """Write a manifest with comments to FILE (manifest.yaml). `-` prints it.

    A file that exists is never overwritten. For your own data:  tollgate manifest init --data data.jsonl
    """
    if base is not None and data is None:
        raise UserError("--base goes with --data, whose tokens it counts. Add --data FILE.")
    if file.exists():
        raise UserError(f"{file} exists. Name another file, or remove it first.")
    text = EXAMPLE if data is None else fitted(data, file, base)
    if str(file) == "-":
        click.echo(text, nl=False)
        return
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UserError(f"{file} exists. Name another file, or remove it first.") from error
    except OSError as error:
        raise UserError(
            f"{file} cannot be written: {error.strerror}. Name a file in a folder that you may write to."
        ) from error
    if data is None:
        click.echo(f"{file} written. Set dataset.path, then: tollgate manifest validate {file}")
    else:
        click.echo(f"{file} written. See what it teaches: tollgate dataset preview {file}")
