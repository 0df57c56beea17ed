"""`python -m tollgate_trainer.report [FOLDER]`: make or refresh the report of an output folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tollgate.contract import Env, ExitCode
from tollgate_trainer.report.page import write


def main() -> int:
    """Write the report of the folder that is named, or that the launcher's environment names."""
    arguments = sys.argv[1:]
    folder = arguments[0] if arguments else os.environ.get(Env.OUTPUT_ROOT, "")
    if len(arguments) > 1 or not folder or not Path(folder).is_dir():
        print("usage: python -m tollgate_trainer.report FOLDER (an output folder of a run)", file=sys.stderr)
        return ExitCode.USER
    print(write(Path(folder)))
    return ExitCode.COMPLETED


if __name__ == "__main__":
    sys.exit(main())
