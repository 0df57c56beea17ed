"""What a training does with a store of checkpoints: find one to go on from, save beside the steps, fetch the best."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from tollgate.contract import Files
from tollgate_trainer.lifecycle.checkpoints import CheckpointError, Commit, Found, Identity
from tollgate_trainer.lifecycle.remote.checkpoints import RemoteCheckpoints, RemoteCommit
from tollgate_trainer.lifecycle.remote.saving import Phase, RemoteSaves, Save, Saved
from tollgate_trainer.lifecycle.remote.store import Place, Store, StoreError
from tollgate_trainer.lifecycle.rotation import surplus
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.refusal import ManifestRefused, OutputRefused

STAGING = "TOLLGATE_STAGING"
"""A folder on the node's own disk for checkpoints on their way; default: the system's folder for temporary files."""

FIELD = "checkpoint.uri"


class Keeping:
    """The store of one run, in one process."""

    def __init__(self, session: Session, uri: str) -> None:
        """Raises: ManifestRefused when there is no way to reach the store."""
        self.session = session
        self.root = Path(os.environ.get(STAGING) or tempfile.gettempdir()) / "tollgate-staging" / session.attempt.uid
        try:
            self.store = Store(Place.parse(uri))
        except StoreError as error:
            raise ManifestRefused(str(error), FIELD) from error
        self.checkpoints = RemoteCheckpoints(self.store, None)
        self._saves: RemoteSaves | None = None
        self._saving: int | None = None
        self._rotation = (1, 0, "", "min")

    # --- before the first step --------------------------------------------------------------------------------------

    def find(self) -> Found | None:
        """The newest checkpoint that can be fetched whole, in a folder of each node's disk.

        Raises: ManifestRefused when the store can't be used, OutputRefused for another run's checkpoints,
        CheckpointError when the store fails on the way.
        """
        session = self.session
        found: tuple[RemoteCommit, Path] | None = None
        failure: Exception | None = None
        if session.attempt.leads:
            try:
                self.store.probe()
                found = self._newest()
            except (StoreError, OutputRefused, OSError) as error:
                failure = error
        problem = session.agreement.from_first(str(failure) if failure is not None else "")
        if isinstance(failure, OutputRefused):
            raise failure
        if isinstance(failure, StoreError) and failure.lasting:
            raise ManifestRefused(str(failure), FIELD)
        if problem:
            raise CheckpointError(problem)
        found = cast("tuple[RemoteCommit, Path] | None", session.agreement.from_first(found))
        if found is None:
            return None
        commit, folder = found
        self._fetch(commit, folder)
        session.committed = commit.ref(self.store)
        kept = Commit(
            step=commit.step,
            attempt=commit.attempt,
            uid=commit.uid,
            world_size=commit.world_size,
            samples_per_step=commit.samples_per_step,
            manifest_digest=commit.manifest_digest,
            dataset_digest=commit.dataset_digest,
            saved_at=commit.saved_at,
            digest=commit.digest,
            files=[],
        )
        return Found(folder, kept)

    def _newest(self) -> tuple[RemoteCommit, Path] | None:
        session, attempt = self.session, self.session.attempt
        for one in self.checkpoints.committed():
            wanted = (session.loaded.digest, session.dataset_digest)
            if (one.manifest_digest, one.dataset_digest) != wanted:
                which = "manifest" if one.manifest_digest != wanted[0] else "dataset"
                raise OutputRefused(
                    f"{self.store.place.uri()} holds checkpoint {one.step} of another {which}; give this run a prefix "
                    "of its own, or remove those with `tollgate checkpoint prune`",
                    FIELD,
                )
            if attempt.fresh and one.uid != attempt.uid:
                raise OutputRefused(
                    f"{self.store.place.uri()} holds checkpoint {one.step} of an earlier run, and a fresh start can't "
                    "move it aside in a store; give this run a prefix of its own, or remove them with `tollgate "
                    f"checkpoint prune {self.store.place.uri()} --all`",
                    FIELD,
                )

        def report(one: RemoteCommit, why: str) -> None:
            session.say("warning", step=one.step, message=f"checkpoint {one.step} is not used: {why}")

        found = self.checkpoints.newest_valid(self._fetched, report)
        if found is None and self.checkpoints.committed():
            session.say("warning", message="no checkpoint is whole; training starts from the beginning")
        return found

    def _fetched(self, step: int) -> Path:
        return self.root / "fetched" / f"checkpoint-{step}"

    def _fetch(self, commit: RemoteCommit, folder: Path) -> None:
        """One process of each node fetches; all wait. Raises: CheckpointError in every process."""
        problem: str | None = None
        if self.session.attempt.local_rank == 0:
            try:
                problem = self.checkpoints.fetch(commit, folder)
            except OSError as error:
                problem = str(error)
        if problems := [text for text in self.session.agreement.gathered(problem) if text]:
            raise CheckpointError(f"checkpoint {commit.step} could not be fetched: {problems[0]}")

    def start(self, identity: Identity, keep_last: int, keep_best: int, metric: str, mode: str) -> None:
        """Saves can be made from here on."""
        session, attempt = self.session, self.session.attempt
        self.checkpoints = RemoteCheckpoints(self.store, identity, session.lease.check)
        self._rotation = (keep_last, keep_best, metric, mode)
        self._saves = RemoteSaves(
            self.checkpoints,
            session.agreement,
            attempt.rank,
            attempt.local_rank,
            attempt.local_world,
            self._rotate,
            self._done,
            self._failed,
        )
        if attempt.local_rank == 0:
            shutil.rmtree(self.root / Files.CHECKPOINTS, ignore_errors=True)  # what a killed attempt had staged here
        if attempt.leads:
            try:
                self.checkpoints.clear_abandoned(datetime.now(UTC))
            except StoreError as error:
                session.say("warning", message=f"what earlier attempts left is not removed: {error}")

    # --- between steps ----------------------------------------------------------------------------------------------

    @property
    def saves(self) -> RemoteSaves:
        """The saves, once they were started."""
        assert self._saves is not None
        return self._saves

    def may_begin(self, step: int, *, must: bool) -> bool:
        """Whether the checkpoint of `step` is to be staged now; the same answer in all processes."""
        if self._saving == step:  # an evaluation and the clock may both ask at one step
            if must:
                self.saves.settle()
            return False
        return self.saves.may_begin(must=must)

    def begin(self, step: int, folder: Path, expected: Iterable[str], staged: float, step_seconds: float) -> None:
        """Upload what all processes have staged."""
        evaluated = self.session.state.last_evaluation
        metrics = dict(evaluated.metrics) if evaluated is not None and evaluated.step == step else {}
        if self.session.attempt.leads and self.session.resumed_from is not None:
            self.checkpoints.open(step)
        self._saving, self.session.saves_under_way = step, 1
        self.saves.begin(Save(step, folder, tuple(expected), metrics, staged, step_seconds))

    def leave(self) -> None:
        """After the last step: wait for an upload that is under way, if there is time for it."""
        session = self.session
        if self.saves.phase is Phase.IDLE:
            return
        session.saves_under_way = 0  # it is not asked whether another one fits
        if session.agreement.now(int(not session.may_save())) == [0]:
            self.saves.settle()
        else:
            self.saves.abandon()

    def best(self, step: int) -> Path:
        """The checkpoint of a step in a folder of this node's disk; all processes call it. Raises: CheckpointError."""
        commits = self.session.agreement.from_first(self._commits() if self.session.attempt.leads else None)
        commit = next((one for one in commits if one.step == step), None)
        if commit is None:
            raise CheckpointError(
                f"{self.store.place.uri(f'checkpoint-{step}')}, the best one, can't be found any more"
            )
        self._fetch(commit, self._fetched(step))
        return self._fetched(step)

    def _commits(self) -> list[RemoteCommit]:
        try:
            return self.checkpoints.committed()
        except StoreError:
            return []  # told by who asked: the checkpoint can't be found

    def close(self) -> None:
        """Nothing is left on this node's disk."""
        if self.session.attempt.local_rank == 0:
            shutil.rmtree(self.root, ignore_errors=True)

    # --- what the saves tell ----------------------------------------------------------------------------------------

    def _rotate(self) -> str:
        """In the first process's thread, after a commit; answers what went wrong, which does not undo the commit."""
        keep_last, keep_best, metric, mode = self._rotation
        best = self.session.state.best
        protected = {best.step} if best is not None and best.path is not None else set()
        try:
            scored = [(one.step, one.metrics.get(metric)) for one in self.checkpoints.committed()]
            for step in surplus(scored, keep_last, keep_best, mode, protected):
                self.checkpoints.remove(step)
        except StoreError as error:
            return f"older checkpoints are not removed: {error}"
        return ""

    def _done(self, saved: Saved) -> None:
        session, save = self.session, saved.save
        session.committed, session.saves_under_way = saved.ref, 0
        session.committed_step_seconds = save.step_seconds
        session.progress.checkpoint_step, session.progress.checkpoint_at = save.step, saved.ref.saved_at.timestamp()
        session.saves.add(saved.seconds)
        session.say(
            "save",
            step=save.step,
            seconds=round(save.staged, 3),
            path=saved.ref.path,
            uploaded_seconds=round(saved.seconds - save.staged, 3),
            bytes=saved.size,
        )
        if saved.note:
            session.say("warning", step=save.step, message=saved.note)
        if session.attempt.local_rank == 0:
            shutil.rmtree(save.folder, ignore_errors=True)

    def _failed(self, step: int, words: str) -> None:
        session = self.session
        session.saves_under_way = 0
        best = session.state.best
        if best is not None and best.step == step:
            session.remember(best=replace(best, path=None))  # its weights are lost; the model will be the last ones
        newest = f"the newest is that of step {session.committed.step}" if session.committed else "there is none yet"
        session.say("warning", step=step, message=f"the checkpoint of step {step} was not stored: {words}; {newest}")
