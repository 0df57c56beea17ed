"""What can't work together in what a task learns and how: refused when the manifest is read, with the fix."""

from __future__ import annotations

from collections.abc import Iterator

from tollgate.manifest.errors import Problem
from tollgate.manifest.sections import Joint, Span
from tollgate.manifest.training_manifest import TrainingManifest

_FORMATS = {"classification": ("classification", "joint"), "span": ("span", "joint"), "joint": ("joint",)}
_OF_A_LANGUAGE_MODEL = ("standard", "safety", "fairness", "text", "translation", "rubric", "legacy")
_CLASSES = ("classification", "auroc")
_MEASURED = {"classification": _CLASSES, "span": ("span",), "joint": (*_CLASSES, "span", "joint")}


def problems(manifest: TrainingManifest) -> Iterator[Problem]:
    """What the manifest's task can't do with its other fields. `manifest` has its short forms resolved."""
    task = manifest.task
    for name, given, default, fitting in (
        ("span", manifest.span, Span(), ("span", "joint")),
        ("joint", manifest.joint, Joint(), ("joint",)),
    ):
        if given != default and task not in fitting:
            yield Problem(name, None, f"this has effect only with task: {' or '.join(fitting)}", "Remove it.")
    if task != "causal-lm":
        yield from _with_a_head(manifest)
    if task in ("span", "joint") and manifest.span.doc_stride >= manifest.hyperparameters.max_seq_length:
        yield Problem(
            "span.doc_stride",
            manifest.span.doc_stride,
            f"two neighbouring windows of {manifest.hyperparameters.max_seq_length} tokens can't share so many",
            "Write about a quarter of hyperparameters.max_seq_length.",
        )
    if task == "joint" and not manifest.joint.classification_weight + manifest.joint.span_weight:
        yield Problem(
            "joint.span_weight", manifest.joint.span_weight, "both losses weigh 0", "Give one of them a weight."
        )
    yield from _suites(manifest)


def _with_a_head(manifest: TrainingManifest) -> Iterator[Problem]:
    task, format = manifest.task, manifest.dataset.format
    if format not in ("auto", *_FORMATS[task]):
        yield Problem(
            "dataset.format",
            format,
            f"its documents have not what task: {task} learns from",
            f"Write `format: {_FORMATS[task][0]}`, or remove it.",
        )
    if manifest.adapter.type == "moe-lora" and task != "classification":
        yield Problem(
            "adapter.type",
            "moe-lora",
            f"a mixture of LoRA experts was tried with language models and classification, not with task: {task}",
            "Write `type: lora`, or `none`.",
        )
    if manifest.adapter.target_modules and {"score", "classifier", "qa_outputs"} & set(manifest.adapter.target_modules):
        yield Problem(
            "adapter.target_modules",
            manifest.adapter.target_modules,
            "the head is new and is trained whole, without a LoRA",
            "Remove score, classifier and qa_outputs from it.",
        )


def _suites(manifest: TrainingManifest) -> Iterator[Problem]:
    task = manifest.task
    mine = _MEASURED.get(task, ())
    others = {*_OF_A_LANGUAGE_MODEL, *_CLASSES, "span", "joint"} - set(mine)
    if task == "causal-lm":
        others = {*_CLASSES, "span", "joint"}
    if wrong := [name for name in manifest.suites if name in others]:
        known = ", ".join(mine) if mine else "standard, or remove it"
        yield Problem(
            "evaluation.suites",
            list(manifest.suites),
            f"{', '.join(wrong)} can't be measured on a model of task: {task}",
            f"Write {known}.",
        )
