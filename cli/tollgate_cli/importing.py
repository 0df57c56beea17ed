"""`tollgate manifest import`: a configuration from elsewhere becomes a manifest, with nothing dropped silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tollgate.manifest.errors import show
from tollgate.manifest.foreign.importing import Imported, Mapped, Unmapped, import_files
from tollgate.manifest.overrides import setting
from tollgate.manifest.writing import to_yaml
from tollgate_cli.errors import UserError
from tollgate_cli.helping import ending
from tollgate_cli.options import Named, form

INCOMPLETE = 1
FILES = Named("Name a configuration in JSON or YAML.")


@click.command(
    "import",
    epilog=ending(
        "tollgate manifest import training.json tracking.json --to manifest.yaml",
        "tollgate manifest import axolotl.yaml --to - --set dataset.path=data/train.jsonl",
        then="Exit codes: 0 all that matters was mapped, 1 written but something important was not mapped, 2 wrong "
        "usage, 64 nothing written.",
    ),
)
@click.argument("files", nargs=-1, required=True, type=FILES)
@click.option("--to", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Where to; - prints.")
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="A field that the files lack. Repeatable."
)
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
@form("text", "json")
def import_(files: tuple[Path, ...], to: Path, settings: tuple[str, ...], force: bool, form: str) -> int:
    """Make a manifest of another tool's configuration.

    Several FILES are read as one: flat JSON with transformers' names, Axolotl's YAML, YAML with sections (model,
    training, data, experiment) and Hydra-style YAML. Every key is told: what it became, or why it was not mapped. The
    manifest is checked by the strict loader.
    """
    output, printed = to, str(to) == "-"
    if output.exists() and not printed and not force:
        raise UserError(f"{output} exists. Name another file, or give --force.")
    try:
        contents = [(str(path), path.read_bytes()) for path in files]
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from error
    found = import_files(contents, files[0].stem, [setting(text) for text in settings])
    text = _file(found, [str(path) for path in files])
    if printed:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{output} cannot be written: {error.strerror}.") from error
    if form == "json":
        click.echo(json.dumps(_document(found, output), indent=2, ensure_ascii=False), err=printed)
    else:
        _tell(found, output, Console(stderr=printed))
    return 0 if found.complete else INCOMPLETE


def _file(found: Imported, files: list[str]) -> str:
    """The manifest with the list of what is not in it, so that the list stays with it."""
    lines = [f"# Imported from {', '.join(files)} ({found.shape})."]
    lines += [f"# assumed: {text}" for text in found.assumed]
    lines += [
        f"# not mapped{'' if one.important else ' (harmless)'}: {one.key} = {show(one.value)}: {one.reason}"
        for one in sorted(found.unmapped, key=lambda one: not one.important)
    ]
    return "\n".join([*(line.replace("\n", " ") for line in lines), to_yaml(found.loaded.document)])


def _document(found: Imported, output: Path) -> dict[str, Any]:
    def mapped(one: Mapped) -> dict[str, Any]:
        note = {"note": one.note} if one.note else {}
        return {"key": one.key, "file": one.source, "field": one.field, "value": one.value, **note}

    def unmapped(one: Unmapped) -> dict[str, Any]:
        told = {"key": one.key, "file": one.source, "value": one.value, "reason": one.reason}
        return told | {"important": one.important}

    return {
        "output": str(output),
        "digest": found.loaded.digest,
        "shape": found.shape,
        "complete": found.complete,
        "mapped": [mapped(one) for one in found.mapped],
        "unmapped": [unmapped(one) for one in found.unmapped],
        "assumed": list(found.assumed),
    }


def _tell(found: Imported, output: Path, console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("key", "became", "value"):
        table.add_column(name, overflow="fold")
    for one in found.mapped:
        value = f"{show(one.value)}{f'  ({one.note})' if one.note else ''}"
        table.add_row(*map(Text, (one.key, one.field, value)))  # what is in brackets there is no markup
    console.print(table)
    for text in found.assumed:
        console.print(f"assumed: {text}", markup=False, highlight=False)
    for important, title in ((True, "NOT mapped, and important:"), (False, "not mapped, harmless:")):
        rows = [one for one in found.unmapped if one.important is important]
        if rows:
            console.print(title, style="bold red" if important else "dim")
        for row in rows:
            console.print(
                f"  {row.key} = {show(row.value)}: {row.reason}", markup=False, highlight=False, soft_wrap=True
            )
    count = sum(one.important for one in found.unmapped)
    console.print(
        f"{output}: {len(found.mapped)} keys mapped, {len(found.unmapped)} not, {count} of them important. "
        f"Valid; next: tollgate run {output} --quick-test",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
