"""What lies in the output folder already: nothing, this run's own work, finished work to adopt, or somebody else's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tollgate.contract import Files
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.lifecycle.checkpoints import committed
from tollgate_trainer.models.finished import ModelInfo
from tollgate_trainer.refusal import ModelRefused, OutputRefused
from tollgate_trainer.track import notes

MOVED = (Files.CHECKPOINTS, Files.MODEL, Files.RESULT, Files.PLAN, "evaluation", "report")
"""What belongs to a finished or interrupted training; the lease, logs and outcomes stay."""


@dataclass(frozen=True, slots=True)
class Output:
    """What to do about what was found.

    adopt: finished work that stands for this run; move_aside: there is other work, which is kept beside.
    """

    adopt: ModelInfo | None = None
    move_aside: bool = False


def examine(attempt: Attempt, manifest_digest: str, dataset_digest: str) -> Output:
    """Look at the output folder without changing it; every process of an attempt comes to the same answer.

    Finished work of the same manifest and dataset is adopted, interrupted work of both is gone on with. Anything else
    is refused, or moved aside when the run asks for a fresh start.
    Raises: OutputRefused.
    """
    root = attempt.output_root
    finished, broken = _finished(root)
    if finished is not None:
        same = (finished.manifest_digest, finished.dataset_digest) == (manifest_digest, dataset_digest)
        own = finished.document.get("uid") == attempt.uid
        if attempt.fresh and not own:
            return Output(move_aside=True)
        if not same:
            raise _refused(
                root, "a model", finished.manifest_digest, finished.dataset_digest, manifest_digest, dataset_digest
            )
        if broken is None:
            return Output(adopt=finished)
        if attempt.fresh:
            return Output(move_aside=True)
        raise OutputRefused(
            f"the finished model in {root / Files.MODEL} was changed after training ({broken}); restore it, remove the "
            "folder to train again, or set restart.fresh"
        )
    if broken is not None and not attempt.fresh:
        raise OutputRefused(f"{root / Files.MODEL}: {broken}; remove the folder, or set restart.fresh")
    for one in committed(root / Files.CHECKPOINTS):
        same = (one.commit.manifest_digest, one.commit.dataset_digest) == (manifest_digest, dataset_digest)
        if attempt.fresh and one.commit.uid != attempt.uid:
            return Output(move_aside=True)
        if not same:
            raise _refused(
                root,
                f"checkpoint {one.commit.step}",
                one.commit.manifest_digest,
                one.commit.dataset_digest,
                manifest_digest,
                dataset_digest,
            )
    return Output(move_aside=broken is not None)


def move_aside(root: Path, now: datetime) -> Path:
    """Rename earlier work into `previous-<time>/` below the same root; one process only."""
    target = root / f"previous-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    target.mkdir()
    for name in MOVED:
        if (root / name).exists():
            os.rename(root / name, target / name)
    for name in (Files.EVENTS, f"logs/{notes.NAME}"):
        if (root / name).exists():
            (target / "logs").mkdir(exist_ok=True)
            os.rename(root / name, target / name)
    return target


def _finished(root: Path) -> tuple[ModelInfo | None, str | None]:
    """(the record of a finished model, what is wrong with its files)."""
    folder = root / Files.MODEL
    try:
        info = ModelInfo.read(folder)
    except ModelRefused as error:
        return None, str(error)
    return (info, info.problem(folder)) if info is not None else (None, None)


def _refused(root: Path, what: str, *digests: str) -> OutputRefused:
    theirs, their_data, ours, our_data = digests
    which = "manifest" if theirs != ours else "dataset"
    found, asked = (theirs, ours) if theirs != ours else (their_data, our_data)
    return OutputRefused(
        f"the output folder {root} holds {what} of another {which} (found {found}, this run has {asked}); give this "
        f"run an output folder of its own (on a laptop: --output or --name), or set restart.fresh (--fresh) to move "
        f"the earlier work aside"
    )
