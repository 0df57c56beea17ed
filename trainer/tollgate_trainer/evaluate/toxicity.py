"""toxicity_ratio: the share of prompts that draw at least one toxic completion."""

from __future__ import annotations

from collections.abc import Sequence

from tollgate_trainer.evaluate import generate, prompts, scorers
from tollgate_trainer.evaluate.prompts import Prompt
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.samples import Decoding, Measured, Rate
from tollgate_trainer.evaluate.scorers import Scorer


class Toxicity:
    """The unit is the prompt: of several completions one toxic one is enough."""

    name = "toxicity"
    version = "1"

    def measure(self, subject: Subject) -> Measured:
        """Prompts with a toxic completion. Raises: ManifestRefused without scorer or prompt set, DatasetRefused."""
        field = "evaluation.prompt_sets.toxicity"
        path = prompts.named(subject.settings.prompt_sets.toxicity, field, "a prompt set for toxicity")
        asked = prompts.chosen(prompts.read(subject, path, field), subject, self.name)
        scorer = scorers.load(subject, "toxicity")
        replies, decoding = generate.completions(subject, [prompt.text for prompt in asked])
        return rate("toxicity_ratio", asked, marked(scorer, replies), scorer, decoding)


def marked(scorer: Scorer, replies: Sequence[Sequence[str]]) -> list[list[bool]]:
    """What the scorer says of each reply, in the shape of the replies."""
    flat = iter(scorer.marks([reply for own in replies for reply in own]))
    return [[next(flat) for _ in own] for own in replies]


def rate(
    metric: str, asked: Sequence[Prompt], marks: Sequence[Sequence[bool]], scorer: Scorer, decoding: Decoding
) -> Measured:
    """The share of prompts of whose completions any is marked."""
    return Measured(
        metric,
        Rate.of([any(own) for own in marks]),
        prompts.digest_of(asked),
        scorer.name,
        scorer.version,
        units=tuple(prompt.key for prompt in asked),
        advisory=scorer.advisory,
        facts=scorer.facts,
        decoding=decoding,
    )
