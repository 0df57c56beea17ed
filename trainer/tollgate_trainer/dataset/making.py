"""`tollgate dataset sample | split | convert`: the commands that write files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tollgate_cli.helping import ending
from tollgate_trainer.data.digest import path_digest
from tollgate_trainer.data.document import Document
from tollgate_trainer.data.sources import form_of
from tollgate_trainer.dataset import converting, partition, rows, show
from tollgate_trainer.dataset.draw import draw, strata
from tollgate_trainer.dataset.edge import JSON, DatasetError, reading
from tollgate_trainer.dataset.rows import Output, Table
from tollgate_trainer.dataset.shapes import TARGETS
from tollgate_trainer.dataset.subject import Given

_FORCE = click.option("--force", is_flag=True, help="Write over files that exist.")
_OUTPUT_FILE = click.Path(dir_okay=False, path_type=Path)


def _table(subject: Given) -> Table:
    path = subject.manifest.dataset.path
    if subject.manifest.dataset.sources:
        raise DatasetError(f"{subject.shown} has several sources; name one of its data files instead of the manifest")
    return rows.load(subject.path_of(path, "dataset.path"), path, form_of(subject.manifest))


@click.command(epilog=ending("tollgate dataset sample train.jsonl -n 500 --to small.jsonl"))
@reading
@click.option("-n", "count", type=click.IntRange(min=1), required=True, help="Documents to draw.")
@click.option("--to", type=_OUTPUT_FILE, required=True, help="The file to write; of the same type.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed draws others.")
@_FORCE
@JSON
def sample(subject: Given, count: int, to: Path, seed: int, force: bool, form: str) -> int:
    """Draw documents that are like the whole.

    They go into a file of the same format. Labels, sources and quarters of the length keep their shares. The same seed
    draws the same documents, whatever order the file has.
    """
    table = _table(subject)
    _same_type(table, to)
    documents = [row.document for row in table.rows]
    chosen = [table.rows[place] for place in draw(documents, count, seed)]
    made = [row.document for row in chosen]
    rows.write([Output(to, rows.like(table, chosen, to.suffix), made)], form_of(subject.manifest), force)
    digest, size = path_digest(to, str(to))
    many = sum(map(len, strata(documents)))
    if form == "json":
        answer = {"path": str(to), "documents": len(made), "of": len(documents), "strata": many, "seed": seed}
        click.echo(json.dumps({**answer, "sha256": digest, "sizeBytes": size}, indent=2))
        return 0
    console = Console()
    show.line(console, f"{to}: {show.plural(len(made), 'document')} of {len(documents):,}, from {many:,} strata")
    if len(made) < count:
        show.line(console, f"{subject.shown} has no more, so all were taken.", "yellow")
    if any(document.label is not None for document in documents):
        _label_shares(console, documents, made)
    _left_out(console, table)
    return 0


@click.command(
    epilog=ending(
        "tollgate dataset split data.jsonl --validation 0.1 --test 0.1 --into splits",
        "tollgate dataset split train.jsonl --check validation.jsonl --check test.jsonl",
        then="Exit code 1 when --check finds a group or a text in two files.",
    )
)
@reading
@click.option(
    "--validation", type=click.FloatRange(0, 0.9), default=0.1, show_default=True, help="Share of documents held out."
)
@click.option("--test", type=click.FloatRange(0, 0.9), default=0.0, show_default=True, help="Share for a last test.")
@click.option("--seed", type=int, help="Another division.  [default: that of the trainer]")
@click.option(
    "--into", type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.  [default: the file's own]"
)
@click.option(
    "--check",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Write nothing: look whether this file shares a group or a text with DATA; can be repeated.",
)
@_FORCE
@JSON
def split(
    subject: Given,
    validation: float,
    test: float,
    seed: int | None,
    into: Path | None,
    check: tuple[Path, ...],
    force: bool,
    form: str,
) -> int:
    """Divide a file into training, validation and test files.

    What has one group (--group-field) stays together, and so do equal texts. It depends on nothing but texts and
    groups: no order, no machine.
    """
    table = _table(subject)
    if check:
        return _check(subject, table, check, form)
    if validation + test <= 0 or validation + test >= 1:
        raise DatasetError(f"--validation {validation:g} and --test {test:g} together must lie between 0 and 1")
    documents = [row.document for row in table.rows]
    sides = partition.partition(documents, validation, test, seed)
    folder = into or table.path.parent
    outputs = []
    for name, places in sides.items():
        kept = [table.rows[place] for place in places]
        path = folder / f"{table.path.stem}-{name}{table.path.suffix}"
        outputs.append(Output(path, rows.like(table, kept, path.suffix), [row.document for row in kept]))
    if both := partition.crossings([(str(output.path), output.documents) for output in outputs]):
        raise AssertionError(f"split parted {both[0]}")
    rows.write(outputs, form_of(subject.manifest), force)
    found = {
        name: (output.path, len(output.documents), *path_digest(output.path, str(output.path)))
        for name, output in zip(sides, outputs, strict=True)
    }
    if form == "json":
        answer = {
            name: {"path": str(path), "documents": count, "sha256": digest, "sizeBytes": size}
            for name, (path, count, digest, size) in found.items()
        }
        click.echo(json.dumps(answer, indent=2))
        return 0
    console = Console()
    total = len(documents)
    show.rows(
        console,
        [
            (name, f"{count:,} documents ({show.share(count, total)}), {path}")
            for name, (path, count, _, _) in found.items()
        ],
    )
    _left_out(console, table)
    console.print()
    home = Path.cwd() if folder.resolve().is_relative_to(Path.cwd()) else folder.resolve()
    show.line(console, f"For a manifest in {'this folder' if home == Path.cwd() else home}:", "dim")
    click.echo(manifest_lines(found, home))
    return 0


def manifest_lines(found: dict[str, tuple[Path, int, str, int]], home: Path) -> str:
    """Paths as a manifest in the folder `home` has to say them."""
    said = {name: path.resolve().relative_to(home).as_posix() for name, (path, *_) in found.items()}
    _, _, digest, size = found[partition.TRAIN]
    lines = ["dataset:", f"  path: {said[partition.TRAIN]}", f"  sha256: {digest}", f"  size_bytes: {size}"]
    if partition.VALIDATION in found:
        lines += ["  splits:", f"    validation_path: {said[partition.VALIDATION]}"]
    for name in (partition.VALIDATION, partition.TEST):
        if name in found:
            lines.append(f"# {said[name]}: {found[name][2]}, {found[name][3]} bytes")
    return "\n".join(lines)


def _check(subject: Given, table: Table, others: tuple[Path, ...], form: str) -> int:
    files = [(subject.shown, [row.document for row in table.rows])]
    for other in others:
        loaded = rows.load(other, str(other), form_of(subject.manifest))
        files.append((str(other), [row.document for row in loaded.rows]))
    found = partition.crossings(files)
    if form == "json":
        crossings = [{"what": one.what, "first": one.first, "second": one.second} for one in found]
        click.echo(json.dumps({"passed": not found, "crossings": crossings}, indent=2))
        return 1 if found else 0
    console = Console()
    grouped = any(document.group is not None for _, documents in files for document in documents)
    if not found:
        show.line(
            console, f"no {'group and no text' if grouped else 'text'} stands in two of {len(files)} files", "green"
        )
        return 0
    for one in found[:20]:
        show.line(console, f"{one.what}: {one.first} and {one.second}")
    kinds = Counter("groups" if one.what.startswith("group ") else "texts" for one in found)
    counts = " and ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    show.line(console, f"{counts} stand in two files; split the data again as one file", "bold red")
    return 1


@click.command(
    epilog=ending(
        "tollgate dataset convert sharegpt.json chat.jsonl",
        "tollgate dataset convert table.csv table.parquet",
        "tollgate dataset convert alpaca.json chat.jsonl --shape chat",
    )
)
@reading
@click.argument("to", metavar="TO", type=_OUTPUT_FILE)
@click.option("--shape", type=click.Choice(TARGETS), help="What TO's records are.  [default: as DATA's; else chat]")
@click.option("--drop", is_flag=True, help="Leave out what cannot be converted, and say how much and why.")
@_FORCE
@JSON
def convert(subject: Given, to: Path, shape: str | None, drop: bool, force: bool, form: str) -> int:
    """Write DATA in another format.

    The suffix of TO says its type: .json .jsonl .csv .tsv .parquet .txt.

    Reads the trainer's formats, ShareGPT and Alpaca. Each document is read back and compared before TO takes its place.
    """
    name = subject.manifest.dataset.path
    source = subject.path_of(name, "dataset.path")
    if source == to.resolve():
        raise DatasetError(f"{to} is the file that is read; name another one")
    conversion = converting.convert(source, name, form_of(subject.manifest), shape, to)
    if not drop:
        converting.refuse_unfit(conversion, name)
    rows.write([conversion.output], conversion.form, force)
    digest, size = path_digest(to, str(to))
    if form == "json":
        answer: dict[str, Any] = {"path": str(to), "from": conversion.source, "shape": conversion.target}
        answer |= {"read": conversion.read, "written": conversion.written, "sha256": digest, "sizeBytes": size}
        answer["leftOut"] = [{"origin": where, "why": why} for where, why in conversion.unfit]
        click.echo(json.dumps(answer, indent=2))
        return 0
    console = Console()
    shapes = (
        conversion.target if conversion.source == conversion.target else f"{conversion.source} as {conversion.target}"
    )
    show.line(console, f"{to}: {conversion.written:,} of {show.plural(conversion.read, 'document')}, {shapes}")
    if conversion.unfit:
        show.line(console, f"{len(conversion.unfit):,} left out:", "yellow")
        for where, why in conversion.unfit[: converting.NAMED]:
            show.line(console, f"  {where}: {why}", "dim")
    return 0


# --- parts ------------------------------------------------------------------------------------------------------------


def _same_type(table: Table, to: Path) -> None:
    if to.suffix != table.path.suffix:
        raise DatasetError(
            f"{to} is of another type than {table.path.name}; name a {table.path.suffix} file, and change the type "
            "with `tollgate dataset convert`"
        )


def _left_out(console: Console, table: Table) -> None:
    if table.left_out:
        many = show.plural(table.left_out, "record")
        show.line(console, f"{many} left out, because no answer stands in the text", "yellow")


def _label_shares(console: Console, documents: list[Document], made: list[Document]) -> None:
    before = Counter(document.label or "(none)" for document in documents)
    after = Counter(document.label or "(none)" for document in made)
    found = [
        (label, after[label], f"was {show.share(count, len(documents))}") for label, count in before.most_common(12)
    ]
    console.print()
    show.bars(console, "label", found, len(made))
