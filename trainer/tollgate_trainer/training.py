"""One attempt at a training: the checks that need no torch, the processes, and then the run itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tollgate.contract import Env, Files, LastWords, ModelRef, Outcome
from tollgate.manifest.loader import LoadedManifest, load_canonical
from tollgate_trainer.data import load_documents
from tollgate_trainer.data.cache import cache_for
from tollgate_trainer.lifecycle import output
from tollgate_trainer.lifecycle.agreement import Agreement
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.lifecycle.events import Events
from tollgate_trainer.lifecycle.goodput import Goodput, State, added, rounded
from tollgate_trainer.lifecycle.heartbeat import Beat, Heartbeat, last_beat
from tollgate_trainer.lifecycle.lease import Lease
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.lifecycle.stop import StopFlag
from tollgate_trainer.metrics import TrainingCollector, serve
from tollgate_trainer.models.finished import COMPLETED, ModelInfo
from tollgate_trainer.models.source import model_source
from tollgate_trainer.refusal import ManifestRefused
from tollgate_trainer.track.choose import wanted
from tollgate_trainer.track.following import PATIENCE_SECONDS, Follower

LEAVE_SECONDS = 5.0
"""Before somebody kills us, that a process needs to leave."""


class Training:
    """One process of one attempt."""

    def __init__(self, attempt: Attempt, environ: Mapping[str, str], flag: StopFlag, goodput: Goodput) -> None:
        self.attempt = attempt
        self.environ = environ
        self.flag = flag
        self.goodput = goodput
        self.session: Session | None = None
        self.events = Events(attempt.output_root, attempt.leads, attempt.number)
        self._tracked = False
        self._trackers: Follower | None = None

    def run(self) -> LastWords:
        """Train, or find out that there is nothing to train.

        Raises: Refused and its kinds, ManifestError, Fenced, NonFinite, and whatever goes wrong on the way.
        """
        attempt = self.attempt
        loaded = self._manifest()
        self.goodput.switch(State.DATA)
        documents = load_documents(loaded.manifest, attempt.dataset_root)
        cache = cache_for(loaded.manifest, documents.digest, attempt.output_root, self.environ, checks=attempt.leads)
        documents = replace(documents, cache=cache)
        source = model_source(loaded.manifest, attempt.dataset_root)
        found = output.examine(attempt, loaded.digest, documents.digest)
        if found.adopt is not None:
            self.events.add(
                "adopt", message="finished output of the same manifest and dataset was found", **_brief(found.adopt)
            )
            return adopted(found.adopt)
        self.goodput.switch(State.IMPORT)
        if source.offline:
            os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if attempt.world == 1:
            # One process trains on one GPU; the library would spread it over all that it sees.
            os.environ["CUDA_VISIBLE_DEVICES"] = (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]
        from tollgate_trainer.lifecycle import processes, sharding

        in_pod = bool(self.environ.get(Env.POD_IP))
        device, aloud = processes.device_for(loaded.manifest, attempt, in_pod)
        strategy, trying = sharding.strategy_here(loaded.manifest, attempt, in_pod)
        processes.join(attempt, device, strategy)
        processes.set_determinism(loaded.manifest)
        beat = self._earlier()
        session = Session(
            attempt=attempt,
            loaded=loaded,
            dataset_digest=documents.digest,
            dataset=documents.record(loaded.manifest),
            goodput=self.goodput,
            events=self.events,
            agreement=Agreement(attempt.world),
            flag=self.flag,
            lease=Lease.from_environment(self.environ),
            earlier=dict(beat.run_seconds) if beat is not None else {},  # each beat of ours has to tell them
        )
        self.session = session
        self._prepare_output(session, found)
        if self._tracked and attempt.leads:
            self._trackers = Follower(attempt.output_root, self.environ, session.trackers, self._warn)
        with _Signs(session):
            from tollgate_trainer.lifecycle.run import Run

            for message in filter(None, (aloud, trying)):
                session.say("warning", message=message)
            shards = sharding.sharding_for(loaded.manifest, strategy, attempt, device)
            words = Run(session, documents, source, device, shards).train()
        session.agreement.barrier()
        session.agreement.close()
        processes.leave()
        return words

    def close_trackers(self) -> None:
        """After the last event and the outcome: wait until the trackers were told, as long as nobody kills us."""
        if self._trackers is None:
            return
        seconds = PATIENCE_SECONDS
        if self.flag.signalled_at is not None:
            seconds = min(seconds, self.flag.signalled_at + self.attempt.grace - LEAVE_SECONDS - time.time())
        if self.attempt.deadline is not None:
            seconds = min(seconds, self.attempt.deadline - LEAVE_SECONDS - time.time())
        self._trackers.close(seconds)

    def note_time(self) -> None:
        """A last beat of a process that ends early, at whatever point: its time, and what attempts before it had lost,
        are all that the next attempt learns of them. A volume that fails is told by others.
        """
        attempt = self.attempt
        if not attempt.leads:
            return
        with suppress(OSError):
            beat = self.session.beat() if self.session is not None else self._beat_before_session()
            Heartbeat(attempt.output_root, attempt.number, lambda: beat).write()

    def _beat_before_session(self) -> Beat:
        attempt, seconds = self.attempt, self.goodput.seconds()
        before = self._earlier()
        return Beat(
            attempt=attempt.number,
            uid=attempt.uid,
            at=time.time(),
            state=self.goodput.state,
            step=0,
            attempt_seconds=seconds,
            run_seconds=added(before.run_seconds if before is not None else {}, seconds),
        )

    def _earlier(self) -> Beat | None:
        """The last beat before our own first one: a suspended attempt comes back under the same number."""
        attempt = self.attempt
        return last_beat(attempt.output_root, attempt.number, attempt.uid) if attempt.leads else None

    def _warn(self, message: str) -> None:
        self.events.add("warning", message=message)

    def _manifest(self) -> LoadedManifest:
        path = self.attempt.manifest
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ManifestRefused(f"the manifest {path} cannot be read: {error}") from error
        loaded = load_canonical(data, self.attempt.manifest_digest, str(path))
        self._tracked = bool(wanted(loaded.manifest, self.environ))
        self.events.add(
            "start",
            run=self.attempt.run,
            world=self.attempt.world,
            manifest=loaded.digest,
            dataset=loaded.manifest.dataset.path,
        )
        return loaded

    def _prepare_output(self, session: Session, found: output.Output) -> None:
        """What one process does before the others go on: put earlier work of another kind aside."""
        attempt = self.attempt
        if attempt.leads:
            session.lease.check()
            if found.move_aside:
                aside = output.move_aside(attempt.output_root, datetime.now(UTC))
                self.events.add("warning", message=f"earlier work was moved to {aside.name}")
            for name in (Files.EVIDENCE, Files.REPORT):
                (attempt.output_root / name).parent.mkdir(parents=True, exist_ok=True)
        session.agreement.barrier()


def adopted(info: ModelInfo) -> LastWords:
    """Last words of an attempt that found its work done."""
    known = info.document
    metrics = known.get("metrics")
    return LastWords(
        outcome=Outcome.COMPLETED,
        reason=COMPLETED,
        adopted=True,
        step=known.get("step"),
        total_steps=known.get("total_steps"),
        epoch=known.get("epoch"),
        loss=(metrics or {}).get("train_loss"),
        model=ModelRef(path=Files.MODEL, digest=info.digest),
        metrics=metrics,
    )


def _brief(info: ModelInfo) -> dict[str, Any]:
    return {"step": info.document.get("step"), "model": info.digest}


class _Signs:
    """Heartbeat and metrics of rank 0 for as long as the block runs."""

    def __init__(self, session: Session) -> None:
        attempt = session.attempt
        self._close_metrics: Callable[[], object] | None = None
        self._heartbeat: Heartbeat | None = None
        if attempt.leads:
            self._heartbeat = Heartbeat(attempt.output_root, attempt.number, session.beat)
            if attempt.metrics_address is not None:
                collector = TrainingCollector(session.progress, lambda: rounded(session.goodput.seconds()))
                self._close_metrics = serve(collector, attempt.metrics_address)

    def __enter__(self) -> _Signs:
        if self._heartbeat is not None:
            self._heartbeat.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._heartbeat is not None:
            with suppress(OSError):  # the volume may be what failed; the cause is already on its way up
                self._heartbeat.stop()
        if self._close_metrics is not None:
            self._close_metrics()
