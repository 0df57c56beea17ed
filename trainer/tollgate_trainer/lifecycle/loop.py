"""The training loop: HF Trainer with our order of samples, our checkpoints, our evaluation, and no non-finite step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from tollgate_trainer.data.order import RankBatches
from tollgate_trainer.extensions import TrainerStep
from tollgate_trainer.lifecycle.checkpoints import Checkpoints
from tollgate_trainer.lifecycle.committing import Committing
from tollgate_trainer.lifecycle.compiling import eagerly
from tollgate_trainer.lifecycle.feeding import REAL, Rows, collate_for
from tollgate_trainer.lifecycle.goodput import State
from tollgate_trainer.lifecycle.held_out import held_out
from tollgate_trainer.lifecycle.outcome import NonFinite
from tollgate_trainer.lifecycle.plan import Plan
from tollgate_trainer.lifecycle.remote.keeping import Keeping
from tollgate_trainer.lifecycle.sampling import Sampling
from tollgate_trainer.lifecycle.scaling import ScalerSkips
from tollgate_trainer.lifecycle.session import Session
from tollgate_trainer.lifecycle.sharding import Sharding, make_whole
from tollgate_trainer.lifecycle.state import Best
from tollgate_trainer.lifecycle.stop import StopCode
from tollgate_trainer.lifecycle.workers import outlive_stop_signals
from tollgate_trainer.models.chunked_loss import ChunkedLoss
from tollgate_trainer.models.moe_lora.model import MoeLoraModel
from tollgate_trainer.tasks.inputs import takes
from tollgate_trainer.tasks.protocol import Task

SHOWN_SAMPLES = 8


class TrainingLoop(Trainer):
    """HF Trainer for one process of an attempt."""

    def __init__(
        self,
        session: Session,
        plan: Plan,
        task: Task,
        checkpoints: Checkpoints,
        rotate: Callable[[], None],
        model: Any,
        args: TrainingArguments,
        tokenizer: Any,
        sharding: Sharding,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=task.collate,
            train_dataset=plan.train,
            eval_dataset=plan.validation if len(plan.validation) else None,
            processing_class=tokenizer,
        )
        self.sharding = sharding
        # The library would put DDP around a model that is sharded already.
        self.is_distributed_loading_by_transformers = sharding.strategy == "fsdp2"
        self.session = session
        self.plan = plan
        self.task = task
        self.checkpoints = checkpoints
        self.batches = RankBatches(plan.order, session.attempt.rank)
        self.rows = Rows(plan.train)
        self.collate = collate_for(task, plan.order)
        self.fixed = False
        self.compiled = False
        self.workers = 0
        self.around_step: TrainerStep | None = None
        self.chunked: ChunkedLoss | None = None
        self.skips = ScalerSkips()
        self.step_loss: list[torch.Tensor] = []
        self.last_grad_norm = math.nan
        self.remote: Keeping | None = None
        self.sampling: Sampling | None = None
        self.weights_of: int | None = None  # the step of the weights, once they are not those of the last step
        self.committing = Committing(session, plan, checkpoints, rotate)
        self._without_cache = {"use_cache": False} if takes(model, "use_cache") else {}
        self.routing = model.routing if isinstance(model, MoeLoraModel) else None

    # --- data -------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Our batches, already this process's own; the library's sharding is not asked."""
        return DataLoader(
            self.rows,
            batch_sampler=self.batches,
            collate_fn=self.collate,
            num_workers=self.workers,
            worker_init_fn=outlive_stop_signals,
            pin_memory=self.args.device.type == "cuda",
        )

    def give_one_shape(self) -> None:
        """All packed batches are as large as the largest, which is what compiled code is made for."""
        self.fixed = True
        self.collate = collate_for(self.task, self.plan.order, fixed=True)

    # --- shards -----------------------------------------------------------------------------------------------------

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """The library's preparation, and proof that the model is held as was asked for."""
        prepare: Any = super()._prepare_for_training
        prepared = prepare(*args, **kwargs)
        self.sharding.check(self)
        return prepared

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """Gradients of a micro-batch that is not the step's last stay where they are."""
        model: Any = self.model
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)

    def whole_model(self, frozen: bool) -> Any:
        """The model with whole weights in the first process, at the end; all processes call it.

        Args: frozen: also the weights that were not trained.
        """
        model = self.accelerator.unwrap_model(self.model)
        make_whole(self.sharding, model, frozen)
        return model

    # --- one step ---------------------------------------------------------------------------------------------------

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """No key-value cache in training."""
        given = {name: tensor for name, tensor in inputs.items() if name != REAL}
        with self.in_chunks(given):
            loss: Any = super().compute_loss(model, {**given, **self._without_cache}, *args, **kwargs)
        if self.routing is None:
            return loss
        divided = self.model_accepts_loss_kwargs and kwargs.get("num_items_in_batch") is not None
        return self.routing.balanced(loss, 1 / self.current_gradient_accumulation_steps if divided else 1.0)

    def in_chunks(self, batch: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Within it the model computes this batch's loss without all logits, where it was agreed on."""
        return nullcontext() if self.chunked is None else self.chunked.over(batch["labels"])

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward of one micro-batch; the loss is kept for this step's checks."""
        mask = inputs.get("attention_mask", inputs.get(REAL))
        # Until backward is over: gradient checkpointing routes the same tokens once more there.
        with self.routing.step(mask, self.args.device) if self.routing is not None else nullcontext():
            if self.around_step is None:
                loss = super().training_step(model, inputs, *args, **kwargs)
            else:
                train: Any = super().training_step
                batch = dict(self._prepare_inputs(inputs))
                loss = self.around_step(model, batch, lambda changed: train(model, changed, *args, **kwargs))
        self.step_loss.append(loss)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm after reduction, equal in all processes, so each can refuse the step by itself.

        Raises: NonFinite before the optimizer sees the gradients.
        """
        norm: Any = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        self.last_grad_norm = float(norm)
        finite = math.isfinite(self.last_grad_norm)
        if self.args.fp16 and not finite:
            self._skip()
        elif not finite:
            self._refuse_step(f"the gradient norm is {self.last_grad_norm}", self.state.global_step + 1)
        if finite:
            self.skips.bearable(True)
        return norm

    def _skip(self) -> None:
        """The scale of fp16 was too large: the scaler itself skips the step and halves it."""
        step, bearable = self.state.global_step + 1, self.skips.bearable(False)
        self.session.say("scaler_skip", step=step, in_a_row=self.skips.in_a_row, total=self.skips.total)
        if not bearable:
            self._refuse_step(f"{self.skips.in_a_row} steps in a row had gradients that fp16 can't hold", step)

    def local_loss(self) -> float:
        """The loss of the last step in this process."""
        return float(torch.stack(self.step_loss).sum()) if self.step_loss else math.nan

    def _refuse_step(self, what: str, step: int) -> None:
        rank = self.session.attempt.rank
        loss = self.local_loss()
        samples = [self.plan.train.documents[i].id for i in self.plan.order.at_step(step, rank)]
        told = self.session.agreement.gathered((rank, loss, samples))
        bad = [(r, value, ids) for r, value, ids in told if not math.isfinite(value)]
        places = "; ".join(
            f"rank {r}: loss {value}, samples {', '.join(ids[:SHOWN_SAMPLES])}"
            + (f" and {len(ids) - SHOWN_SAMPLES} more" if len(ids) > SHOWN_SAMPLES else "")
            for r, value, ids in bad or told
        )
        raise NonFinite(
            f"step {step}: {what} ({places}). The training stopped there; the newest checkpoint is finite. Look at "
            f"these samples, lower hyperparameters.learning_rate, or use precision: fp32"
        )

    # --- evaluation -------------------------------------------------------------------------------------------------

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Metrics over all held-out samples, each process a share; how they are spread over batches does not matter."""
        started = time.monotonic()
        with self.session.spend(State.EVALUATE), eagerly(self.compiled):
            metrics = held_out(self)
            if self.sampling is not None and self.weights_of is None:  # its answers were told at its own step
                self.sampling.tell(self, self.accelerator.unwrap_model(self.model))
        seconds = time.monotonic() - started
        self.session.evaluations.add(seconds)
        # What is measured belongs to the step of the weights: curves and trackers would show the best's as the last's.
        step = self.state.global_step if self.weights_of is None else self.weights_of
        total, chosen = self.plan.total_steps, {} if self.weights_of is None else {"chosen": True}
        self.session.say("eval", step=step, total_steps=total, seconds=round(seconds, 3), **chosen, **metrics)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        """The library writes aside; only a commit moves it to where it counts."""
        return str(self.checkpoints.staging)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save, commit, rotate; returns when the checkpoint counts (or raises in every process).

        Raises: Fenced, CheckpointError, OSError.
        """
        step = self.state.global_step
        if self.session.committed is not None and self.session.committed.step == step:
            return  # an evaluation and the clock may both ask at one step
        ending = step >= self.plan.total_steps or self.session.stopped is not StopCode.NONE
        ending = ending or self.control.should_training_stop
        best = self.session.state.best
        # A save that waited for an earlier upload would hold other weights than those that were evaluated as best.
        must = ending or (self.plan.tracks_best and best is not None and best.step == step)
        started = time.monotonic()
        self.session.progress.touch()
        with self.session.spend(State.SAVE):
            agreement, attempt = self.session.agreement, self.session.attempt
            if self.remote is not None and not self.remote.may_begin(step, must=must):
                return
            if attempt.leads or (self.remote is not None and attempt.local_rank == 0):
                self.checkpoints.prepare(step)
            agreement.barrier()
            super()._save_checkpoint(model, trial)
            agreement.barrier()
            if self.remote is not None:
                self._upload(step, started, ending)
                return
            self.committing.commit(step, self._expected())
        seconds = time.monotonic() - started
        self.session.saves.add(seconds)
        self.session.progress.touch()
        self.session.say("save", step=step, seconds=round(seconds, 3), path=f"checkpoints/checkpoint-{step}")

    def _upload(self, step: int, started: float, ending: bool) -> None:
        """What was staged goes to the store while the training goes on, unless it is the last that it does."""
        assert self.remote is not None
        run_seconds, folder = self.committing.remember(step), self.checkpoints.staging / f"checkpoint-{step}"
        if self.session.attempt.leads:
            self.session.state.write(folder)
        self.session.agreement.barrier()
        self.remote.begin(step, folder, self._expected(), time.monotonic() - started, run_seconds[State.STEP])
        if ending:
            self.remote.saves.settle()
        self.session.progress.touch()

    def _expected(self) -> list[str]:
        world = self.session.attempt.world
        ranks = [f"rng_state_{rank}.pth" for rank in range(world)] if world > 1 else ["rng_state.pth"]
        step = self.state.global_step
        ranks += ["scaler.pt"] if self.args.fp16 else []
        return [*ranks, "trainer_state.json", "scheduler.pt", "lifecycle.json", *self.sharding.expected(step)]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Weights, config and tokenizer; with shards of our own only what is not sharded."""
        folder = Path(output_dir or str(self.args.output_dir))
        if not self.sharding.save(self, folder):
            super().save_model(output_dir, _internal_call)
        elif self.session.attempt.leads:
            model: Any = self.model
            model.config.save_pretrained(folder)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """The optimizer lies beside its weights where shards are our own; the schedule is one for all."""
        if self.sharding.strategy != "fsdp2":
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.session.attempt.leads:
            schedule: Any = self.lr_scheduler
            torch.save(schedule.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The optimizer, by whoever holds it, and the schedule."""
        if checkpoint is None or not self.sharding.load_optimizer(self, Path(checkpoint)):
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            schedule: Any = self.lr_scheduler
            schedule.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Shards are loaded by who holds them; a mixture of experts has files of its own, so that nobody takes it for a
        LoRA; the library knows the others.
        """
        if self.sharding.load_weights(self, Path(resume_from_checkpoint)):
            return
        target = self.accelerator.unwrap_model(self.model if model is None else model)
        if isinstance(target, MoeLoraModel):
            target.load_weights(Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def restore_best(self, best: Best) -> None:
        """Put the best checkpoint's weights into the model. Raises: CheckpointError when a store has lost it."""
        assert best.path is not None
        if self.remote is not None:
            self.restore_weights(self.remote.best(best.step))
        else:
            self.restore_weights(self.session.attempt.output_root / best.path)
        self.weights_of = best.step

    def restore_weights(self, folder: Path) -> None:
        """Put a checkpoint's weights into the model, nothing else."""
        self._load_from_checkpoint(str(folder))

    # --- stop -------------------------------------------------------------------------------------------------------

    def leave(self, code: StopCode) -> None:
        """Note why the loop is left; a lost fence raises."""
        self.session.raise_if_fenced(code)
        if code is StopCode.NON_FINITE:
            self._refuse_step("a process's loss is not finite", self.state.global_step)
        self.session.stopped = code
