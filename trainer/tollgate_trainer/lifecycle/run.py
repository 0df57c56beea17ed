"""A training from its newest checkpoint to its last words: what happens, in the order in which it happens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, cast

import torch
import transformers
from transformers import PrinterCallback

from tollgate.contract import Env, Files, LastWords
from tollgate.estimate import CHECKPOINT_BYTES
from tollgate_trainer.data import Documents
from tollgate_trainer.lifecycle import arrangement, compiling, workers
from tollgate_trainer.lifecycle.arguments import differences, plan_for, topology, training_arguments
from tollgate_trainer.lifecycle.batching import Batching, batching
from tollgate_trainer.lifecycle.checkpoints import Checkpoints, Found, Identity, committed, newest_valid
from tollgate_trainer.lifecycle.cross_entropy import chunked_loss
from tollgate_trainer.lifecycle.ending import finish
from tollgate_trainer.lifecycle.experts import ExpertsLog
from tollgate_trainer.lifecycle.extending import extend
from tollgate_trainer.lifecycle.goodput import State, added, without_lost_steps
from tollgate_trainer.lifecycle.loop import TrainingLoop
from tollgate_trainer.lifecycle.parting import stopped
from tollgate_trainer.lifecycle.plan import Plan
from tollgate_trainer.lifecycle.processes import fit_threads
from tollgate_trainer.lifecycle.profiling import StepProfile
from tollgate_trainer.lifecycle.remote.keeping import Keeping
from tollgate_trainer.lifecycle.rotation import Rotation
from tollgate_trainer.lifecycle.sampling import sampling_for
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.lifecycle.sharding import Sharding, sharding_for
from tollgate_trainer.lifecycle.state import LifecycleState
from tollgate_trainer.lifecycle.step_end import StepEnd
from tollgate_trainer.lifecycle.stop import StopCode
from tollgate_trainer.models import quantised
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.build import Built, build
from tollgate_trainer.models.source import Source, tokenizer_source
from tollgate_trainer.plan.forecasting import Forecasting
from tollgate_trainer.plan.making import Planning
from tollgate_trainer.plan.preflight import Findings, longest_step, preflight
from tollgate_trainer.refusal import OutputRefused
from tollgate_trainer.tasks.choose import task_for
from tollgate_trainer.tasks.protocol import Task
from tollgate_trainer.tasks.samples import SampleSplits


class Run:
    """From the newest checkpoint to the last words, in one process."""

    def __init__(
        self,
        session: Session,
        documents: Documents,
        source: Source,
        device: torch.device,
        sharding: Sharding,
    ) -> None:
        self.sharding = sharding
        self.session = session
        self.documents = documents
        self.source = source
        self.device = device
        self.manifest = session.loaded.manifest
        self.root = session.attempt.output_root
        self.planning = Planning(session, device)
        uri = self.manifest.checkpoint.uri
        self.remote = Keeping(session, uri) if uri is not None else None
        self.from_first = False
        """Whether only the first process loads the weights, and the others get their shards from it."""
        self.before: Mapping[str, Any] | None = None
        """The topology of the checkpoint that is gone on from."""

    def train(self) -> LastWords:
        """Everything from finding the newest checkpoint to the finished model."""
        session, goodput = self.session, self.session.goodput
        goodput.switch(State.RESTORE)
        resumed = self._find_checkpoint()
        self._book_earlier_attempts(resumed)
        if resumed is not None:
            refuse_other_world(self.sharding, resumed.commit.world_size, session.attempt.world)
        if self._stop_before_start() is not StopCode.NONE:
            return stopped(session)
        self._go_to(State.DATA)
        tokenizer = self._tokenizer(resumed)
        task = task_for(self.manifest, self.documents, tokenizer, session.attempt.dataset_root)
        self.manifest = self.planning.manifest(self.documents, task, tokenizer, resumed is not None)
        task = task_for(self.manifest, self.documents, tokenizer, session.attempt.dataset_root)  # as planned now
        self._shard_as_planned(resumed)
        batches = batching(
            self.manifest,
            session.attempt.world,
            session.attempt.replan,
            resumed.commit.samples_per_step if resumed else None,
        )
        splits = self._encode(task, tokenizer)
        self._go_to(State.LOAD)
        built = self._build(task, tokenizer)
        fit_threads(built.parameters)
        loop = self._loop(task, splits, batches, built, tokenizer, resumed)
        session.flag.leave = None  # from here on all processes stop at the same step, with a checkpoint
        if self._stop_before_start() is not StopCode.NONE:
            return stopped(session)
        exhausted = self._steps(loop, built.trainable, resumed)
        if session.stopped is not StopCode.NONE:
            return stopped(session)
        return finish(loop, built, tokenizer, self.source, exhausted)

    # --- before the first step --------------------------------------------------------------------------------------

    def _go_to(self, state: State) -> None:
        self.session.goodput.switch(state)
        self.session.progress.touch()

    def _encode(self, task: Task, tokenizer: Any) -> SampleSplits:
        """The samples of both splits: made and kept by one process, then taken from there by the others."""
        session, documents = self.session, self.documents
        if not session.attempt.leads:
            session.agreement.barrier()
        splits = task.encode(documents, tokenizer, self.manifest)
        if session.attempt.leads:
            session.agreement.barrier()
        said = documents.cache.said if documents.cache is not None else {}
        session.say(
            "data",
            digest=splits.digest,
            **{name: asdict(stats) for name, stats in splits.stats.items()},
            **documents.reading,
            **({"cache": said} if said else {}),
        )
        for name, problem in said.items():
            if problem.startswith("not kept"):
                message = f"the token ids of {name} are {problem}; the next start makes them anew (set TOLLGATE_CACHE)"
                session.say("warning", message=message)
        return splits

    def _find_checkpoint(self) -> Found | None:
        """The newest valid checkpoint, looked for by one process and told to all."""
        session = self.session
        found = None
        if self.remote is not None:
            return self._go_on_from(self.remote.find())
        if session.attempt.leads:

            def report(one: Found, problem: str) -> None:
                session.say(
                    "warning", step=one.commit.step, message=f"checkpoint {one.commit.step} is not used: {problem}"
                )

            found = newest_valid(self.root / Files.CHECKPOINTS, report)
            if found is None and committed(self.root / Files.CHECKPOINTS):
                session.say("warning", message="no checkpoint is whole; training starts from the beginning")
        found = cast("Found | None", session.agreement.from_first(found))
        if found is not None:
            session.committed = found.commit.ref()
        return self._go_on_from(found)

    def _go_on_from(self, found: Found | None) -> Found | None:
        session = self.session
        if found is not None and session.committed is not None:
            session.resumed_from = found.commit.step
            session.state = LifecycleState.read(found.folder)
            if found.commit.uid == session.attempt.uid:
                session.trackers.update(session.state.trackers)
            session.committed_step_seconds = session.state.goodput.get(State.STEP, 0.0)
            session.progress.checkpoint_step = found.commit.step
            session.progress.checkpoint_at = session.committed.saved_at.timestamp()
        return found

    def _book_earlier_attempts(self, resumed: Found | None) -> None:
        """Where the time of earlier attempts went; their work after the checkpoint is lost."""
        total, saved = self.session.earlier, self.session.state.goodput
        if sum(total.values()) < sum(saved.values()):  # beats were lost, the checkpoint's own count was not
            total = added(saved, total)
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

    def _build(self, task: Task, tokenizer: Any) -> Built:
        """The model, in this process with or without its weights."""
        saved = self.source.folder is not None or self.source.hub_id is not None
        self.from_first = self.sharding.first_can_load and saved and task.head is None
        empty = self.from_first and not self.session.attempt.leads
        with self.sharding.loading(saved):
            return build(self.manifest, self.session.attempt.dataset_root, tokenizer, self.device, task.head, empty)

    def _loop(
        self,
        task: Task,
        splits: SampleSplits,
        batches: Batching,
        built: Built,
        tokenizer: Any,
        resumed: Found | None,
    ) -> TrainingLoop:
        quiet: Any = transformers.logging
        if not os.environ.get(Env.DEBUG):
            quiet.set_verbosity_error()
        quiet.disable_progress_bar()
        session, attempt = self.session, self.session.attempt
        before = self.before = session.state.topology if resumed is not None else None
        model = self.sharding.shard(built.model, built.precision, self.from_first)  # it computes for packing's probe
        arranged = arrangement.arrangement(self.manifest, session, built, self.device, self.sharding, before)
        plan = plan_for(self.manifest, splits, batches, task, arranged)
        arrangement.say(session, arranged, plan.order)
        chunked = chunked_loss(self.manifest, session, built.model, self.device.type == "cuda")
        now = topology(self.manifest, batches, built.precision, self.device, self.sharding) | arranged.facts()
        now |= {"cross_entropy": "chunked"} if chunked is not None else {}
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
        checkpoints = Checkpoints(self.remote.root if self.remote else self.root, identity, session.lease.check)
        if self.remote is not None:
            self.remote.start(identity, plan.keep_last, plan.keep_best, plan.best_metric, plan.best_mode)
        if attempt.leads:
            checkpoints.clear_abandoned()
        arguments = training_arguments(
            self.manifest, batches, plan, built.precision, self.device, checkpoints.staging, self.sharding
        )
        session.say(
            "plan",
            total_steps=plan.total_steps,
            steps_per_epoch=plan.order.steps_per_epoch,
            samples_per_step=batches.samples_per_step,
            parameters=built.parameters,
            trainable_parameters=built.trainable,
            adapted=batches.adapted,
            **self.planning.said(splits, self.documents, plan.order),
            **now,
        )
        rotation = Rotation(checkpoints, plan, session)
        loop = TrainingLoop(session, plan, task, checkpoints, rotation, model, arguments, tokenizer, self.sharding)
        loop.remote = self.remote
        loop.chunked = chunked
        extend(loop, self.manifest)
        loop.sampling = sampling_for(loop, self.manifest.evaluation.samples if self.manifest.report.quotes else 0)
        return loop

    def _compare(self, before: LifecycleState, now: dict[str, Any], built: Built) -> None:
        """Say whether the resumed run will be bit-equal, and refuse another base than the adapter was trained on."""
        session = self.session
        if before.base_digest != built.base_digest:
            raise OutputRefused(
                f"the checkpoint's adapter was trained on a base with {before.base_digest}, now it is "
                f"{built.base_digest}; restore that base or start fresh",
                "model.base",
            )
        changed = differences(before.topology, now)
        if not now["deterministic"]:
            changed.append("reproducibility.deterministic is off")
        changed += quantised.doubts(self.manifest.model.quantization, self.device)
        changed += compiling.doubts(self.manifest.hyperparameters.compile, self.device)
        session.exact = not changed
        session.say(
            "restore",
            step=session.resumed_from,
            equality="bit-equal" if session.exact else "statistical",
            because=changed,
            checkpoint=session.committed.path if session.committed else None,
            **({"trackers": dict(session.trackers)} if session.trackers else {}),
        )

    # --- training ---------------------------------------------------------------------------------------------------

    def _steps(self, loop: TrainingLoop, trainable: int, resumed: Found | None) -> bool:
        """Run the steps that are left; answers whether patience ended them."""
        session, plan = self.session, loop.plan
        if resumed is not None and (resumed.commit.step >= plan.total_steps or exhausted_by(plan, session.state)):
            loop.restore_weights(resumed.folder)  # all that was missing is the finished model
            loop.state.global_step = resumed.commit.step
            session.progress.step = resumed.commit.step
            return exhausted_by(plan, session.state)
        findings = None
        asked = self.manifest.hyperparameters
        self._shape(loop)
        if self.manifest.preflight:
            self._go_to(State.PREFLIGHT)
            findings = preflight(loop, asked.gradient_checkpointing)
        self._take_in(loop, trainable, findings)
        self._read_beside(loop, findings)
        if loop.compiled:
            compiling.compiled(loop, lambda: longest_step(loop, asked.gradient_checkpointing))
        compiling.same_as_before(loop, self.before)
        loop.remove_callback(PrinterCallback)  # the events say it
        step_end = StepEnd(loop, lambda: session.goodput.switch(State.STEP))
        loop.add_callback(step_end)
        loop.add_callback(Forecasting(loop, self.planning))
        if loop.routing is not None:
            loop.add_callback(ExpertsLog(loop.routing, session))
        if session.attempt.profile:
            done = resumed.commit.step if resumed is not None else 0
            loop.add_callback(StepProfile(session, plan.total_steps - done, self.device))
        session.goodput.switch(State.RESTORE if resumed is not None else State.LOAD)
        loop.train(resume_from_checkpoint=str(resumed.folder) if resumed is not None else None)
        if self.remote is not None:
            self.remote.leave()
        return step_end.exhausted

    def _shape(self, loop: TrainingLoop) -> None:
        """Whether the model will be compiled, and then, where documents are packed, for one shape."""
        packed, asked = loop.plan.order.pack is not None, self.manifest.hyperparameters.compile
        why = compiling.why_not(asked, self.device, packed)
        if why is not None:
            self.session.say("warning", message=f"the model is not compiled: {why}")
            self.session.say("compile", on=False, because=why)
        loop.compiled = asked and why is None
        if loop.compiled and packed:
            loop.give_one_shape()

    def _read_beside(self, loop: TrainingLoop, findings: Findings | None) -> None:
        """How many processes read data, by what preflight's step took."""
        order, attempt = loop.plan.order, self.session.attempt
        compute = None
        if findings is not None and findings.step is not None:
            mean = order.tokens_until(order.steps_per_epoch) / order.micro_steps_per_epoch / attempt.world
            compute = mean * findings.step.seconds / (findings.step.rows * findings.step.width)
        found = workers.workers_for(
            self.manifest.hyperparameters.dataloader_num_workers,
            lambda: workers.fetch_seconds(loop.rows, loop.collate, order, attempt.rank),
            compute,
            workers.cores_left(attempt.local_world, self.device.type),
        )
        loop.workers = found.count
        self.session.say("data_loader", workers=found.count, fetch_seconds=found.fetch, because=found.because)

    def _shard_as_planned(self, resumed: Found | None) -> None:
        """`parallelism: auto` with a profile: the plan may shard what one process could not hold."""
        planned = self.manifest.parallelism
        if self.sharding.strategy not in ("single", "ddp") or planned == "auto" or planned == "ddp":
            return
        self.sharding = sharding_for(self.manifest, planned, self.session.attempt, self.device)
        if resumed is not None:
            refuse_other_world(self.sharding, resumed.commit.world_size, self.session.attempt.world)

    def _take_in(self, loop: TrainingLoop, trainable: int, findings: Findings | None) -> None:
        """What preflight measured goes into the plan, and how often to save comes out of it."""
        minutes = self.planning.measured(findings, trainable)
        if findings is not None:
            self.session.expected_save = CHECKPOINT_BYTES * trainable / findings.disk
        if minutes is not None and self.manifest.optimization_priority != "none":
            loop.plan = replace(loop.plan, save_minutes=minutes)


def refuse_other_world(sharding: Sharding, saved: int, now: int) -> None:
    """Raises: OutputRefused where a checkpoint's shards fit only the number of processes that wrote them."""
    if saved != now and not sharding.reshards:
        raise OutputRefused(
            f"the checkpoint holds {saved} DeepSpeed shards and this attempt has {now} processes, which can't share "
            f"them; go on with {saved} processes, or start a fresh run with parallelism: fsdp2, which cuts anew",
            "parallelism",
        )


def exhausted_by(plan: Plan, state: LifecycleState) -> bool:
    """Whether the checkpoint that is gone on from had already run out of patience."""
    return plan.patience is not None and state.bad_evaluations >= plan.patience
