"""Files that are written from the models, and the check that they still are what the models say."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Generated"]


@dataclass(frozen=True, slots=True)
class Generated:
    """A folder of files that one module writes, as the command line `python -m MODULE --write | --check`.

    module, about: its name and what it is for; folder: where the files lie, relative to the checkout; files: file name
    -> contents; alone: a pattern of names that are no one else's, so that a file of such a name that is not in `files`
    is stale; "" when hand-written files lie beside them.
    """

    module: str
    about: str
    folder: Path
    files: Callable[[], dict[str, str]]
    alone: str = ""

    def stale(self, folder: Path) -> list[str]:
        """Names of the files in `folder` that are missing, differ from the models, or should not be there."""
        wanted = self.files()
        others = {path.name for path in folder.glob(self.alone)} if self.alone else set()
        return sorted(name for name in wanted.keys() | others if wanted.get(name) != _text(folder / name))

    def main(self, arguments: list[str] | None = None) -> int:
        """Write the files, or check them: 0 in sync, 1 not."""
        parser = argparse.ArgumentParser(prog=f"python -m {self.module}", description=self.about)
        mode = parser.add_mutually_exclusive_group(required=True)
        mode.add_argument("--write", action="store_true", help="write the files")
        mode.add_argument("--check", action="store_true", help="fail when a file is not what the models say")
        parser.add_argument(
            "--to", type=Path, default=self.folder, metavar="FOLDER", help=f"where the files are ({self.folder})"
        )
        options = parser.parse_args(arguments)
        folder: Path = options.to
        names = self.stale(folder)
        if options.check:
            fix = f"run `python -m {self.module} --write`"
            for name in names:
                print(f"{folder / name} is not what the models say; {fix}", file=sys.stderr)
            return 1 if names else 0
        wanted = self.files()
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            if name in wanted:
                (folder / name).write_text(wanted[name], encoding="utf-8")
            else:
                (folder / name).unlink()
        print(f"{folder}: {', '.join(names) or 'nothing to do'}")
        return 0


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
