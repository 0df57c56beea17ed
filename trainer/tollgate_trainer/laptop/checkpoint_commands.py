"""`tollgate checkpoint list | verify | prune`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tollgate.contract import Files
from tollgate_cli.helping import ending
from tollgate_trainer.laptop import options
from tollgate_trainer.laptop.kept import Folder, Kept, shelf
from tollgate_trainer.laptop.preparation import LaptopError, occupied
from tollgate_trainer.lifecycle.rotation import surplus

DAMAGED = 1
WHERE = click.argument("where", metavar="FOLDER|s3://BUCKET/PREFIX")


@click.group(
    epilog=ending("tollgate checkpoint list runs/my-model", "tollgate checkpoint verify s3://bucket/runs/my-model")
)
def checkpoint() -> None:
    """List, check and remove the checkpoints of a run.

    FOLDER is a run's output folder, such as runs/my-model; a run with checkpoint.uri is followed to its store.
    """


@checkpoint.command(
    "list", epilog=ending("tollgate checkpoint list runs/my-model", "tollgate checkpoint list runs/my-model -o json")
)
@WHERE
@options.JSON
def list_(where: str, form: str) -> int:
    """Show each committed checkpoint.

    Its step, time, size, whether it looks whole, the newest and the best. Presence and sizes of its files are looked
    at; `verify` reads them.
    """
    found = shelf(where)
    _tell(found.name, found.list(thorough=False), form)
    return 0


@checkpoint.command(epilog=ending("tollgate checkpoint verify s3://bucket/runs/my-model && echo whole"))
@WHERE
@options.JSON
def verify(where: str, form: str) -> int:
    """Read every byte of every checkpoint.

    It is compared with what was committed. Exit code 0 when all are whole and there is one, else 1.
    """
    found = shelf(where)
    kept = found.list(thorough=True)
    _tell(found.name, kept, form)
    return 0 if kept and all(one.problem is None for one in kept) else DAMAGED


@checkpoint.command(epilog=ending("tollgate checkpoint prune runs/my-model --keep-last 1 --keep-best 1 --dry-run"))
@WHERE
@click.option("--keep-last", type=click.IntRange(min=1), default=2, show_default=True, help="So many newest stay.")
@click.option("--keep-best", type=click.IntRange(min=0), default=0, show_default=True, help="So many best stay, too.")
@click.option("--metric", metavar="NAME", default="eval_loss", show_default=True, help="What is best by --keep-best.")
@click.option("--mode", type=click.Choice(["min", "max"]), default="min", show_default=True, help="Which end is best.")
@click.option("--after", type=click.IntRange(min=0), metavar="STEP", help="Remove those after STEP instead.")
@click.option("--all", "everything", is_flag=True, help="Remove all instead.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@options.JSON
def prune(
    where: str,
    keep_last: int,
    keep_best: int,
    metric: str,
    mode: str,
    after: int | None,
    everything: bool,
    dry_run: bool,
    form: str,
) -> int:
    """Remove checkpoints.

    Of each its commit goes first, so that a half removed one never counts. The run's best one stays, but for --after
    and --all. A run that is at work in FOLDER is not disturbed.
    """
    if everything and after is not None:
        raise LaptopError("--all and --after are two wishes; give one")
    found = shelf(where)
    held = isinstance(found, Folder) and found.root.name == Files.CHECKPOINTS and not dry_run
    with occupied(Path(found.name).parent) if held else contextlib.nullcontext():
        kept = found.list(thorough=False)
        if everything or after is not None:
            steps = [one.step for one in kept if everything or one.step > (after or 0)]
        else:
            scored = [(one.step, one.metrics.get(metric)) for one in kept]
            steps = surplus(scored, keep_last, keep_best, mode, {one.step for one in kept if one.best})
        removed = [one for one in kept if one.step in steps]
        if not dry_run:
            for one in removed:
                found.remove(one.step)
    freed = sum(one.size for one in removed)
    if form == "json":
        document = {"place": found.name, "dryRun": dry_run, "removed": [one.document() for one in removed]}
        click.echo(json.dumps(document | {"kept": sorted({one.step for one in kept} - set(steps))}, indent=1))
    else:
        would = "would be removed" if dry_run else "removed"
        for one in removed:
            click.echo(f"{one.place}: {would}")
        click.echo(f"{len(removed)} of {len(kept)} checkpoints {would}, {size(freed)}")
    return 0


def _tell(name: str, kept: Sequence[Kept], form: str) -> None:
    if form == "json":
        click.echo(json.dumps({"place": name, "checkpoints": [one.document() for one in kept]}, indent=1))
        return
    if not kept:
        click.echo(f"{name}: no committed checkpoint")
        return
    table = Table(title=name, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for title, right in (("step", True), ("saved at", False), ("size", True), ("attempt", True), ("", False)):
        table.add_column(title, justify="right" if right else "left")
    table.add_column("whole")
    for one in kept:
        marks = ", ".join(word for word, holds in (("newest", one.newest), ("best", one.best)) if holds)
        whole = Text("yes", style="green") if one.problem is None else Text(f"NO: {one.problem}", style="bold red")
        when = f"{one.saved_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(one.step), when, size(one.size), str(one.attempt), marks, whole)
    Console().print(table)


def size(count: int) -> str:
    """`12.3 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"
