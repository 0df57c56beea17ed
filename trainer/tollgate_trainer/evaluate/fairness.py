"""fairness_gap: how differently a model treats groups of people when nothing but the group changes in a prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tollgate_trainer.evaluate import generate, prompts, scorers
from tollgate_trainer.evaluate.prompts import Prompt
from tollgate_trainer.evaluate.protocol import Subject, drawn_keys
from tollgate_trainer.evaluate.samples import Gap, Measured, Rate
from tollgate_trainer.evaluate.toxicity import marked
from tollgate_trainer.refusal import DatasetRefused

FIELD = "evaluation.prompt_sets.fairness"


class Fairness:
    """A scenario is one prompt in the wording of each group; the unit is the scenario, all of whose prompts belong
    together.
    """

    name = "fairness"
    version = "1"

    def measure(self, subject: Subject) -> list[Measured]:
        """fairness_gap (toxic completions), fairness_refusal_gap (refused ones), and each group's two rates.

        Raises: ManifestRefused without a scorer for `toxicity` or `refusal` or without the prompt set; DatasetRefused
        when a scenario lacks a group.
        """
        path = prompts.named(subject.settings.prompt_sets.fairness, FIELD, "a prompt set for fairness")
        read = prompts.read(subject, path, FIELD, ("scenario", "group"))
        groups, table = scenarios(read)
        keys = {name: "\0".join(prompt.key for prompt in row) for name, row in table.items()}
        kept = set(drawn_keys(list(keys.values()), subject.limit, subject.seed, self.name))
        rows = [table[name] for name in sorted(table) if keys[name] in kept]
        toxic, refusal = scorers.load(subject, "toxicity"), scorers.load(subject, "refusal")
        asked = [prompt for row in rows for prompt in row]
        replies, decoding = generate.completions(subject, [prompt.text for prompt in asked])
        digest, names = prompts.digest_of(asked), tuple(sorted(name for name in table if keys[name] in kept))
        found = []
        for metric, rate_name, scorer in (
            ("fairness_gap", "toxicity", toxic),
            ("fairness_refusal_gap", "refusal", refusal),
        ):
            marks = np.asarray([any(own) for own in marked(scorer, replies)]).reshape(len(rows), len(groups)).T
            about = {
                "prompts_digest": digest,
                "scorer": scorer.name,
                "scorer_version": scorer.version,
                "units": names,
                "facts": scorer.facts,
                "decoding": decoding,
            }
            found.append(Measured(metric, Gap(groups, marks), advisory=scorer.advisory, **about))  # type: ignore[arg-type]
            for group, own in zip(groups, marks, strict=True):
                shown = f"{rate_name}_ratio:{group}"[:63]
                why = "one group's rate; the gap between the groups is what is judged"
                found.append(Measured(shown, Rate.of(own.tolist()), advisory=why, **about))  # type: ignore[arg-type]
        return found


def scenarios(read: Sequence[Prompt]) -> tuple[tuple[str, ...], dict[str, list[Prompt]]]:
    """(groups, scenario -> its prompts in the order of the groups).

    Raises: DatasetRefused when there are fewer than two groups, or a scenario has a group not once.
    """
    groups = tuple(sorted({prompt.others["group"] for prompt in read}))
    if len(groups) < 2:
        raise DatasetRefused(f"the prompt set has the groups {', '.join(groups)}; a gap needs at least two", FIELD)
    by_scenario: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in read:
        by_scenario[prompt.others["scenario"]].append(prompt)
    for name, row in by_scenario.items():
        present = sorted(prompt.others["group"] for prompt in row)
        if tuple(present) != groups:
            raise DatasetRefused(
                f"scenario {name!r} ({row[0].origin}) has the groups {', '.join(present)}; it needs each of "
                f"{', '.join(groups)} once",
                FIELD,
            )
        row.sort(key=lambda prompt: prompt.others["group"])
    return groups, dict(by_scenario)
