"""Options that several commands of the trainer share, as decorators; more are in tollgate_cli.options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tollgate_cli import options
from tollgate_cli.options import Named, applied, form

C = TypeVar("C", bound=Callable[..., Any])

FILE = Named("Name a file that is there.")
FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING = Named("Name a folder that is there.", files=False, folders=True)
POLICY_FILE = Named("Name a file with a PromotionPolicy.")
POLICY = click.option(
    "--policy", type=POLICY_FILE, metavar="FILE", help="A PromotionPolicy to judge the evaluation by."
)
JSON = form("text", "json")


def evaluation(command: C) -> C:
    """What is measured, and with what."""
    wrapped: C = applied(
        command,
        click.option(
            "--suite", "suites", multiple=True, metavar="NAME", help="What to measure.  [default: as trained]"
        ),
        click.option(
            "--prompts",
            multiple=True,
            metavar="[SET=]FILE",
            help="A prompt set in place of the manifest's, such as toxicity=prompts.jsonl. Repeatable.",
        ),
        click.option(
            "--settings",
            "settings_file",
            type=FILE,
            help="YAML with an `evaluation` section in place of the manifest's (scorers, judge, completions).",
        ),
        click.option(
            "--baseline",
            type=options.RUN,
            metavar="FOLDER",
            help="Output folder of a run to compare with on the same prompts.",
        ),
    )
    return wrapped


def of_a_run(command: C) -> C:
    """The manifest's file, where the run lies, and what it may cost."""
    return _of_a_run(command, options.MANIFEST)


def of_a_run_or_folder(command: C) -> C:
    """As of_a_run, where a folder may stand in place of the file."""
    either = options.Named("Name a manifest, or the folder of a run or of a model.", folders=True)
    return _of_a_run(command, either, "MANIFEST|FOLDER")


def _of_a_run(command: C, file: click.Path, metavar: str = "MANIFEST") -> C:
    wrapped: C = applied(
        command,
        click.argument("file", type=file, metavar=metavar),
        click.option("--output", type=FOLDER, help="Where the run lies.  [default: output_dir, or runs/<name>]"),
        click.option(
            "--dataset-root", type=FOLDER, help="What dataset.path is relative to.  [default: MANIFEST's folder]"
        ),
        click.option("--name", metavar="NAME", help="Of the run.  [default: the manifest's]"),
        click.option(
            "--usd-per-hour", metavar="USD", help="What this machine costs an hour.  [default: no price, so no costs]"
        ),
        click.option(
            "--max-cost",
            metavar="USD",
            help="Stop before the run has cost more, over all attempts.  [default: resources.max_budget_usd]",
        ),
    )
    return wrapped
