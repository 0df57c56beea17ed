"""A model folder that is no run of Tollgate: measured on prompt sets, shown, and never evidence.

`python -m tollgate_trainer.evaluate.loose` with a request as JSON on standard input; the answer is JSON on standard
output. Without a manifest and a dataset nobody knows what the model was made from, so no gate judges it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from tollgate.contract import ExitCode
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.sections import Evaluation
from tollgate_trainer.evaluate import measuring
from tollgate_trainer.evaluate.intervals import UnmeasuredError
from tollgate_trainer.evaluate.measuring import Surroundings
from tollgate_trainer.evaluate.suites import suite_digest
from tollgate_trainer.models.digest import digest_of, inventory
from tollgate_trainer.refusal import Refused

MAX_LENGTH = 1024  # tokens of a question with its answer, where nobody says what the model was trained with


def main() -> int:
    """Measure what the request asks for; returns the exit code."""
    answers = os.dup(sys.stdout.fileno())  # what a library prints must not get between the lines of the answer
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        answer, code = measure(json.load(sys.stdin)), ExitCode.COMPLETED
    except (Refused, ManifestError, UnmeasuredError) as error:
        answer, code = {"error": str(error)}, ExitCode.USER
    except Exception as error:
        traceback.print_exc()
        answer, code = {"error": f"{type(error).__name__}: {error}"}, ExitCode.APPLICATION
    os.write(answers, json.dumps(answer).encode() + b"\n")
    return code


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request: model (a folder), suites, settings, root, confidence.

    Raises: Refused, ManifestError, UnmeasuredError.
    """
    from tollgate_trainer.models import load_finished

    folder, root = Path(request["model"]), Path(request["root"])
    settings = Evaluation.model_validate(request["settings"])
    wanted = measuring.asked(request["suites"], settings)
    model, tokenizer = load_finished(folder, root)
    places = getattr(model.config, "max_position_embeddings", None) or MAX_LENGTH
    around = Surroundings((), min(places, MAX_LENGTH), settings, root, trained_on=None, anywhere=True)
    found = measuring.measure(wanted, model, tokenizer, around)
    metrics = measuring.metrics(found, request["suites"], request["confidence"], {})
    return {
        "model": digest_of(inventory(folder)),
        "suiteDigest": suite_digest(found),
        "metrics": [metric.model_dump(mode="json", by_alias=True, exclude_none=True) for metric in metrics],
        "scorers": [scorer.model_dump(mode="json", by_alias=True) for scorer in measuring.scorers(found)],
    }


if __name__ == "__main__":
    raise SystemExit(main())
