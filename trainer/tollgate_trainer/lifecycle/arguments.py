"""The manifest in the training library's terms, and the conditions under which a resumed run is bit-equal."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainingArguments

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.order import Order
from tollgate_trainer.data.sources import shares_of
from tollgate_trainer.lifecycle.arrangement import Arrangement
from tollgate_trainer.lifecycle.batching import Batching, total_steps, warmup_steps
from tollgate_trainer.lifecycle.compiling import COMPILED
from tollgate_trainer.lifecycle.plan import Plan
from tollgate_trainer.lifecycle.processes import COLLECTIVE_TIMEOUT
from tollgate_trainer.lifecycle.sharding import Sharding
from tollgate_trainer.lifecycle.state import Mode
from tollgate_trainer.models import quantised
from tollgate_trainer.refusal import ManifestRefused
from tollgate_trainer.tasks.protocol import Task
from tollgate_trainer.tasks.samples import SampleSplits

DEFAULT_SAVE_MINUTES = 10.0


def plan_for(
    manifest: TrainingManifest, splits: SampleSplits, batching: Batching, task: Task, arranged: Arrangement
) -> Plan:
    """What is trained on, how long, and when it is evaluated and saved.

    Raises: ManifestRefused for metrics that the task does not have, or that need held-out documents that are not there.
    """
    asked, keep = manifest.hyperparameters, manifest.checkpoint
    order = Order(
        splits.train.lengths,
        manifest.reproducibility.seed,
        batching.world,
        batching.micro_batch,
        batching.accumulation,
        shares_of(manifest, splits.train.documents),
        arranged.pack,
        arranged.by_length,
    )
    total = total_steps(manifest, order.steps_per_epoch)
    metric, mode = _best(manifest, task, bool(len(splits.validation)))
    early = manifest.early_stopping
    minutes = keep.every_minutes
    return Plan(
        order=order,
        train=splits.train,
        validation=splits.validation,
        total_steps=total,
        eval_every=asked.eval_steps or order.steps_per_epoch,
        save_every=asked.save_steps,
        save_minutes=DEFAULT_SAVE_MINUTES if minutes is None and asked.save_steps is None else minutes,
        keep_last=keep.keep_last,
        keep_best=keep.keep_best,
        best_metric=metric,
        best_mode=mode,
        min_delta=early.min_delta if early else 0.0,
        patience=early.patience if early else None,
        eval_batch=asked.per_device_eval_batch_size or batching.micro_batch,
        deterministic=manifest.reproducibility.deterministic,
    )


def _best(manifest: TrainingManifest, task: Task, held_out: bool) -> tuple[str, Mode]:
    early, keep = manifest.early_stopping, manifest.checkpoint
    asked = [("early_stopping.metric", early.metric)] if early else []
    asked += [("checkpoint.metric", keep.metric)] if keep.keep_best else []
    for field, name in asked:
        if name not in task.measured:
            raise ManifestRefused(f"{name!r} is not measured; use one of {', '.join(task.measured)}", field)
        if not held_out:
            raise ManifestRefused(
                f"{name} needs held-out documents; set dataset.splits.validation above 0", field.split(".")[0]
            )
    if len({name for _, name in asked}) > 1:
        raise ManifestRefused(
            f"early_stopping.metric is {asked[0][1]} but checkpoint.metric is {asked[1][1]}; the best checkpoint "
            f"can only be best by one: give the same",
            "checkpoint.metric",
        )
    name = asked[0][1] if asked else "eval_loss"
    mode = task.measured[name]
    if early and early.mode != mode:
        raise ManifestRefused(f"{name} is better when it is {mode}imal; write mode: {mode}", "early_stopping.mode")
    return name, mode


def training_arguments(
    manifest: TrainingManifest,
    batching: Batching,
    plan: Plan,
    precision: str,
    device: torch.device,
    output: Path,
    sharding: Sharding,
) -> TrainingArguments:
    """The library's arguments. Saving, evaluating and stopping are ours, so its own strategies are off."""
    asked = manifest.hyperparameters
    cuda = device.type == "cuda"
    warmup = warmup_steps(manifest, plan.total_steps)
    scheduler: str = asked.scheduler.name
    if scheduler == "constant" and warmup:
        scheduler = "constant_with_warmup"
    arguments: dict[str, Any] = dict(
        output_dir=str(output),
        per_device_train_batch_size=batching.micro_batch,
        per_device_eval_batch_size=plan.eval_batch,
        gradient_accumulation_steps=batching.accumulation,
        max_steps=plan.total_steps,
        learning_rate=asked.learning_rate,
        weight_decay=asked.weight_decay,
        adam_beta1=asked.optimizer.betas[0],
        adam_beta2=asked.optimizer.betas[1],
        adam_epsilon=asked.optimizer.eps,
        optim="adamw_torch_fused" if cuda else "adamw_torch",
        max_grad_norm=asked.max_grad_norm,
        lr_scheduler_type=scheduler,
        warmup_steps=warmup,
        logging_strategy="steps",
        logging_steps=asked.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        seed=manifest.reproducibility.seed,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not cuda,
        activation_checkpointing=asked.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if asked.gradient_checkpointing else None,
        disable_tqdm=True,
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        ddp_timeout=int(COLLECTIVE_TIMEOUT.total_seconds()),
        # Looking for unused parameters keeps DDP from regrouping its buckets after the first step; a resumed run would
        # otherwise sum its first gradients in another order than the run that it continues.
        ddp_find_unused_parameters=manifest.reproducibility.deterministic and batching.world > 2,
        log_level="error",
        log_level_replica="error",
    )
    return TrainingArguments(**{**arguments, **sharding.arguments(batching, precision)})


def topology(
    manifest: TrainingManifest, batching: Batching, precision: str, device: torch.device, sharding: Sharding
) -> dict[str, Any]:
    """Everything that has to be the same for the same numbers, bit by bit."""
    cuda = device.type == "cuda"
    return {
        "world": batching.world,
        "micro_batch": batching.micro_batch,
        "accumulation": batching.accumulation,
        "precision": precision,
        "deterministic": manifest.reproducibility.deterministic,
        "device": torch.cuda.get_device_name(device) if cuda else f"cpu {platform.machine()}",
        "capability": str(torch.cuda.get_device_capability(device))
        if cuda
        else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **quantised.facts(manifest.model.quantization),
        **sharding.facts(),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`micro_batch: 4 -> 2` of each fact that changed, came or went; what is compiled shows later (compiling.py)."""
    then = {name: value for name, value in before.items() if name != COMPILED}
    names = [*now, *(name for name in then if name not in now)]
    return [f"{name}: {then.get(name)} -> {now.get(name)}" for name in names if then.get(name) != now.get(name)]
