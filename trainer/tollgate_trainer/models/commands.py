"""`tollgate model info | verify | merge | export | backup` and `tollgate infer`."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tollgate_cli.helping import ending
from tollgate_cli.options import Named
from tollgate_trainer.laptop import options
from tollgate_trainer.laptop.preparation import LaptopError
from tollgate_trainer.models.shelf import Shelved, described, shelved
from tollgate_trainer.refusal import Refused

DAMAGED = 1
WHERE = click.argument(
    "where",
    metavar="RUN_OR_MODEL",
    type=Named("Name a run's output folder, such as runs/my-model, or a model's.", files=False, folders=True),
)
DATASET_ROOT = click.option(
    "--dataset-root", type=options.EXISTING, help="Where to look for an adapter's base that is not where it was."
)


@contextmanager
def _spoken() -> Iterator[None]:
    """What the trainer refuses, as the command line says it."""
    try:
        yield
    except Refused as refused:
        raise LaptopError(str(refused)) from refused


def _quiet() -> None:
    """The model libraries keep their progress bars, and advice that no user of a command can follow, to themselves."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|bitsandbytes)\b")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it, with or without a quantised base
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    said: Any = transformers.logging
    said.set_verbosity_error()
    said.disable_progress_bar()


@click.group(
    epilog=ending("tollgate model info runs/my-model", "tollgate model merge runs/my-model --to merged/my-model")
)
def model() -> None:
    """Look at a finished model, check, merge and hand it on.

    RUN_OR_MODEL is a run's output folder, such as runs/my-model, or a model folder.
    """


@model.command(epilog=ending("tollgate model info runs/my-model -o json | jq .metrics"))
@WHERE
@options.JSON
def info(where: Path, form: str) -> int:
    """Show what a model is, and how it did.

    Also what it was trained from. Its files are not read; `verify` reads them.
    """
    with _spoken():
        known = described(shelved(where))
    if form == "json":
        click.echo(json.dumps(known, ensure_ascii=False))
        return 0
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in known.items():
        if value is not None:
            table.add_row(name.replace("_", " "), Text(_shown(value), overflow="fold"))
    Console(soft_wrap=True).print(table)
    return 0


@model.command(epilog=ending("tollgate model verify runs/my-model && echo whole"))
@WHERE
@options.JSON
def verify(where: Path, form: str) -> int:
    """Compare every file with what was saved.

    All is read, also an adapter's base, which is compared with what it was trained on. Exit code 0 when all is as it
    was, 1 when not.
    """
    from tollgate_trainer.models.finished import base_of

    with _spoken():
        found = shelved(where)
        problem = found.problem()
    if problem is None and found.base is not None:
        try:
            base_of(found.folder, None)
        except Refused as refused:
            problem = str(refused)
    digest = found.info.digest if found.info is not None else None
    if form == "json":
        click.echo(json.dumps({"folder": str(found.folder), "digest": digest, "problem": problem}))
    else:
        click.echo(f"{found.folder}: {problem or f'whole, {digest}'}")
    return 0 if problem is None else DAMAGED


@model.command(epilog=ending("tollgate model merge runs/my-model --to merged/my-model"))
@WHERE
@click.option("--to", "target", required=True, type=options.FOLDER, help="A folder that is not there yet.")
@DATASET_ROOT
@options.JSON
def merge(where: Path, target: Path, dataset_root: Path | None, form: str) -> int:
    """Write adapter and base as one model.

    One of the base's files is in memory at a time. A mixture of LoRA experts cannot be merged. An adapter that was
    trained on a quantised base is merged into the base as it lies on the disk, which is not quite what it was trained
    on; evaluate the merged model.
    """
    from tollgate_trainer.models.merging import merge as merged

    _quiet()
    with _spoken():
        known = merged(shelved(where), target, dataset_root)
    quantised = known["merged_from"]["trained_on_quantised"]
    if form == "json":
        click.echo(json.dumps({"folder": str(target), "digest": known["digest"], "trained_on_quantised": quantised}))
        return 0
    click.echo(f"{target}: {known['digest']}")
    if quantised != "none":
        click.echo(
            f"It was trained over {quantised} weights and is merged into whole ones: evaluate it again.", err=True
        )
    return 0


