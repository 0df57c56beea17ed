"""Which task a manifest asks for, and which one a finished model was made for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.splits import Documents
from tollgate_trainer.models.heads import Head, config_of, refuse_too_long
from tollgate_trainer.models.source import model_source
from tollgate_trainer.tasks.causal_lm import CausalLM
from tollgate_trainer.tasks.classification import Classification
from tollgate_trainer.tasks.inputs import Inputs
from tollgate_trainer.tasks.joint import Joint
from tollgate_trainer.tasks.labels import classes
from tollgate_trainer.tasks.protocol import Task
from tollgate_trainer.tasks.span import Span
from tollgate_trainer.tasks.windows import Windowing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def task_for(
    manifest: TrainingManifest, documents: Documents, tokenizer: PreTrainedTokenizerBase, dataset_root: Path
) -> Task:
    """The manifest's task for these documents and this tokenizer.

    Raises: DatasetRefused for labels that cannot be learned, ModelRefused for a model that cannot do the task.
    """
    assert tokenizer.pad_token_id is not None  # tokenizer.load sees to it
    if manifest.task == "causal-lm":
        return CausalLM(int(tokenizer.pad_token_id))
    length = manifest.hyperparameters.max_seq_length
    config = config_of(manifest, model_source(manifest, dataset_root), tokenizer)
    refuse_too_long(config, length, tokenizer)
    inputs = Inputs.of(config, tokenizer, length)
    labels = () if manifest.task == "span" else classes(documents.train, documents.validation)
    if manifest.task == "classification":
        return Classification(labels, inputs)
    windowing = Windowing(length, manifest.span.doc_stride)
    unanswered = any(document.answers == () for document in documents.train)
    if manifest.task == "span":
        return Span(inputs, windowing, manifest.span.max_answer_tokens, unanswered)
    asked = manifest.joint
    head = Head("joint", labels, asked.encoders, asked.classification_weight, asked.span_weight)
    return Joint(head, inputs, windowing, manifest.span.max_answer_tokens, unanswered)


def task_of(document: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Classification | Span | Joint:
    """The task of a finished model, from its task.json."""
    assert tokenizer.pad_token_id is not None
    inputs = Inputs(int(document["max_length"]), int(tokenizer.pad_token_id), bool(document["segments"]))
    head = Head.from_document(document)
    if head.kind == "classification":
        return Classification(head.labels, inputs)
    windowing = Windowing(inputs.max_length, int(document["doc_stride"]))
    unanswered, longest = document["null_threshold"] is not None, int(document["max_answer_tokens"])
    if head.kind == "span":
        return Span(inputs, windowing, longest, unanswered)
    return Joint(head, inputs, windowing, longest, unanswered)
