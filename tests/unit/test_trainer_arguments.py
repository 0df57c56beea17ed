"""What the training library is told, and what it must not do by itself."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from tollgate.manifest.loader import load_document
from tollgate_trainer.data.order import Order
from tollgate_trainer.lifecycle.arguments import training_arguments
from tollgate_trainer.lifecycle.batching import Batching
from tollgate_trainer.lifecycle.plan import Plan
from tollgate_trainer.lifecycle.sharding import Replicated
from trainer_fixtures import REPOSITORY, manifest


def arguments(output: Path) -> TrainingArguments:
    """As a run of two steps gives them to the library."""
    nothing: Any = ()
    plan = Plan(
        order=Order(np.full(8, 4, dtype=np.int64), 1, 1, 4, 1),
        train=nothing,
        validation=nothing,
        total_steps=2,
        eval_every=2,
        save_every=None,
        save_minutes=None,
        keep_last=1,
        keep_best=0,
        best_metric="eval_loss",
        best_mode="min",
        min_delta=0.0,
        patience=None,
        eval_batch=4,
        deterministic=False,
    )
    asked = load_document(manifest(), "test").manifest
    cpu = torch.device("cpu")
    return training_arguments(asked, Batching(1, 4, 1), plan, "fp32", cpu, output, Replicated("single"))


class Broken(nn.Module):
    """Its loss is never a number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * labels.float().mean() * math.nan).sum()}


def test_the_library_logs_a_loss_that_is_no_number_as_what_it_is_and_not_as_0(tmp_path: Path) -> None:
    """With its default it would show 0.0 from the first NaN on, and the worst model as the best."""
    rows: Any = [{"labels": torch.ones(3)} for _ in range(8)]
    trainer = Trainer(model=Broken(), args=arguments(tmp_path), train_dataset=rows)
    trainer.train()
    told = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(told) == 2
    assert all(math.isnan(loss) for loss in told)


def test_the_library_neither_shrinks_batches_nor_saves_nor_evaluates_by_itself(tmp_path: Path) -> None:
    found = arguments(tmp_path)
    assert found.auto_find_batch_size is False
    assert (found.save_strategy, found.eval_strategy) == ("no", "no")
    assert found.load_best_model_at_end is False


def test_no_code_of_a_hub_is_installed_to_compute_with() -> None:
    assert importlib.util.find_spec("kernels") is None
    locks = sorted((REPOSITORY / "requirements").glob("*.txt"))
    assert locks
    assert not [path.name for path in locks if re.search(r"^kernels==", path.read_text(encoding="utf-8"), re.MULTILINE)]
