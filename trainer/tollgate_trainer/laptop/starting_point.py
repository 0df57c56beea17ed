"""`tollgate run --resume PATH`: a checkpoint from elsewhere, or an earlier one, becomes the one to go on from."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from tollgate.contract import Files
from tollgate_trainer import durable
from tollgate_trainer.laptop.preparation import LaptopError
from tollgate_trainer.lifecycle.checkpoints import Commit, Found, committed, newest_valid
from tollgate_trainer.lifecycle.output import MOVED
from tollgate_trainer.models.digest import mismatch


def find(path: Path) -> Found:
    """The checkpoint that a path means: itself, or the newest valid one of a run's folder.

    Raises: LaptopError when there is none, or when it is damaged.
    """
    commit = Commit.read(path)
    if commit is not None:
        if (problem := mismatch(path, commit.files)) is not None:
            raise LaptopError(f"--resume {path}: this checkpoint is damaged: {problem}; name another one")
        return Found(path, commit)
    damaged: list[str] = []
    for root in (path / Files.CHECKPOINTS, path):
        found = newest_valid(root, lambda one, why: damaged.append(f"checkpoint {one.commit.step}: {why}"))
        if found is not None:
            return found
    why = f" ({'; '.join(damaged)})" if damaged else ""
    raise LaptopError(
        f"--resume {path}: no whole checkpoint is there{why}; name a folder with {Files.COMMIT}, such as "
        f"runs/my-model/{Files.CHECKPOINTS}/checkpoint-100, or a run's folder, or write --resume auto"
    )


def take(found: Found, output: Path, manifest_digest: str, now: datetime) -> str:
    """Make `found` the newest checkpoint of the output folder; what came after it there is moved aside.

    Answers what was done, in words. Raises: LaptopError when another manifest made it; OSError.
    """
    step, commit = found.commit.step, found.commit
    if commit.manifest_digest != manifest_digest:
        raise LaptopError(
            f"--resume {found.folder}: this checkpoint was made by another manifest ({commit.manifest_digest}, "
            f"this one is {manifest_digest}); run the manifest that made it (outcomes/attempt-<n>/manifest.yaml of its "
            "run), or train on from a finished model with model.base"
        )
    root = output / Files.CHECKPOINTS
    target = root / f"checkpoint-{step}"
    there = Commit.read(target)
    own = there is not None and there.digest == commit.digest and mismatch(target, there.files) is None
    source = found.folder
    if not own and source.resolve() != target.resolve():
        staged = root / f".resume-{step}"
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(source, staged, ignore=shutil.ignore_patterns(Files.COMMIT))
    moved = _move_later(output, step, keep_step=own, now=now)
    if not own:
        os.rename(root / f".resume-{step}", target)
        durable.flush_folder(root)
        durable.write(target / Files.COMMIT, (source / Files.COMMIT).read_bytes())
    aside = f"; what came after it was moved to {moved.name}" if moved is not None else ""
    return f"going on from step {step} of {source}{aside}"


def _move_later(output: Path, step: int, *, keep_step: bool, now: datetime) -> Path | None:
    """Put later checkpoints and a finished model aside, or they would be gone on with instead."""
    root = output / Files.CHECKPOINTS
    later = [one.folder for one in committed(root) if one.commit.step > step]
    stale = root / f"checkpoint-{step}"
    if not keep_step and stale.exists():
        later.append(stale)
    names = [name for name in MOVED if name != Files.CHECKPOINTS and (output / name).exists()]
    if not later and Files.MODEL not in names:
        return None
    target = output / f"previous-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    (target / Files.CHECKPOINTS).mkdir(parents=True)
    for name in names:
        os.rename(output / name, target / name)
    for folder in later:
        os.rename(folder, target / Files.CHECKPOINTS / folder.name)
    return target
