"""`tollgate report FOLDER` and `tollgate report compare A B`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tollgate_cli.helping import ending
from tollgate_cli.options import RUN
from tollgate_trainer.laptop import options, subject
from tollgate_trainer.laptop.preparation import LaptopError

PDF = "report.pdf"
COMPARED = "compare.html"


class Reports(click.Group):
    """A group that shows a run where no subcommand is named: `tollgate report FOLDER`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`show` stands before anything that is neither a subcommand nor a question for help."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=Reports,
    subcommand_metavar="[FOLDER [--pdf [FILE]] [--open] | compare A B]",
    epilog=ending(
        "tollgate report runs/my-model --pdf",
        "tollgate report compare runs/first runs/second",
        then="A folder that is called as a subcommand is named with its path, such as ./compare.",
    ),
)
def report() -> None:
    """Make the report of a run, or compare two runs.

    FOLDER is a run's output folder, such as runs/my-model.
    """


@report.command(epilog=ending("tollgate report runs/my-model --pdf my-model.pdf"))
@click.argument("folder", type=RUN, required=False)
@click.option(
    "--pdf",
    "pdf",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help=f"Print it as PDF too, by a Chromium or Chrome of this machine.  [default: {PDF} beside the page]",
)
@click.option(
    "--quotes/--no-quotes",
    "quotes",
    default=None,
    help="Whether samples and the worst documents are quoted, now and when the page is refreshed.  [default: as "
    "before; at first as report.quotes of the manifest says]",
)
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
def show(folder: Path | None, pdf: str | None, quotes: bool | None, open_it: bool) -> int:
    """Make the report of a run and say where it lies.

    It is what `tollgate report FOLDER` does, FOLDER being the run's output folder.
    """
    from tollgate_trainer.report import pdf as printing
    from tollgate_trainer.report import privacy, write

    if folder is None and pdf and Path(pdf).is_dir():
        folder, pdf = Path(pdf), ""  # `--pdf FOLDER`: the folder was meant
    if folder is None:
        raise LaptopError("say which run: tollgate report FOLDER, such as runs/my-model")
    subject.started(folder)
    if quotes and privacy.forbidden(folder):
        raise LaptopError(f"--quotes: the manifest of {folder} says report.quotes: false, so nothing was kept to quote")
    if quotes is not None:
        privacy.note(folder, quotes)
    path = write(folder)
    click.echo(path)
    if pdf is not None:
        target = Path(pdf) if pdf else path.with_name(PDF)
        try:
            click.echo(printing.write(path, target))
        except printing.PdfError as error:
            raise LaptopError(f"--pdf: {error} ({path})") from error
    if open_it:
        click.launch(str(path))
    return 0


@report.command(epilog=ending("tollgate report compare runs/first runs/second -o json | jq .metrics"))
@click.argument("a", type=RUN)
@click.argument("b", type=RUN)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Where the page goes.  [default: report/{COMPARED} in B]",
)
@options.JSON
def compare(a: Path, b: Path, out: Path | None, form: str) -> int:
    """Hold two runs side by side.

    A and B are output folders; compared are settings, metrics, losses, time and cost.
    """
    from tollgate_trainer.report import compare as comparing

    found, path = comparing.write(a, b, out or b / "report" / COMPARED)
    if form == "json":
        click.echo(json.dumps(comparing.document(found) | {"page": str(path)}, indent=1))
        return 0
    console, names = Console(), comparing.names(found)
    for note in found.notes:
        console.print(Text(note, style="yellow"))
    amounts = _table("", *names)
    for row in found.amounts:
        amounts.add_row(row.name, *(Text(comparing.told(x, row.unit)) for x in (row.a, row.b)))
    for pair in found.metrics:
        amounts.add_row(Text(pair.name), *(Text(_metric(one)) for one in (pair.a, pair.b)))
    console.print(amounts)
    if found.settings:
        differing = _table("setting", *names)
        for setting in found.settings:
            differing.add_row(
                Text(setting.name), *(Text("default" if x is None else x) for x in (setting.a, setting.b))
            )
        console.print(differing)
    else:
        console.print("no setting differs")
    click.echo(path)
    return 0


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(Text(name), overflow="fold")
    return table


def _metric(one: object) -> str:
    from tollgate.gates.evidence import Measured
    from tollgate_trainer.report.format import number

    if not isinstance(one, Measured):
        return "not measured"
    bounds = f" ({number(one.lower)} to {number(one.upper)})" if one.lower is not None or one.upper is not None else ""
    return f"{number(one.value)}{bounds}" + (", advisory" if one.advisory else "")
