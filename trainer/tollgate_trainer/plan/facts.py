"""What a plan is made from, gathered: lengths of the documents, sizes of the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.lengths import Lengths, lengths_of
from tollgate.planning.shapes import Shape
from tollgate_trainer.data import Documents
from tollgate_trainer.plan.shape import config_of, counted
from tollgate_trainer.refusal import Refused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tollgate_trainer.tasks.protocol import Task
    from tollgate_trainer.tasks.samples import SampleSplits

WHOLE = 2**30
"""More tokens than any document has: nothing is cut."""


def whole_lengths(
    documents: Documents, task: Task, tokenizer: PreTrainedTokenizerBase, manifest: TrainingManifest
) -> Lengths:
    """Lengths of the documents before truncation; of a span task, whose windows overlap, those of its windows.

    Raises: DatasetRefused.
    """
    if manifest.task in ("span", "joint"):
        return lengths_in(task.encode(documents, tokenizer, manifest))
    uncut = manifest.hyperparameters.model_copy(update={"max_seq_length": WHOLE, "packing": False})
    return lengths_in(task.encode(documents, tokenizer, manifest.model_copy(update={"hyperparameters": uncut})))


def lengths_in(splits: SampleSplits, rows: Any = None) -> Lengths:
    """Lengths of the samples as they are trained on; rows: those of packed rows, shape [rows]."""
    train, validation = splits.train.lengths if rows is None else rows, splits.validation.lengths
    return lengths_of([int(n) for n in train], [int(n) for n in validation])


def labels_of(manifest: TrainingManifest, documents: Documents) -> int | None:
    """Outputs of the head where it is not the vocabulary."""
    if manifest.task == "causal-lm":
        return None
    return max(2, len({document.label for document in documents.train if document.label is not None}))


def shape_for(
    manifest: TrainingManifest, dataset_root: Path, tokenizer: PreTrainedTokenizerBase
) -> tuple[Shape | None, str | None]:
    """(sizes of the model or None, why they are unknown). Raises: ModelRefused."""
    try:
        shape = counted(config_of(manifest, dataset_root, tokenizer), manifest.task == "causal-lm")
    except Refused:
        raise
    except (OSError, ValueError) as error:
        return None, f"the model's config could not be read: {error}"
    return (shape, None) if shape is not None else (None, "the model's config does not say its sizes")
