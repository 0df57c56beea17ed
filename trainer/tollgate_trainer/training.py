"""One attempt at a training, from the manifest to its last words: what happens, in the order in which it happens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tollgate.contract import Env, Files, LastWords, ModelRef, Outcome
from tollgate.manifest.loader import LoadedManifest, load_canonical
from tollgate_trainer.data import Documents, Splits, load_documents, tokenise_documents
from tollgate_trainer.lifecycle import output
from tollgate_trainer.lifecycle.agreement import Agreement
from tollgate_trainer.lifecycle.attempt import Attempt
from tollgate_trainer.lifecycle.batching import Batching, batching
from tollgate_trainer.lifecycle.checkpoints import Checkpoints, Found, Identity, committed, newest_valid
from tollgate_trainer.lifecycle.events import Events
from tollgate_trainer.lifecycle.goodput import Goodput, State, rounded, without_lost_steps
from tollgate_trainer.lifecycle.heartbeat import Heartbeat, last_before
from tollgate_trainer.lifecycle.lease import Lease
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.lifecycle.state import LifecycleState
from tollgate_trainer.lifecycle.stop import StopCode, StopFlag
from tollgate_trainer.metrics import TrainingCollector, serve
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.finished import ModelInfo, save
from tollgate_trainer.models.source import Source, model_source, tokenizer_source
from tollgate_trainer.refusal import ManifestRefused, OutputRefused

if TYPE_CHECKING:
    from tollgate_trainer.lifecycle.loop import Plan, TrainingLoop
    from tollgate_trainer.models.build import Built

COMPLETED = "Completed"


class Training:
    """One process of one attempt."""

    def __init__(self, attempt: Attempt, environ: Mapping[str, str], flag: StopFlag, goodput: Goodput) -> None:
        self.attempt = attempt
        self.environ = environ
        self.flag = flag
        self.goodput = goodput
        self.session: Session | None = None
        self.events = Events(attempt.output_root, attempt.leads, attempt.number)

    def run(self) -> LastWords:
        """Train, or find out that there is nothing to train.

        Raises: Refused and its kinds, ManifestError, Fenced, NonFinite, and whatever goes wrong on the way.
        """
        attempt = self.attempt
        loaded = self._manifest()
        self.goodput.switch(State.DATA)
        documents = load_documents(loaded.manifest, attempt.dataset_root)
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
        from tollgate_trainer.lifecycle import processes

        in_pod = bool(self.environ.get(Env.POD_IP))
        device, aloud = processes.device_for(loaded.manifest, attempt, in_pod)
        processes.join(attempt, device)
        processes.set_determinism(loaded.manifest)
        session = Session(
            attempt=attempt,
            loaded=loaded,
            dataset_digest=documents.digest,
            goodput=self.goodput,
            events=self.events,
            agreement=Agreement(attempt.world),
            flag=self.flag,
            lease=Lease.from_environment(self.environ),
        )
        self.session = session
        self._prepare_output(session, found)
        with _Signs(session):
            if aloud:
                session.say("warning", message=aloud)
            words = _Run(session, documents, source, device).train()
        session.agreement.barrier()
        session.agreement.close()
        processes.leave()
        return words

    def _manifest(self) -> LoadedManifest:
        path = self.attempt.manifest
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ManifestRefused(f"the manifest {path} cannot be read: {error}") from error
        loaded = load_canonical(data, self.attempt.manifest_digest, str(path))
        self.events.add(
            "start",
            run=self.attempt.run,
            world=self.attempt.world,
            manifest=loaded.digest,
            dataset=loaded.manifest.dataset.path,
        )
        return loaded

    def _prepare_output(self, session: Session, found: output.Output) -> None:
        """What one process does before the others go on: earlier work aside, the lost time of earlier attempts booked."""
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
        self._close_metrics = lambda: None
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
        self._close_metrics()


class _Run:
    """The part with torch."""

    def __init__(self, session: Session, documents: Documents, source: Source, device: Any) -> None:
        self.session = session
        self.documents = documents
        self.source = source
        self.device = device
        self.manifest = session.loaded.manifest
        self.root = session.attempt.output_root

    def train(self) -> LastWords:
        """Everything from finding the newest checkpoint to the finished model."""
        session, goodput = self.session, self.session.goodput
        goodput.switch(State.RESTORE)
        resumed = self._find_checkpoint()
        self._book_earlier_attempts(resumed)
        if (code := self._stop_before_start()) is not StopCode.NONE:
            return self._stopped(code, None)
        batches = batching(
            self.manifest,
            session.attempt.world,
            session.attempt.replan,
            resumed.commit.samples_per_step if resumed else None,
        )
        self._go_to(State.DATA)
        tokenizer = self._tokenizer(resumed)
        splits = tokenise_documents(self.documents, tokenizer, self.manifest)
        session.say("data", digest=splits.digest, **{name: asdict(stats) for name, stats in splits.stats.items()})
        self._go_to(State.IMPORT)
        from tollgate_trainer.models.build import build

        self._go_to(State.LOAD)
        built = build(self.manifest, session.attempt.dataset_root, tokenizer, self.device)
        loop = self._loop(splits, batches, built, tokenizer, resumed)
        if (code := self._stop_before_start()) is not StopCode.NONE:
            return self._stopped(code, loop.plan)
        exhausted = self._steps(loop, resumed)
        if session.stopped is not StopCode.NONE:
            return self._stopped(session.stopped, loop.plan)
        return self._finish(loop, built, tokenizer, exhausted)

    # --- before the first step --------------------------------------------------------------------------------------

    def _go_to(self, state: State) -> None:
        self.session.goodput.switch(state)
        self.session.progress.touch()

    def _find_checkpoint(self) -> Found | None:
        """The newest valid checkpoint, looked for by one process and told to all."""
        session = self.session
        found = None
        if session.attempt.leads:

            def report(one: Found, problem: str) -> None:
                session.say(
                    "warning", step=one.commit.step, message=f"checkpoint {one.commit.step} is not used: {problem}"
                )

            found = newest_valid(self.root / Files.CHECKPOINTS, report)
            if found is None and committed(self.root / Files.CHECKPOINTS):
                session.say("warning", message="no checkpoint is whole; training starts from the beginning")
        found = session.agreement.from_first(found)
        if found is not None:
            session.committed = found.commit.ref()
            session.resumed_from = found.commit.step
            session.state = LifecycleState.read(found.folder)
            session.committed_step_seconds = session.state.goodput.get(State.STEP, 0.0)
            session.progress.checkpoint_step = found.commit.step
            session.progress.checkpoint_at = session.committed.saved_at.timestamp()
        return found

    def _book_earlier_attempts(self, resumed: Found | None) -> None:
        beat = last_before(self.root, self.session.attempt.number)
        total = beat.run_seconds if beat is not None else self.session.state.goodput
        self.session.earlier = without_lost_steps(total, self.session.committed_step_seconds if resumed else 0.0)

    def _stop_before_start(self) -> StopCode:
        session = self.session
        code = StopCode(session.agreement.now(session.own_stop(0.0))[0])
        session.raise_if_fenced(code)
        session.stopped = code
        return code

    def _tokenizer(self, resumed: Found | None) -> Any:
        """The checkpoint's when there is one, the given one, or one that a single process trains for all."""
        if resumed is not None:
            return tokenizers.load(Source(folder=resumed.folder))
        source = tokenizer_source(self.manifest, self.session.attempt.dataset_root)
        if source is not None:
            return tokenizers.load(source)
        text = None
        if self.session.attempt.leads:
            config = self.manifest.model.config or {}
            text = tokenizers.train(self.documents.train, int(config.get("vocab_size", tokenizers.DEFAULT_VOCABULARY)))
        return tokenizers.from_json(self.session.agreement.from_first(text))

    def _loop(
        self, splits: Splits, batches: Batching, built: Built, tokenizer: Any, resumed: Found | None
    ) -> TrainingLoop:
        import transformers

        from tollgate_trainer.lifecycle.arguments import plan_for, topology, training_arguments
        from tollgate_trainer.lifecycle.loop import TrainingLoop
        from tollgate_trainer.tasks.causal_lm import CausalLM

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        session, attempt = self.session, self.session.attempt
        task = CausalLM(int(tokenizer.pad_token_id))
        plan = plan_for(self.manifest, splits, batches, task)
        now = topology(self.manifest, batches, built.precision, self.device)
        if resumed is not None:
            self._compare(session.state, now, built)
        session.remember(topology=now, base_digest=built.base_digest)
        session.progress.total_steps = plan.total_steps
        identity = Identity(
            uid=attempt.uid,
            attempt=attempt.number,
            world_size=attempt.world,
            samples_per_step=batches.samples_per_step,
            manifest_digest=session.loaded.digest,
            dataset_digest=session.dataset_digest,
        )
        checkpoints = Checkpoints(self.root, identity, session.lease.check)
        if attempt.leads:
            checkpoints.clear_abandoned()
        arguments = training_arguments(self.manifest, batches, plan, built.precision, self.device, checkpoints.staging)
        session.say(
            "plan",
            total_steps=plan.total_steps,
            steps_per_epoch=plan.order.steps_per_epoch,
            samples_per_step=batches.samples_per_step,
            parameters=built.parameters,
            trainable_parameters=built.trainable,
            adapted=batches.adapted,
            **now,
        )
        return TrainingLoop(
            session, plan, task, checkpoints, _Rotation(checkpoints, plan, session), built.model, arguments, tokenizer
        )

    def _compare(self, before: LifecycleState, now: dict[str, Any], built: Built) -> None:
        """Say whether the resumed run will be bit-equal, and refuse another base than the adapter was trained on."""
        session = self.session
        if before.base_digest != built.base_digest:
            raise OutputRefused(
                f"the checkpoint's adapter was trained on a base with {before.base_digest}, now it is {built.base_digest}; "
                "restore that base or start fresh",
                "model.base",
            )
        changed = [
            f"{key}: {before.topology.get(key)} -> {value}"
            for key, value in now.items()
            if before.topology.get(key) != value
        ]
        if not now["deterministic"]:
            changed.append("reproducibility.deterministic is off")
        session.exact = not changed
        session.say(
            "restore",
            step=session.resumed_from,
            equality="bit-equal" if session.exact else "statistical",
            because=changed,
            checkpoint=session.committed.path if session.committed else None,
        )

    # --- training ---------------------------------------------------------------------------------------------------

    def _steps(self, loop: TrainingLoop, resumed: Found | None) -> bool:
        """Run the steps that are left; answers whether patience ended them."""
        from transformers import PrinterCallback

        from tollgate_trainer.lifecycle.step_end import StepEnd

        session, plan = self.session, loop.plan
        if resumed is not None and (resumed.commit.step >= plan.total_steps or _exhausted(plan, session.state)):
            loop.restore_weights(resumed.folder)  # all that was missing is the finished model
            loop.state.global_step = resumed.commit.step
            session.progress.step = resumed.commit.step
            return _exhausted(plan, session.state)
        loop.remove_callback(PrinterCallback)  # the events say it
        step_end = StepEnd(loop, lambda: session.goodput.switch(State.STEP))
        loop.add_callback(step_end)
        session.goodput.switch(State.RESTORE if resumed is not None else State.LOAD)
        loop.train(resume_from_checkpoint=str(resumed.folder) if resumed is not None else None)
        return step_end.exhausted

    # --- the end ----------------------------------------------------------------------------------------------------

    def _stopped(self, code: StopCode, plan: Plan | None) -> LastWords:
        session = self.session
        session.goodput.switch(State.STOP)
        reason = session.stop_reason()
        session.say(
            "stop",
            reason=str(reason),
            step=session.progress.step,
            checkpoint=session.committed.path if session.committed else None,
        )
        return self._words(Outcome.STOPPED, str(reason))

    def _finish(self, loop: TrainingLoop, built: Built, tokenizer: Any, exhausted: bool) -> LastWords:
        """The last or the best weights become the model."""
        session, plan = self.session, loop.plan
        step = loop.state.global_step
        best = session.state.best
        chosen, metrics = step, dict(session.state.last_evaluation.metrics) if session.state.last_evaluation else {}
        if plan.tracks_best and best is not None and best.path is not None and best.step != step:
            loop.restore_weights(self.root / best.path)
            chosen = best.step
            metrics = loop.evaluate()
        session.goodput.switch(State.SAVE)
        if session.progress.loss is not None:
            metrics["train_loss"] = session.progress.loss
        model = None
        if session.attempt.leads:
            record = self._record(built, plan, chosen, step, exhausted, metrics)
            adapter = self.manifest.adapter.type != "none"
            session.lease.check()
            digest = save(
                loop.accelerator.unwrap_model(loop.model),
                tokenizer,
                self.root,
                session.attempt.number,
                record,
                self.source if adapter else None,
                self.manifest.model.base,
                built.base_digest,
            )
            loop.checkpoints.close()
            model = ModelRef(path=Files.MODEL, digest=digest)
        model = session.agreement.from_first(model)
        session.goodput.switch(State.STOP)
        session.say(
            "end", step=step, total_steps=plan.total_steps, model=model.digest, chosen_step=chosen, metrics=metrics
        )
        return self._words(Outcome.COMPLETED, COMPLETED, model, metrics)

    def _record(
        self, built: Built, plan: Plan, chosen: int, step: int, exhausted: bool, metrics: dict[str, float]
    ) -> dict[str, Any]:
        session, attempt = self.session, self.session.attempt
        return {
            "manifest_digest": session.loaded.digest,
            "dataset_digest": session.dataset_digest,
            "name": self.manifest.name,
            "run": attempt.run,
            "namespace": attempt.namespace,
            "uid": attempt.uid,
            "attempt": attempt.number,
            "step": step,
            "chosen_step": chosen,
            "total_steps": plan.total_steps,
            "stopped_early": exhausted,
            "epoch": step / plan.order.steps_per_epoch,
            "tokens": plan.order.tokens_until(step),
            "parameters": built.parameters,
            "trainable_parameters": built.trainable,
            "seed": self.manifest.reproducibility.seed,
            "resumed_from_step": session.resumed_from,
            "equality": _equality(session),
            "topology": session.state.topology,
            "base_digest": built.base_digest,
            "metrics": metrics,
            "goodput_seconds": rounded(session.run_seconds()),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _words(
        self, outcome: Outcome, reason: str, model: ModelRef | None = None, metrics: dict[str, float] | None = None
    ) -> LastWords:
        session, progress = self.session, self.session.progress
        step = progress.step if progress.step is not None else session.resumed_from
        return LastWords(
            outcome=outcome,
            reason=reason,
            step=step or 0,
            total_steps=progress.total_steps,
            epoch=progress.epoch,
            loss=progress.loss,
            checkpoint=session.committed,
            model=model,
            metrics=metrics or None,
            goodput_seconds=rounded(session.goodput.seconds()),
            resumed_from_step=session.resumed_from,
        )


class _Rotation:
    """Which checkpoints stay: the newest, the best, and the best few by the metric."""

    def __init__(self, checkpoints: Checkpoints, plan: Plan, session: Session) -> None:
        self.checkpoints, self.plan, self.session = checkpoints, plan, session

    def __call__(self) -> None:
        protected: set[int] = set()
        best = self.session.state.best
        if self.plan.tracks_best and best is not None:
            protected.add(best.step)
        if self.plan.keep_best:
            sign = 1 if self.plan.best_mode == "min" else -1
            scored = []
            for one in committed(self.checkpoints.root):
                evaluated = LifecycleState.read(one.folder).last_evaluation
                if (
                    evaluated is not None
                    and evaluated.step == one.commit.step
                    and self.plan.best_metric in evaluated.metrics
                ):
                    scored.append((sign * evaluated.metrics[self.plan.best_metric], one.commit.step))
            protected |= {step for _, step in sorted(scored)[: self.plan.keep_best]}
        self.checkpoints.rotate(self.plan.keep_last, protected)


def _exhausted(plan: Plan, state: LifecycleState) -> bool:
    return plan.patience is not None and state.bad_evaluations >= plan.patience


def _equality(session: Session) -> str:
    if session.resumed_from is None:
        return "uninterrupted"
    return "bit-equal" if session.exact else "statistical"


__all__ = ["Training", "adopted"]
