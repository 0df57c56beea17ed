"""`evaluation`: what is measured of the finished model, with which prompts, scorers and judge."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tollgate.manifest.sections.section import Section, Sha256


class PromptSets(Section):
    """JSONL files of prompts, relative to the dataset root; docs/how-to/evaluate.md says what stands in each."""

    toxicity: str | None = Field(default=None, description="`prompt` a line: what may draw a toxic reply.")
    crisis: str | None = Field(default=None, description="`prompt`, and `kind`: crisis or harmless.")
    fairness: str | None = Field(default=None, description="`prompt`, `scenario`, `group`: one text for each group.")
    rubric: str | None = Field(default=None, description="`prompt` a line: the replies are judged by the judge.")
    text: str | None = Field(default=None, description="`prompt`, `reference`; default: the held-out conversations.")
    translation: str | None = Field(default=None, description="`prompt`, `reference`, a translation; also gives BLEU.")


class Scorers(Section):
    """What judges replies: a classifier that Tollgate trained (its run's folder), or a JSON file of rules. Relative to
    the dataset root.
    """

    toxicity: str | None = Field(default=None, description="Toxic replies: suites safety and fairness.")
    unsafe: str | None = Field(default=None, description="Replies that are unsafe in a crisis: suite safety.")
    redirect: str | None = Field(default=None, description="Replies that lead to help: suite safety.")
    refusal: str | None = Field(default=None, description="Refused answers: suite fairness.")


class Judge(Section):
    """A local language model that rates replies. Its numbers are advisory until people's labels show that it agrees."""

    path: str = Field(min_length=1, description="The model's folder, relative to the dataset root.")
    digest: Sha256 = Field(description="Of the folder's files, as `tollgate evaluate` names it: the judge is pinned.")
    labels: str | None = Field(
        default=None, description="JSONL of `rubric`, `prompt`, `reply`, `rating` (1 to 5) by people; 100 a rubric."
    )
    rubrics: dict[str, str] | None = Field(
        default=None,
        description="Name and question of each; default: relevance, completeness, clarity, domain_appropriateness.",
    )
    min_agreement: float = Field(
        default=0.4, ge=0, le=1, description="The lower bound that quadratic weighted kappa with the labels must reach."
    )


class Evaluation(Section):
    """Evaluation after training; spec.evaluation beats it."""

    enabled: bool = Field(default=True, description="false: no evaluation, so no evidence and no gate that passes.")
    suites: list[str] | None = Field(
        default=None,
        min_length=1,
        description="standard, safety, fairness, text, translation, rubric, legacy, classification, auroc, span, "
        "joint, or an evaluator's name. Default: the task's own, which is standard for causal-lm.",
    )
    prompt_sets: PromptSets = Field(default_factory=PromptSets)
    task_files: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="JSONL files of `prompt`, `choices`, `answer`, each with its weight in quality_score; default: "
        "questions made from the held-out documents.",
    )
    scorer: Scorers = Field(default_factory=Scorers)
    judge: Judge | None = None
    positive_label: str | None = Field(
        default=None,
        description="Of a classifier with two labels: the one to find. Its threshold and ROC are then frozen, so that "
        "it can be a scorer.",
    )
    max_samples: int | None = Field(
        default=None,
        ge=1,
        description="At most so many prompts, questions or documents a metric; default: the suite's.",
    )
    completions_per_prompt: int = Field(
        default=1, ge=1, le=64, description="Replies to each prompt; more than one needs a temperature."
    )
    max_new_tokens: int = Field(default=64, ge=1, le=8192, description="Of each reply at most.")
    temperature: float = Field(default=0.0, ge=0, le=5, description="0 takes the likeliest token each time.")
    batch_size: int = Field(default=16, ge=1, description="Prompts that are answered at once; it changes the draws.")
    samples: int = Field(
        default=3,
        ge=0,
        le=64,
        description="causal-lm: how many held-out prompts the model answers at each evaluation while it trains, for "
        "people; 0 is none.",
    )
