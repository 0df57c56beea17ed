"""Commands by entry points, loaded only when they are called.

A command's package may be absent (an extra that was not installed) or broken; both are one line with the fix, and
neither keeps
the other commands from working. `--help` reads names only, so it takes no torch and no time.
"""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points

import click

from tollgate_cli.errors import UserError

ENTRY_POINTS = "tollgate.commands"
DEBUG = "TOLLGATE_DEBUG"

# Command -> what it is for, in the order of the help. Commands of other distributions stand below "Other".
SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Train",
        (
            ("plan", "Say what a run will need: numbers, memory, time and money."),
            ("run", "Train a manifest on this machine."),
            ("checkpoint", "List, check and remove checkpoints."),
            ("evaluate", "Measure a trained model again."),
            ("gate", "Judge an evaluation by a promotion policy."),
            ("report", "Write or show the report of a run."),
        ),
    ),
    (
        "Models",
        (
            ("infer", "Ask a model, one prompt or a file of them."),
            ("model", "Look at, check, merge, export and back up trained models."),
        ),
    ),
    ("Data", (("dataset", "Look at training data, check it, sample, split and convert it."),)),
    ("Manifests", (("manifest", "Write, check and explain training manifests."),)),
    ("Clusters", (("local", "A Kubernetes cluster of your own on this machine."),)),
)
_HELP = {name: text for _, commands in SECTIONS for name, text in commands}

# Package of ours -> the extra that brings what it imports.
_EXTRAS = {"tollgate_trainer": "trainer", "tollgate_local": "local", "tollgate_operator": "operator"}


class CommandLoader(click.Group):
    """The root group: its commands are the entry points of `tollgate.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, without loading one."""
        return sorted(found())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command. Raises: UserError when its package cannot be loaded."""
        entry = found().get(cmd_name)
        return None if entry is None else load(entry)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by what they are for."""
        names = found()
        for title, commands in (
            *SECTIONS,
            ("Other", tuple((name, "") for name in sorted(names.keys() - _HELP.keys()))),
        ):
            rows = [(name, text or f"(from {_origin(names[name])})") for name, text in commands if name in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_spacing=4)


def found() -> dict[str, EntryPoint]:
    """The commands that installed distributions declare."""
    own = EntryPoint("manifest", "tollgate_cli.manifest:manifest", ENTRY_POINTS)  # also without installed metadata
    return {"manifest": own} | {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def load(entry: EntryPoint) -> click.Command:
    """The command behind an entry point.

    Raises: UserError when a package is missing, with the extra that brings it, or when loading fails, with the cause.
    """
    try:
        command = entry.load()
    except ModuleNotFoundError as error:
        if os.environ.get(DEBUG):
            raise
        raise UserError(_missing(entry, error)) from error
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        raise UserError(
            f"`tollgate {entry.name}` could not be loaded from {_origin(entry)}: {type(error).__name__}: {error}. "
            f"{DEBUG}=1 shows where; the other commands work."
        ) from error
    if not isinstance(command, click.Command):
        raise UserError(f"`tollgate {entry.name}`: {entry.value} of {_origin(entry)} is not a click command.")
    return command


def _missing(entry: EntryPoint, error: ModuleNotFoundError) -> str:
    package = entry.value.partition(":")[0].partition(".")[0]
    extra = _EXTRAS.get(package)
    lacks = f"`tollgate {entry.name}` needs the Python package {error.name}, which is not installed"
    if extra is None or (error.name or "").partition(".")[0] in _EXTRAS:
        return f"{lacks}. Install {_origin(entry)} again; {DEBUG}=1 shows where it is imported."
    return f"{lacks}. Install it with: pip install 'tollgate[{extra}]'"


def _origin(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value.partition(":")[0]
