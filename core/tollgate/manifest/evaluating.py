"""What can't work together in the `evaluation` section, with the fix."""

from __future__ import annotations

from tollgate.manifest import paths
from tollgate.manifest.errors import Problem
from tollgate.manifest.sections import Evaluation


def problems(section: Evaluation) -> list[Problem]:
    """Paths that leave their root, and options that contradict each other."""
    found = [problem for field, text in _paths(section).items() if (problem := paths.stray(field, text)) is not None]
    if section.completions_per_prompt > 1 and section.temperature == 0:
        found.append(
            Problem(
                "evaluation.completions_per_prompt",
                section.completions_per_prompt,
                "at temperature 0 every completion of a prompt is the same",
                "Write `temperature: 0.7`, or one completion a prompt.",
            )
        )
    for name, field, needed in (
        ("toxicity", "prompt_sets.toxicity", section.scorer.toxicity),
        ("fairness", "prompt_sets.fairness", section.scorer.toxicity),
    ):
        if getattr(section.prompt_sets, name) is not None and needed is None:
            found.append(
                Problem(
                    f"evaluation.{field}",
                    getattr(section.prompt_sets, name),
                    "nothing can judge the replies to this prompt set",
                    "Name a scorer in evaluation.scorer.toxicity; docs/how-to/evaluate.md says how to train one.",
                )
            )
    return found


def _paths(section: Evaluation) -> dict[str, str]:
    named = {f"evaluation.prompt_sets.{name}": path for name, path in section.prompt_sets.model_dump().items()}
    named |= {f"evaluation.scorer.{name}": path for name, path in section.scorer.model_dump().items()}
    named |= {f"evaluation.task_files.{path}": path for path in section.task_files or {}}
    if section.judge is not None:
        named |= {"evaluation.judge.path": section.judge.path, "evaluation.judge.labels": section.judge.labels}
    return {field: path for field, path in named.items() if path}
