"""Options that several commands share, as decorators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tollgate_trainer.laptop.wishes import Wishes

C = TypeVar("C", bound=Callable[..., Any])

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, file_okay=False, path_type=Path)
POLICY = click.option("--policy", type=FILE, help="A PromotionPolicy to judge the evaluation by.")
JSON = click.option("-o", "form", type=click.Choice(["text", "json"]), default="text", help="How to tell the result.")


def _all(command: Any, *options: Callable[[Any], Any]) -> Any:
    for option in reversed(options):
        command = option(command)
    return command


def evaluation(command: C) -> C:
    """What is measured, and with what."""
    wrapped: C = _all(
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
        click.option("--baseline", type=EXISTING, help="Output folder of a run to compare with on the same prompts."),
    )
    return wrapped


def of_a_run(command: C) -> C:
    """The manifest's file, where the run lies, and what it may cost."""
    return _of_a_run(command, FILE)


def of_a_run_or_folder(command: C) -> C:
    """As of_a_run, where a folder may stand in place of the file."""
    return _of_a_run(command, click.Path(exists=True, path_type=Path))


def _of_a_run(command: C, file: click.Path) -> C:
    wrapped: C = _all(
        command,
        click.argument("file", type=file),
        click.option("--output", type=FOLDER, help="Where the run lies.  [default: output_dir, or runs/<name>]"),
        click.option("--dataset-root", type=FOLDER, help="What dataset.path is relative to.  [default: FILE's folder]"),
        click.option("--name", help="Name of the run.  [default: the manifest's]"),
        click.option("--usd-per-hour", metavar="USD", help="What this machine costs an hour."),
        click.option("--max-cost", metavar="USD", help="Stop before the run has cost more, over all attempts."),
    )
    return wrapped


def overriding(command: Callable[..., Any]) -> Any:
    """What stands over the manifest's file; the command gets it as one argument, `wishes`."""

    @functools.wraps(command)
    def wrapped(
        *args: Any,
        overlay: Path | None,
        settings: tuple[str, ...],
        max_steps: int | None,
        learning_rate: float | None,
        quick_test: bool,
        **others: Any,
    ) -> Any:
        return command(*args, wishes=Wishes(overlay, settings, max_steps, learning_rate, quick_test), **others)

    return _all(
        wrapped,
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Another value for a field, such as hyperparameters.warmup_ratio=0.1; null removes it. Repeatable.",
        ),
        click.option("--overlay", type=FILE, help="A file that is merged over FILE; its lists replace FILE's."),
        click.option("--max-steps", type=click.IntRange(min=1), help="Train so many steps only."),
        click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Another learning rate."),
        click.option(
            "--quick-test",
            is_flag=True,
            help="All of the run in little: a few steps, little data, a folder of its own.",
        ),
    )
