"""The root of the `tollgate` command, also as `kubectl tollgate`.

Exit codes: 0 done; 2 wrong usage; 64 something the user can mend, told in words; 130 interrupted; otherwise the
command's own.
"""

from __future__ import annotations

import os
import sys

import click

from tollgate import __version__
from tollgate.contract import ExitCode
from tollgate.manifest.errors import ManifestError
from tollgate_cli.errors import UserError, refused_by_the_machine
from tollgate_cli.helping import ending
from tollgate_cli.loading import CommandLoader

_INTERRUPTED = 130


@click.group(
    cls=CommandLoader,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=ending(
        "tollgate manifest init --data data.jsonl    # one that fits your data",
        "tollgate plan manifest.yaml                 # what it needs",
        "tollgate run manifest.yaml                  # train it here",
        then="The same file runs on a cluster: `tollgate manifest wrap`. Exit codes: 0 done, 2 wrong usage (such as a "
        "file that is not there), 64 something to mend, told with the fix, 130 interrupted; a command's own are in its "
        "help. With TOLLGATE_DEBUG=1 errors show where they come from.",
    ),
)
@click.version_option(__version__, "-V", "--version", prog_name="tollgate", message="%(prog)s %(version)s")
def tollgate() -> None:
    """Train models within a budget, and promote them on evidence."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and answer its exit code; a traceback is only for our own mistakes."""
    try:
        result = tollgate.main(args=arguments, prog_name="tollgate", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return _INTERRUPTED
    except (ManifestError, UserError) as error:
        if os.environ.get("TOLLGATE_DEBUG"):
            raise
        click.echo(f"Error: {error}", err=True)
        return ExitCode.USER
    except BrokenPipeError:
        # The reader (`| head`) has gone; Python must not try to flush to it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        told = refused_by_the_machine(error)
        if told is None or os.environ.get("TOLLGATE_DEBUG"):
            raise
        click.echo(f"Error: {told}", err=True)
        return ExitCode.USER
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
