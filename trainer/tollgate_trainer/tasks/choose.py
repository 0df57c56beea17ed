"""Which task a manifest asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.splits import Documents
from tollgate_trainer.tasks.causal_lm import CausalLM
from tollgate_trainer.tasks.protocol import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def task_for(
    manifest: TrainingManifest, documents: Documents, tokenizer: PreTrainedTokenizerBase, dataset_root: Path
) -> Task:
    """The manifest's task for these documents and this tokenizer."""
    assert tokenizer.pad_token_id is not None  # tokenizer.load sees to it
    return CausalLM(int(tokenizer.pad_token_id))
