"""Arguments and options that commands of several packages share, as decorators.

A file that is named but is not there is a wrong use (exit code 2); what is wrong inside it is told by its loader (64).
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from tollgate_cli.wishes import Wishes

C = TypeVar("C", bound=Callable[..., Any])


class Named(click.Path):
    """A path that has to exist; where it does not, the message has a near name or the `fix`.

    files, folders: what may be named.
    """

    def __init__(self, fix: str, *, files: bool = True, folders: bool = False) -> None:
        super().__init__(exists=True, file_okay=files, dir_okay=folders, path_type=Path)
        self.fix = fix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Raises: BadParameter with what to name instead."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = _neighbour(Path(str(value)))
            told = f"{error.message} " + (f"Did you mean {near}?" if near else self.fix)
            raise click.BadParameter(told, ctx, param) from error

    def fail(self, message: str, param: click.Parameter | None = None, ctx: click.Context | None = None) -> NoReturn:
        """Raises: BadParameter; click's sentences end with a point or without one."""
        super().fail(f"{message.rstrip('.')}.", param, ctx)


def _neighbour(path: Path) -> Path | None:
    """A file of nearly this name beside it; None for a path that is there, but of the wrong kind."""
    try:
        names = [] if path.exists() else [each.name for each in path.parent.iterdir() if not each.name.startswith(".")]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return path.with_name(near[0]) if near else None


RUN = Named("Name a run's output folder, such as runs/my-model.", files=False, folders=True)
MANIFEST = Named("Name a manifest in YAML or JSON; `tollgate manifest init` writes one.")
LAYERS = (
    "What stands over MANIFEST, the later wins: --overlay, then TOLLGATE_SET_hyperparameters__learning_rate=1e-4 in "
    "the environment, then --set and the flags."
)
ARGUMENT = click.argument("file", metavar="MANIFEST", type=MANIFEST)
_OVERLAY = Named("Name a file with a piece of a manifest.")


def applied(command: Any, *options: Callable[[Any], Any]) -> Any:
    """The command with these options, which its help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


_SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Another value for a field, such as hyperparameters.warmup_ratio=0.1; null removes it. Repeatable.",
)
_MERGED = click.option(
    "--overlay", type=_OVERLAY, metavar="FILE", help="A piece of a manifest to merge in; its lists replace."
)


def overriding(command: Callable[..., Any]) -> Any:
    """What stands over the manifest's file; the command gets it as one argument, `wishes`."""

    @functools.wraps(command)
    def wrapped(*args: Any, overlay: Path | None, settings: tuple[str, ...], **others: Any) -> Any:
        return command(*args, wishes=Wishes(overlay, settings), **others)

    return applied(wrapped, _SET, _MERGED)


def overriding_a_run(command: Callable[..., Any]) -> Any:
    """As `overriding`, with the short ways to say what is changed most, and the quick test."""

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

    return applied(
        wrapped,
        _SET,
        _MERGED,
        click.option("--max-steps", type=click.IntRange(min=1), help="Train so many steps only."),
        click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Another learning rate."),
        click.option(
            "--quick-test", is_flag=True, help="All of the run in little: few steps, little data, its own folder."
        ),
    )


def form(*forms: str) -> Callable[[C], C]:
    """`-o FORM`, as the argument `form`; the first is the default."""
    return click.option(
        "-o", "form", type=click.Choice(forms), default=forms[0], show_default=True, help="How to tell the result."
    )
