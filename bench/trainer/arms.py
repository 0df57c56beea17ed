"""The trainings that are compared, each in a process of its own: Tollgate's, and stock HF Trainer's.

Both are given the turn by a pipe (Baton): a process computes a block of steps and waits until it is its turn again.
Tollgate's is the real `python -m tollgate_trainer train` with that one callback more.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from tollgate.contract import Env
from tollgate.manifest.loader import load_canonical
from tollgate_trainer.data import load_documents
from tollgate_trainer.data.order import PAD_MULTIPLE, Order
from tollgate_trainer.data.splits import tokenise_documents
from tollgate_trainer.lifecycle.loop import TrainingLoop
from tollgate_trainer.main import main as tollgate_main
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.source import Source


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive steps of one process. seconds, losses (exact, hexadecimal) and real tokens (None: not known)."""

    seconds: list[float]
    losses: list[str]
    tokens: list[int] | None


class Baton(TrainerCallback):
    """Computes `steps` steps when told to, tells their times, and waits. A step lasts until the next one begins.

    The first callback of all, so that what the others do counts as part of the step.
    """

    def __init__(self, trainer: Any, wire: Any, steps: int, order: Order | None) -> None:
        self._trainer = trainer
        self._wire = wire
        self._steps = steps
        self._order = order
        self._since = 0.0
        self._seconds: list[float] = []
        self._losses: list[torch.Tensor] = []
        self._started = False
        real = trainer.training_step

        def training_step(*args: Any, **kwargs: Any) -> Any:
            loss = real(*args, **kwargs)
            self._losses.append(loss)
            return loss

        trainer.training_step = training_step
        trainer.callback_handler.callbacks.insert(0, self)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The end of the step before; at a block's end the turn is given away."""
        now = time.perf_counter()
        if self._started:
            self._seconds.append(now - self._since)
            if len(self._seconds) < self._steps:
                self._since = now
                return
            self._wire.send(self._block(state.global_step))
        else:
            self._started = True
            self._wire.send("ready")
        self._wire.recv()
        self._seconds, self._losses = [], []
        self._since = time.perf_counter()

    def _block(self, step: int) -> Block:
        tokens = None
        if self._order is not None:
            until = [self._order.tokens_until(number) for number in range(step - self._steps, step + 1)]
            tokens = [after - before for before, after in pairwise(until)]
        return Block(self._seconds, [float(loss).hex() for loss in self._losses], tokens)


def begin(environ: Mapping[str, str], log: Path) -> None:
    """A process of its own: its variables, and a file for what it prints."""
    os.environ.update(environ)
    torch.set_num_threads(int(environ.get("OMP_NUM_THREADS", "1")))
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def peak_bytes() -> int:
    """The most memory that this process had in use at once (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def tollgate(environ: Mapping[str, str], log: Path, wire: Any, steps: int) -> None:
    """One process of a Tollgate attempt; steps: of a block, 0 without turns. Ends by telling its peak memory."""
    begin(environ, log)
    if steps:
        real = TrainingLoop.train

        def train(self: TrainingLoop, *args: Any, **kwargs: Any) -> Any:
            Baton(self, wire, steps, self.plan.order)
            return real(self, *args, **kwargs)

        loop: Any = TrainingLoop
        loop.train = train
    code = tollgate_main(["train"])
    wire.send(peak_bytes())
    sys.exit(code)


def stock(environ: Mapping[str, str], log: Path, wire: Any, steps: int) -> None:
    """The same training by HF Trainer as it comes; steps: of a block, 0 without turns."""
    begin(environ, log)
    trainer = stock_trainer(environ)
    if steps:
        Baton(trainer, wire, steps, None)
    trainer.train()
    wire.send(peak_bytes())


def stock_trainer(environ: Mapping[str, str]) -> Trainer:
    """HF Trainer with the manifest's model, samples in Tollgate's order, batch, optimiser and schedule.

    Everything else is the library's: its loader, its collator (padding to the same multiple), its checkpoints, its
    callbacks. The key-value cache is off, which it would be wise to do and spares it time.
    """
    path = Path(environ[Env.MANIFEST])
    manifest = load_canonical(path.read_bytes(), environ[Env.MANIFEST_SHA256], str(path)).manifest
    root, output = Path(environ[Env.DATASET_ROOT]), Path(environ[Env.OUTPUT_ROOT])
    asked, world = manifest.hyperparameters, int(environ.get("WORLD_SIZE", "1"))
    assert manifest.model.base is not None
    assert asked.max_steps is not None
    folder = root / manifest.model.base
    tokenizer = tokenizers.load(Source(folder=folder))
    samples = tokenise_documents(load_documents(manifest, root), tokenizer, manifest).train
    seed = manifest.reproducibility.seed
    order = Order(samples.lengths, seed, world, asked.per_device_train_batch_size, asked.gradient_accumulation_steps)
    rows: list[dict[str, list[int]]] = []
    epoch = 0
    while len(rows) < asked.max_steps * order.samples_per_step:
        for number in order.of_epoch(epoch):
            sample = samples[int(number)]
            rows.append({"input_ids": sample.input_ids.tolist(), "labels": sample.labels.tolist()})
        epoch += 1
    make: Any = AutoModelForCausalLM.from_pretrained
    model = make(folder, dtype=torch.float32)
    model.config.use_cache = False
    if torch.distributed.is_available() and world > 1:
        torch.distributed.init_process_group("gloo")
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=asked.max_steps,
        per_device_train_batch_size=asked.per_device_train_batch_size,
        gradient_accumulation_steps=asked.gradient_accumulation_steps,
        learning_rate=asked.learning_rate,
        weight_decay=asked.weight_decay,
        max_grad_norm=asked.max_grad_norm,
        lr_scheduler_type=asked.scheduler.name,
        warmup_steps=asked.warmup_steps or 0,
        adam_beta1=asked.optimizer.betas[0],
        adam_beta2=asked.optimizer.betas[1],
        adam_epsilon=asked.optimizer.eps,
        optim="adamw_torch",
        logging_steps=asked.logging_steps,
        save_strategy="no" if asked.save_steps is None or asked.save_steps > asked.max_steps else "steps",
        save_steps=asked.save_steps or 500,
        save_total_limit=2,
        train_sampling_strategy="sequential",
        seed=seed,
        use_cpu=True,
        disable_tqdm=True,
        report_to=[],
        dataloader_pin_memory=False,
    )
    collate = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=PAD_MULTIPLE, label_pad_token_id=-100)
    return Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate, processing_class=tokenizer)


class Told(TrainerCallback):
    """Appends a line of JSON with the time at each step's end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One more step."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": "step", "step": state.global_step, "at": time.time()}) + "\n")


def timed_saves(trainer: Any, path: Path) -> None:
    """Appends a line of JSON with the seconds for which each save blocks."""
    real: Callable[..., Any] = trainer._save_checkpoint

    def save(*args: Any, **kwargs: Any) -> None:
        begun = time.perf_counter()
        real(*args, **kwargs)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": "save", "seconds": time.perf_counter() - begun}) + "\n")

    trainer._save_checkpoint = save


def main() -> None:
    """`python -m bench.trainer.arms TOLD [resume]`: stock, by the environment, as a process of its own."""
    quiet: Any = transformers.logging
    quiet.set_verbosity_error()
    told = Path(sys.argv[1])
    trainer = stock_trainer(os.environ)
    timed_saves(trainer, told)
    trainer.add_callback(Told(told))
    trainer.train(resume_from_checkpoint=sys.argv[2:] == ["resume"])


if __name__ == "__main__":
    main()
