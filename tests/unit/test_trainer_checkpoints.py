"""Checkpoints on the disk: what counts, what does not, and what a kill at any point leaves behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tollgate_trainer.lifecycle import checkpoints as module
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.lifecycle.checkpoints import (
    CheckpointError,
    Checkpoints,
    Found,
    Identity,
    committed,
    newest_valid,
)
from tollgate_trainer.lifecycle.lease import Fenced
from tollgate_trainer.lifecycle.output import examine
from tollgate_trainer.refusal import OutputRefused

OURS, OTHER, DATA = "sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha256:" + "d" * 64


def make(root: Path, attempt: int = 1, manifest: str = OURS, uid: str = "u") -> Checkpoints:
    return Checkpoints(root, Identity(uid, attempt, 2, 8, manifest, DATA), lambda: None)


def save(checkpoints: Checkpoints, step: int, content: bytes = b"weights") -> Found:
    folder = checkpoints.prepare(step)
    (folder / "model.bin").write_bytes(content)
    (folder / "inner").mkdir()
    (folder / "inner" / "rng.pth").write_bytes(b"rng")
    commit = checkpoints.commit(step, ["model.bin", "inner/rng.pth"])
    return Found(checkpoints.folder(step), commit)


def steps(root: Path) -> list[int]:
    return [one.commit.step for one in committed(root / "checkpoints")]


def test_a_checkpoint_counts_only_with_its_commit(tmp_path: Path) -> None:
    checkpoints = make(tmp_path)
    found = save(checkpoints, 5)
    assert steps(tmp_path) == [5]
    assert found.commit.ref().path == "checkpoints/checkpoint-5"
    (found.folder / "COMMIT.json").unlink()
    assert steps(tmp_path) == []
    (found.folder / "COMMIT.json").write_text('{"schema": 1, "step": 5')
    assert steps(tmp_path) == []


@pytest.mark.parametrize("damage", ["content", "size", "missing"])
def test_the_newest_whole_checkpoint_is_used_and_a_damaged_one_is_named(tmp_path: Path, damage: str) -> None:
    checkpoints = make(tmp_path)
    save(checkpoints, 5)
    newest = save(checkpoints, 10).folder / "model.bin"
    if damage == "missing":
        newest.unlink()
    else:
        newest.write_bytes(b"weightz" if damage == "content" else b"weights and more")
    told: list[tuple[int, str]] = []
    found = newest_valid(tmp_path / "checkpoints", lambda one, problem: told.append((one.commit.step, problem)))
    assert found is not None
    assert found.commit.step == 5
    assert [step for step, _ in told] == [10]
    assert "model.bin" in told[0][1]


def test_a_fenced_attempt_commits_nothing_and_leaves_the_committed_ones_alone(tmp_path: Path) -> None:
    save(make(tmp_path), 5)

    def fenced() -> None:
        raise Fenced("attempt 2 holds it")

    old = Checkpoints(tmp_path, make(tmp_path).identity, fenced)
    with pytest.raises(Fenced):
        save(old, 5, b"other weights")
    found = newest_valid(tmp_path / "checkpoints", lambda *_: None)
    assert found is not None
    assert (found.folder / "model.bin").read_bytes() == b"weights"


def test_a_commit_waits_for_every_file_and_fails_when_one_never_comes(tmp_path: Path) -> None:
    checkpoints = make(tmp_path)
    checkpoints.prepare(5)
    with pytest.raises(CheckpointError, match=r"rng_state_1.pth did not appear"):
        checkpoints.commit(5, ["rng_state_1.pth"], patience=0.0)
    assert steps(tmp_path) == []


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("call", ["inventory", "remove", "flush_folder", "write"])
def test_a_kill_anywhere_in_a_commit_leaves_the_older_checkpoint_and_the_next_attempt_can_save_the_same_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(make(tmp_path), 5)

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module if call in ("inventory", "remove") else module.durable, call, die)
        with pytest.raises(Killed):
            save(make(tmp_path), 10)
    assert steps(tmp_path) == [5]
    save(make(tmp_path, attempt=2), 10, b"new")
    assert steps(tmp_path) == [10, 5]


def test_a_kill_while_an_old_checkpoint_is_taken_away_leaves_none_that_counts_and_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = make(tmp_path)
    for step in (5, 10):
        save(checkpoints, step)

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", die)
        with pytest.raises(Killed):
            checkpoints.rotate(1, set())
    assert checkpoints.folder(5).is_dir()
    assert steps(tmp_path) == [10]


def test_rotation_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    checkpoints = make(tmp_path)
    for step in (5, 10, 15, 20):
        save(checkpoints, step)
    assert checkpoints.rotate(2, {5}) == [10]
    assert steps(tmp_path) == [20, 15, 5]
    assert not checkpoints.folder(10).exists()


def test_what_an_older_attempt_still_writes_aside_is_not_touched_until_it_is_an_hour_old(tmp_path: Path) -> None:
    old, new = make(tmp_path, attempt=1), make(tmp_path, attempt=2)
    working = old.prepare(7)
    (working / "model.bin").write_bytes(b"half")
    new.clear_abandoned()
    save(new, 7)
    assert (working / "model.bin").exists()
    past = time.time() - 2 * module.ABANDONED_SECONDS
    for path in (working / "model.bin", working, old.staging):
        os.utime(path, (past, past))
    new.clear_abandoned()
    assert not old.staging.exists()
    assert steps(tmp_path) == [7]


# --- whose output is it -----------------------------------------------------------------------------------------------


def attempt(root: Path, uid: str = "u", fresh: bool = False) -> Attempt:
    environ = {
        "TOLLGATE_RUN": "r",
        "TOLLGATE_UID": uid,
        "TOLLGATE_ATTEMPT": "2",
        "TOLLGATE_MANIFEST": "/m",
        "TOLLGATE_DATASET_ROOT": "/d",
        "TOLLGATE_OUTPUT_ROOT": str(root),
        "TOLLGATE_FRESH": str(fresh),
    }
    return Attempt.parse(environ)


def test_an_empty_folder_and_own_interrupted_work_are_gone_on_with(tmp_path: Path) -> None:
    assert not examine(attempt(tmp_path), OURS, DATA).move_aside
    save(make(tmp_path), 5)
    assert not examine(attempt(tmp_path), OURS, DATA).move_aside
    assert not examine(attempt(tmp_path, fresh=True), OURS, DATA).move_aside
    assert not examine(attempt(tmp_path, uid="again"), OURS, DATA).move_aside


def test_checkpoints_of_another_manifest_or_dataset_are_refused_and_a_fresh_start_moves_them(tmp_path: Path) -> None:
    save(make(tmp_path, manifest=OTHER, uid="them"), 5)
    with pytest.raises(OutputRefused, match="checkpoint 5 of another manifest"):
        examine(attempt(tmp_path), OURS, DATA)
    with pytest.raises(OutputRefused, match="another dataset"):
        examine(attempt(tmp_path), OTHER, OURS)
    assert examine(attempt(tmp_path, fresh=True), OURS, DATA).move_aside


def test_a_fresh_start_does_not_take_over_the_same_work_of_another_run(tmp_path: Path) -> None:
    save(make(tmp_path, uid="them"), 5)
    assert examine(attempt(tmp_path, fresh=True), OURS, DATA).move_aside
