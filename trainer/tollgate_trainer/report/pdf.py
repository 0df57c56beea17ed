"""The report as PDF, printed by a browser of this machine: its print style sheet is the layout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "msedge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
SECONDS = 120
INSTALL = (
    "install Chromium or Google Chrome (Debian and Ubuntu: apt-get install chromium; macOS: brew install --cask "
    "chromium), or open the page in any browser and print it"
)


class PdfError(Exception):
    """There is no PDF; the words say what to do."""


def browser(find: Callable[[str], str | None] = shutil.which) -> str:
    """The program of the first browser that is there. Raises: PdfError."""
    for name in BROWSERS:
        if found := find(name):
            return found
    raise PdfError(f"no browser was found that can print a PDF; {INSTALL}")


def command(program: str, page: Path, target: Path, scratch: Path, root: bool) -> list[str]:
    """What prints `page` to `target`. root: whether this process is root, for whom a browser starts no sandbox."""
    return [
        program,
        "--headless",
        *(["--no-sandbox"] if root else []),
        "--disable-gpu",
        "--no-first-run",
        f"--user-data-dir={scratch}",
        "--no-pdf-header-footer",
        f"--print-to-pdf={target}",
        page.absolute().as_uri(),
    ]


def write(page: Path, target: Path, program: str | None = None, seconds: float = SECONDS) -> Path:
    """Print the HTML page to `target`, whole or not at all. Raises: PdfError, OSError."""
    program = program or browser()
    root = hasattr(os, "geteuid") and os.geteuid() == 0 and sys.platform != "darwin"
    with tempfile.TemporaryDirectory(prefix="tollgate-pdf-", ignore_cleanup_errors=True) as scratch:
        made = Path(scratch) / "report.pdf"
        said = _run(command(program, page, made, Path(scratch) / "profile", root), seconds)
        if not made.is_file() or not made.read_bytes().startswith(b"%PDF"):
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            raise PdfError(f"{program} made no PDF ({last}); {INSTALL}")
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = target.with_name(target.name + ".part")
        shutil.copyfile(made, whole)
        whole.replace(target)
    return target


def _run(arguments: Sequence[str], seconds: float) -> str:
    try:
        done = subprocess.run(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False, text=True
        )
    except subprocess.TimeoutExpired as error:
        raise PdfError(f"{arguments[0]} did not print within {seconds:g} s; {INSTALL}") from error
    except OSError as error:
        raise PdfError(f"{arguments[0]} could not be started ({error}); {INSTALL}") from error
    return done.stdout
