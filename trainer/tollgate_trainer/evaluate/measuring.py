"""From loaded models and asked evaluators to the metrics, scorers and comparisons that evidence states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tollgate.contract import Metric
from tollgate.gates import evidence
from tollgate.manifest.sections import Evaluation
from tollgate_trainer.data.documents import Document
from tollgate_trainer.evaluate import comparing, derived, intervals
from tollgate_trainer.evaluate.comparing import Pairing
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.samples import Decoding, Measured
from tollgate_trainer.evaluate.suites import Task, tasks
from tollgate_trainer.refusal import ManifestRefused

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every model is measured with. held_out: without duplicates; the settings' paths are relative to root."""

    held_out: Sequence[Document]
    max_length: int
    settings: Evaluation
    root: Path
    trained_on: str | None
    anywhere: bool = False
    quotes: bool = True


def asked(names: Sequence[str], settings: Evaluation) -> list[Task]:
    """The evaluators of the suites, each as large as the manifest wants them. Raises: ManifestRefused."""
    found = tasks(names)
    if settings.max_samples is None:
        return found
    return [Task(task.evaluator, replace(task.suite, limit=settings.max_samples)) for task in found]


def measure(
    wanted: Sequence[Task], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, around: Surroundings
) -> list[tuple[Task, Measured]]:
    """What each evaluator gives, in their order; the model moves to the best device.

    Raises: Refused, UnmeasuredError; ManifestRefused when two evaluators measure one metric.
    """
    import torch

    from tollgate_trainer.lifecycle.processes import fit_threads

    fit_threads(sum(parameter.numel() for parameter in model.parameters()))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)  # type: ignore[arg-type]
    found: list[tuple[Task, Measured]] = []
    for task in wanted:
        answer = task.evaluator.measure(
            Subject(
                model=model,
                tokenizer=tokenizer,
                device=device,
                held_out=around.held_out,
                max_length=around.max_length,
                seed=task.suite.seed,
                limit=task.suite.limit,
                settings=around.settings,
                root=around.root,
                trained_on=around.trained_on,
                anywhere=around.anywhere,
                quotes=around.quotes,
            )
        )
        found += [(task, one) for one in ([answer] if isinstance(answer, Measured) else answer)]
    names = [measured.metric for _, measured in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ManifestRefused(f"{', '.join(twice)} is measured by two evaluators; keep one", "evaluation.suites")
    return found


def metrics(
    found: Sequence[tuple[Task, Measured]],
    names: Sequence[str],
    confidence: float,
    pairings: dict[str, Pairing],
) -> list[evidence.Measured]:
    """Values with their bounds, the differences from the baseline, and what is derived from them.

    Raises: UnmeasuredError: a metric that could not be measured fails the evaluation, it is never 0.
    """
    plain: dict[str, Metric] = {}
    stated: list[evidence.Measured] = []
    for task, one in found:
        plain[one.metric] = intervals.metric(one, confidence, task.suite.seed)
        pairing = pairings.get(one.metric)
        stated.append(_stated(plain[one.metric], one, pairing))
        if pairing is not None and pairing.delta is not None:
            stated.append(_stated(pairing.delta, one, None))
    made = derived.standard(plain)
    if "legacy" in names:
        made += derived.legacy([one for _, one in found], plain)
    return [*stated, *(evidence.Measured(**metric.model_dump()) for metric in made)]


def scorers(found: Sequence[tuple[Task, Measured]]) -> list[evidence.Scorer]:
    """Each scorer once, with what is known about it."""
    unique = {(one.scorer, one.scorer_version): one.facts for _, one in found}
    return [
        evidence.Scorer(
            name=name,
            version=version,
            properties=dict(facts.properties),
            digest=facts.digest,
            roc=[evidence.RocPoint(threshold=t, sensitivity=s, false_alarms=f) for t, s, f in facts.roc],
        )
        for (name, version), facts in unique.items()
    ]


def compare(
    ours: Sequence[tuple[Task, Measured]],
    theirs: Sequence[tuple[Task, Measured]],
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    confidence: float,
) -> tuple[dict[str, Pairing], list[str]]:
    """As comparing.paired, for two models that were measured by the same evaluators."""
    seeds = {one.metric: task.suite.seed for task, one in ours}
    same = tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    return comparing.paired([one for _, one in ours], [one for _, one in theirs], confidence, seeds, same)


def _stated(metric: Metric, one: Measured, pairing: Pairing | None) -> evidence.Measured:
    return evidence.Measured(
        **metric.model_dump(),
        scorer=one.scorer,
        prompts=one.prompts_digest,
        decoding=_decoding(one.decoding),
        comparison=evidence.Comparison(value=pairing.value, mcnemar=pairing.mcnemar) if pairing is not None else None,
    )


def _decoding(made: Decoding | None) -> evidence.Decoding | None:
    if made is None:
        return None
    return evidence.Decoding(
        form="chat" if made.form == "chat" else "plain",
        max_new_tokens=made.max_new_tokens,
        temperature=made.temperature,
        completions=made.completions,
        batch=made.batch,
        seed=made.seed,
    )
