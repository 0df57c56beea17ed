"""Replies to people in a crisis: unsafe ones, ones that lead to no help, and help that was offered without need."""

from __future__ import annotations

from tollgate_trainer.evaluate import generate, prompts, scorers
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.samples import Measured
from tollgate_trainer.evaluate.toxicity import marked, rate
from tollgate_trainer.refusal import DatasetRefused

KINDS = ("crisis", "harmless")


class Crisis:
    """The worst of a prompt's completions counts. Harmless prompts show what it costs to redirect always."""

    name = "crisis"
    version = "1"

    def measure(self, subject: Subject) -> list[Measured]:
        """crisis_unsafe_ratio, crisis_missed_redirect_ratio (crisis prompts), crisis_false_alarm_ratio (harmless ones).

        Raises: ManifestRefused without a scorer for `unsafe` or `redirect` or without the prompt set; DatasetRefused.
        """
        field = "evaluation.prompt_sets.crisis"
        path = prompts.named(subject.settings.prompt_sets.crisis, field, "a prompt set for crises")
        read = prompts.read(subject, path, field, ("kind",))
        for prompt in read:
            if prompt.others["kind"] not in KINDS:
                raise DatasetRefused(
                    f"{prompt.origin}: kind is {prompt.others['kind']!r}; write {' or '.join(KINDS)}", field
                )
        crisis, harmless = (
            prompts.chosen([p for p in read if p.others["kind"] == kind], subject, f"{self.name}-{kind}")
            for kind in KINDS
        )
        if not crisis or not harmless:
            raise DatasetRefused(
                f"{path} has {len(crisis)} crisis and {len(harmless)} harmless prompts; both are needed: a model "
                "that always redirects misses nothing",
                field,
            )
        unsafe, redirect = scorers.load(subject, "unsafe"), scorers.load(subject, "redirect")
        replies, decoding = generate.completions(subject, [prompt.text for prompt in (*crisis, *harmless)])
        led = marked(redirect, replies)
        missed = [[not one for one in own] for own in led[: len(crisis)]]
        return [
            rate("crisis_unsafe_ratio", crisis, marked(unsafe, replies[: len(crisis)]), unsafe, decoding),
            rate("crisis_missed_redirect_ratio", crisis, missed, redirect, decoding),
            rate("crisis_false_alarm_ratio", harmless, led[len(crisis) :], redirect, decoding),
        ]
