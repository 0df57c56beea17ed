"""What a plan is made from, gathered: lengths of the documents, sizes of the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.lengths import Lengths, lengths_of
from tollgate.planning.shapes import Shape
from tollgate_trainer.data import Documents
from tollgate_trainer.plan.arranging import Sizes, sizes_of
from tollgate_trainer.plan.shape import config_of, counted
from tollgate_trainer.refusal import Refused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tollgate_trainer.tasks.protocol import Task
    from tollgate_trainer.tasks.samples import SampleSplits

WHOLE = 2**30
"""More tokens than any document has: nothing is cut."""


def whole_sizes(
    documents: Documents, task: Task, tokenizer: PreTrainedTokenizerBase, manifest: TrainingManifest
) -> Sizes:
    """Of the documents before they are cut; of a span task, whose windows overlap, of its windows, and of a class's
    texts as the task cuts them.

    Raises: DatasetRefused.
    """
    if manifest.task == "causal-lm":
        uncut = manifest.hyperparameters.model_copy(update={"max_seq_length": WHOLE})
        splits = task.encode(documents, tokenizer, manifest.model_copy(update={"hyperparameters": uncut}))
    else:
        splits = task.encode(documents, tokenizer, manifest)
    return sizes_of(manifest, splits)


def lengths_in(splits: SampleSplits) -> Lengths:
    """Lengths of the samples as they are trained on."""
    return lengths_of(splits.train.lengths.tolist(), splits.validation.lengths.tolist())


def labels_of(manifest: TrainingManifest, documents: Documents) -> int | None:
    """Outputs of the head where it is not the vocabulary."""
    if manifest.task == "causal-lm":
        return None
    return max(2, len({document.label for document in documents.train if document.label is not None}))


def shape_for(
    manifest: TrainingManifest, dataset_root: Path, tokenizer: PreTrainedTokenizerBase, task: Task
) -> tuple[Shape | None, str | None]:
    """(sizes of the model or None, why they are unknown). Raises: ModelRefused."""
    try:
        shape = counted(config_of(manifest, dataset_root, tokenizer), task.head, manifest.adapter)
    except Refused:
        raise
    except (OSError, ValueError) as error:
        return None, f"the model's config could not be read: {error}"
    return (shape, None) if shape is not None else (None, "the model's config does not say its sizes")
