"""`python -m tollgate_trainer.plan MANIFEST DATASET_ROOT cpu|gpu`: prints what `tollgate plan` needs, as one JSON line.

Exit codes: 0 found, 64 refused (the words on standard error), 70 anything else.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from tollgate.contract import ExitCode
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_canonical
from tollgate_trainer.plan.gathering import dump, gather
from tollgate_trainer.refusal import Refused


def main() -> int:
    """Gather and print."""
    path, root, device = sys.argv[1:4]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        found = gather(load_canonical(Path(path).read_bytes(), None, path), Path(root), device == "cpu")
    except (Refused, ManifestError) as error:
        print(error, file=sys.stderr)
        return ExitCode.USER
    except Exception:
        traceback.print_exc()
        return ExitCode.APPLICATION
    print(dump(found))
    return ExitCode.COMPLETED


if __name__ == "__main__":
    sys.exit(main())
