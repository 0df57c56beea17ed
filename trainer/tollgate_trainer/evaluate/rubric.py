"""rubric:<name>: a local language model rates replies from 1 to 5; advisory until people's labels show it can.

The judge is pinned by the digest of its folder. Its rating is the mean of 1 to 5 under the likelihoods it gives these
answers, written 0 to 1 as (rating - 1) / 4. On the labels file its likeliest rating is compared with people's by
quadratic weighted kappa (Cohen 1968); a metric may gate with at least 100 labels of its rubric and a lower bound of
kappa that reaches min_agreement. The judge's errors are not in the metric's interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tollgate.manifest.canonical import digest, serialise
from tollgate.manifest.sections import Judge
from tollgate_trainer.data.documents import Message
from tollgate_trainer.data.tokens import Sample
from tollgate_trainer.evaluate import generate, intervals, prompts
from tollgate_trainer.evaluate.likelihood import log_likelihoods
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.quality import chat_sample
from tollgate_trainer.evaluate.samples import Indices, Mean, Measured, ScorerFacts, Statistic
from tollgate_trainer.models.digest import digest_of, inventory
from tollgate_trainer.refusal import DatasetRefused, ManifestRefused, ModelRefused

RUBRICS = {
    "relevance": "Does the reply address what was asked, and nothing else?",
    "completeness": "Does the reply cover everything that was asked?",
    "clarity": "Can the person who asked understand the reply easily?",
    "domain_appropriateness": "Does the reply fit the field of the question in content, terms and tone?",
}
LEAST_LABELS = 100
_RATINGS = (1, 2, 3, 4, 5)
_FIELD = "evaluation.judge"


class Rubric:
    """One metric for each rubric, on the same replies; the unit is the prompt."""

    name = "rubric"
    version = "1"

    def measure(self, subject: Subject) -> list[Measured]:
        """Raises: ManifestRefused without judge or prompt set; ModelRefused for another judge; DatasetRefused."""
        judge = subject.settings.judge
        if judge is None:
            raise ManifestRefused("a judge is not given, so no rubric can be rated; name one", _FIELD)
        field = "evaluation.prompt_sets.rubric"
        path = prompts.named(subject.settings.prompt_sets.rubric, field, "a prompt set for rubrics")
        asked = prompts.chosen(prompts.read(subject, path, field), subject, self.name)
        model = load(subject, judge)
        replies, decoding = generate.completions(subject, [prompt.text for prompt in asked])
        flat = [(str(p.text), reply) for p, own in zip(asked, replies, strict=True) for reply in own]
        clusters = [number for number, own in enumerate(replies) for _ in own]
        labels = _labels(subject, judge)
        found = []
        for name, question in (judge.rubrics or RUBRICS).items():
            likelihoods = rated(model, question, flat)
            values = (likelihoods @ np.asarray(_RATINGS) - 1) / 4
            facts, advisory = agreement(model, name, question, labels.get(name, []), judge)
            found.append(
                Measured(
                    f"rubric:{name}"[:63],
                    Mean.clustered(clusters, list(values)),
                    prompts.digest_of(asked),
                    f"judge:{name}",
                    digest(serialise([self.version, question])).removeprefix("sha256:")[:12],
                    units=tuple(prompt.key for prompt in asked),
                    advisory=advisory,
                    facts=facts,
                    decoding=decoding,
                )
            )
        return found


@dataclass(frozen=True, slots=True)
class Label:
    """A person's rating of a reply."""

    prompt: str
    reply: str
    rating: int


def load(subject: Subject, judge: Judge) -> Subject:
    """The judge as a subject of its own. Raises: ModelRefused when it is not there or not the pinned one."""
    import torch
    from transformers import AutoModelForCausalLM

    from tollgate_trainer.models import tokenizer as tokenizers
    from tollgate_trainer.models.source import Source

    folder = subject.find(judge.path, f"{_FIELD}.path")
    if not (folder / "config.json").is_file():
        raise ModelRefused(f"{judge.path} below {subject.root} holds no saved model", f"{_FIELD}.path")
    found = digest_of_judge(folder)
    if found.removeprefix("sha256:") != judge.digest.removeprefix("sha256:"):
        raise ModelRefused(f"the judge in {judge.path} has {found}, {judge.digest} is pinned", f"{_FIELD}.digest")
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    model.eval().to(subject.device)
    places = getattr(model.config, "max_position_embeddings", None) or 4096
    return Subject(model, tokenizers.load(Source(folder=folder)), subject.device, (), places, subject.seed, 1)


