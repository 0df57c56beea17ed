"""`tollgate run --resume PATH`: a checkpoint from elsewhere, or an earlier one, becomes the one to go on from."""

from __future__ import annotations

import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from tollgate.contract import Files
from tollgate.manifest.loader import LoadedManifest
from tollgate_cli.wishes import QUICK_PREFIX
from tollgate_trainer import durable
from tollgate_trainer.laptop.preparation import LOCK, LaptopError
from tollgate_trainer.lifecycle.checkpoints import Commit, Found, committed, newest_valid
from tollgate_trainer.lifecycle.output import MOVED
from tollgate_trainer.models.digest import mismatch

QUICK_TEST_MARK = ".quick-test"
"""In a folder that --quick-test made, and that it may therefore empty."""


def empty_quick_test(folder: Path, uri: str | None) -> None:
    """A quick test begins anew. Only what another quick test left here is removed; other work is moved aside."""
    mark = folder / QUICK_TEST_MARK
    if mark.exists():
        for path in folder.iterdir():
            if path.name in (QUICK_TEST_MARK, LOCK):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    elif all(path.name == LOCK for path in folder.iterdir()):
        mark.touch()
    if uri is not None and uri.endswith(f"/{QUICK_PREFIX}"):
        from tollgate_trainer.laptop.kept import Prefix  # brings boto3, and only a store needs it

        Prefix(uri).empty()


def prepare(resume: str, folder: Path, loaded: LoadedManifest) -> str:
    """Put the checkpoint of --resume PATH in place; answers what was done, "" for auto and none.

    Raises: LaptopError.
    """
    uri = loaded.manifest.checkpoint.uri
    if resume in ("auto", "none"):
        return ""
    if uri is not None:
        return in_store(resume, uri)
    if "://" in resume:
        raise LaptopError(
            f"--resume {resume}: this manifest keeps its checkpoints in the run's folder; set checkpoint.uri, as the "
            "manifest that made that one does"
        )
    try:
        return take(find(Path(resume)), folder, loaded.digest, datetime.now(UTC))
    except OSError as error:
        raise LaptopError(f"--resume {resume}: the checkpoint can't be put into {folder}: {error}") from error


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


def in_store(resume: str, uri: str) -> str:
    """Check that `--resume s3://bucket/prefix[/checkpoint-N]` is what the training will go on from by itself.

    Answers what will be done, in words. Raises: LaptopError for another place, no or a damaged checkpoint, later ones.
    """
    from tollgate_trainer.laptop.kept import Prefix  # brings boto3, and only a store needs it

    prefix, _, name = resume.rstrip("/").rpartition("/")
    step = int(name.removeprefix("checkpoint-")) if re.fullmatch(r"checkpoint-\d+", name) else None
    place = prefix if step is not None else resume.rstrip("/")
    if place != uri.rstrip("/"):
        raise LaptopError(
            f"--resume {resume}: this manifest keeps its checkpoints at {uri}, and goes on from one there only; set "
            "checkpoint.uri to the place of that one"
        )
    kept = Prefix(place).list(thorough=False)
    wanted = next((one for one in kept if step is None or one.step == step), None)
    if wanted is None or wanted.problem is not None:
        why = f"is damaged: {wanted.problem}" if wanted is not None else "is not there"
        raise LaptopError(f"--resume {resume}: the checkpoint {why}; `tollgate checkpoint list {place}` shows them")
    if kept[0].step > wanted.step:
        raise LaptopError(
            f"--resume {resume}: there are later ones, up to step {kept[0].step}, and a store has no place to move "
            f"them to; remove them first: tollgate checkpoint prune {place} --after {wanted.step}"
        )
    return f"going on from step {wanted.step} of {wanted.place}"


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