@model.command(epilog=ending("tollgate model export runs/my-model --to served/my-model --base org/name"))
@WHERE
@click.option("--to", "target", required=True, type=options.FOLDER, help="A folder that is not there yet.")
@click.option(
    "--base", metavar="NAME", help="What the server calls the adapter's base.  [default: its hub id or folder]"
)
def export(where: Path, target: Path, base: str | None) -> int:
    """Copy a model as a stock server loads it.

    That is a whole model, or a plain PEFT adapter with the id of its base. `merge` makes a whole model of an adapter. A
    mixture of LoRA experts is refused: no stock server knows it.
    """
    from tollgate_trainer.models.keeping import export as exported

    with _spoken():
        exported(shelved(where), target, base)
    click.echo(str(target))
    return 0


@model.command(epilog=ending("tollgate model backup runs/my-model s3://bucket/models/my-model.tar"))
@WHERE
@click.argument("target", metavar="FILE.tar|s3://BUCKET/KEY.tar")
@options.JSON
def backup(where: Path, target: str, form: str) -> int:
    """Write a model as one tar, to a path or a store.

    The tar has the sha256 of every file. Check it after unpacking: cd model && sha256sum -c SHA256SUMS
    """
    from tollgate_trainer.lifecycle.remote.store import StoreError
    from tollgate_trainer.models.keeping import backup as kept

    with _spoken():
        try:
            told = kept(shelved(where), target)
        except StoreError as error:
            raise LaptopError(f"{target}: {error}") from error
    if form == "json":
        click.echo(json.dumps({"place": told.place, "bytes": told.size, "sha256": told.sha256}))
    else:
        click.echo(f"{told.place}: {told.size:,} bytes, sha256 {told.sha256}")
    return 0


@click.command(
    epilog=ending(
        'tollgate infer runs/my-model --prompt "What does os.walk do?" --max-new-tokens 40',
        "tollgate infer runs/my-model --file questions.jsonl -o json > answers.jsonl",
        then="Lines of FILE are {prompt}, {messages: [{role, content}]}, or {text, question} for models that judge a "
        "text.",
    )
)
@WHERE
@click.option("--prompt", multiple=True, help="A prompt, or the text to judge. Repeatable.")
@click.option("--question", help="What a span or joint model is asked about --prompt.")
@click.option("--file", "file", type=options.FILE, help="Questions, one JSON object a line.")
@click.option("--plain", is_flag=True, help="Continue the text as it is, without the chat template.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Tokens of each answer at most.",
)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0: the likeliest.")
@click.option(
    "--top-p",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    help="With a temperature: only the likeliest tokens with so much probability.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of each answer's draws.")
@DATASET_ROOT
@options.JSON
def infer(
    where: Path,
    prompt: tuple[str, ...],
    question: str | None,
    file: Path | None,
    plain: bool,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    dataset_root: Path | None,
    form: str,
) -> int:
    """Ask a finished model: text for a prompt, a class with its score, or the answer in a text.

    With -o json one object a line, in the order of the questions.
    """
    from tollgate_trainer.models.answering import Question, Sampling, answerer, read

    if bool(prompt) == (file is not None):
        raise LaptopError("give --prompt or --file, one of the two")
    _quiet()
    with _spoken():
        questions = [Question(text, None, question) for text in prompt] if file is None else read(file)
        found: Shelved = shelved(where).whole()
        asked = answerer(found.folder, found.task, dataset_root)
        for answer in asked.answers(questions, Sampling(max_new_tokens, temperature, top_p, seed), plain):
            click.echo(json.dumps(answer, ensure_ascii=False) if form == "json" else _said(answer))
    return 0


def _said(answer: dict[str, Any]) -> str:
    if "label" not in answer:
        return str(answer["answer"] if answer["answer"] is not None else "(no answer)")
    told = f"{answer['label']}  {answer['score']:.3f}"
    return told if "answer" not in answer else f"{told}  {answer['answer'] or '(no answer)'}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items() if one is not None)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