def question_of(prompt: str, reply: str, question: str) -> str:
    """What the judge is asked, as a user's turn; a judge of one's own is trained on the same words."""
    return (
        f"Question: {prompt}\n\nReply: {reply}\n\n{question} Rate the reply from 1 (not at all) to 5 (entirely). "
        "Answer with the number alone."
    )


def digest_of_judge(folder: Path) -> str:
    """`sha256:<hex>` that pins a judge: of all files of its folder. Raises: OSError."""
    return digest_of(inventory(folder))


def rated(judge: Subject, question: str, replies: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
    """The judge's probability of each rating, shape [replies, 5]."""
    samples: list[Sample] = []
    for prompt, reply in replies:
        asked = Message("user", question_of(prompt, reply, question))
        samples += [chat_sample((asked,), str(rating), judge) for rating in _RATINGS]
    sums, _ = log_likelihoods(judge.model, samples, judge.device)
    scores = sums.reshape(len(replies), len(_RATINGS))
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def agreement(
    model: Subject, rubric: str, question: str, labels: Sequence[Label], judge: Judge
) -> tuple[ScorerFacts, str | None]:
    """(what is known about the judge on this rubric, why no gate may rest on it)."""
    facts = ScorerFacts({"labels": float(len(labels))}, f"sha256:{judge.digest.removeprefix('sha256:')}")
    if len(labels) < LEAST_LABELS:
        return (
            facts,
            f"the judge was compared with {len(labels)} people's labels of {rubric}; {LEAST_LABELS} are needed",
        )
    said = rated(model, question, [(label.prompt, label.reply) for label in labels]).argmax(axis=1) + 1
    return kappa(said, np.asarray([label.rating for label in labels]), facts, judge.min_agreement, model.seed)


def kappa(
    said: Indices, people: Indices, facts: ScorerFacts, least: float, seed: int
) -> tuple[ScorerFacts, str | None]:
    """The facts with quadratic weighted kappa of two sets of ratings, and why it is not enough."""

    def compute(chosen: Indices) -> float:
        return quadratic_kappa(said[chosen], people[chosen])

    found = intervals.statistic(Statistic(len(said), compute), 0.95, seed, resamples=1000)
    if not np.isfinite(found.value) or found.lower is None:
        return facts, "the judge gives every reply the same rating, so its agreement with people is unknown"
    known = ScorerFacts({**facts.properties, "kappa": found.value, "kappa_lower": found.lower}, facts.digest)
    if found.lower < least:
        return known, f"the judge's agreement with people is {found.lower:.3f} at least, {least:g} is asked for"
    return known, None


def quadratic_kappa(first: Indices, second: Indices) -> float:
    """Cohen's kappa with quadratic weights; NaN when all ratings of both are one and the same.

    1 - (mean squared difference) / (what it would be if the two had nothing to do with each other), which is the
    weighted sum over the table of ratings written without the table.
    """
    expected = float(first.var() + second.var() + (first.mean() - second.mean()) ** 2)
    return 1 - float(((first - second) ** 2).mean()) / expected if expected else float("nan")


def _labels(subject: Subject, judge: Judge) -> dict[str, list[Label]]:
    found: dict[str, list[Label]] = {}
    if judge.labels is None:
        return found
    field = f"{_FIELD}.labels"
    for origin, record in prompts.rows(subject.find(judge.labels, field), judge.labels, field):
        name, prompt, reply = (prompts.text_of(record, key, origin, field) for key in ("rubric", "prompt", "reply"))
        rating = record.get("rating")
        if isinstance(rating, bool) or rating not in _RATINGS:
            raise DatasetRefused(f"{origin}: rating is {rating!r}; write a whole number from 1 to 5", field)
        found.setdefault(name, []).append(Label(prompt, reply, int(rating)))
    return found
