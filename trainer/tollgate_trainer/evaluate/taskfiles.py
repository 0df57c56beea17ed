"""quality_score from task files: questions with choices, one of which is right.

A line of a task file: {"prompt": "...", "choices": ["...", "...", ...], "answer": 0}; `answer` is the place of the
right choice, or its text. A choice scores log p(choice | prompt) - log p(choice | neutral prompt), as in quality.py,
and a tie is no success. Each file's accuracy is corrected for its chance (the mean of 1 / choices), and quality_score
is their weighted mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tollgate.manifest.canonical import digest, serialise
from tollgate_trainer.data.documents import Message
from tollgate_trainer.data.tokens import Sample
from tollgate_trainer.evaluate import generate, prompts
from tollgate_trainer.evaluate.likelihood import log_likelihoods
from tollgate_trainer.evaluate.protocol import Subject, drawn_keys
from tollgate_trainer.evaluate.quality import ANSWER_TOKENS, NEUTRAL, chat_sample, text_sample
from tollgate_trainer.evaluate.samples import Measured, Rate, Weighted
from tollgate_trainer.refusal import DatasetRefused

FIELD = "evaluation.task_files"
NAME, VERSION = "quality_score", "1"


@dataclass(frozen=True, slots=True)
class Item:
    """One question; `right` is the place of the right choice."""

    prompt: str
    choices: tuple[str, ...]
    right: int

    @property
    def key(self) -> str:
        """Hex sha256 of the question and its choices."""
        return digest(serialise([self.prompt, list(self.choices), self.right])).removeprefix("sha256:")


def read(subject: Subject, path: str) -> list[Item]:
    """The questions of a task file. Raises: DatasetRefused naming file, line and what is wrong."""
    items: dict[str, Item] = {}
    for origin, record in prompts.rows(subject.find(path, FIELD), path, FIELD):
        prompt = prompts.text_of(record, "prompt", origin, FIELD)
        choices, answer = record.get("choices"), record.get("answer")
        if (
            not isinstance(choices, list)
            or len(choices) < 2
            or not all(isinstance(choice, str) and choice.strip() for choice in choices)
            or len(set(choices)) < len(choices)
        ):
            raise DatasetRefused(f"{origin}: choices must be two or more different texts, not {choices!r}", FIELD)
        right = choices.index(answer) if answer in choices else answer
        if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(choices):
            raise DatasetRefused(
                f"{origin}: answer is {answer!r}; write one of the choices, or its place from 0 to {len(choices) - 1}",
                FIELD,
            )
        item = Item(prompt, tuple(choices), right)
        if item.key in items:
            raise DatasetRefused(f"{origin} asks what another line asks; remove one of them", FIELD)
        items[item.key] = item
    return list(items.values())


def measure(subject: Subject, files: Mapping[str, float]) -> list[Measured]:
    """quality_score over all files, and for more than one file each by itself as `quality:<file>`.

    Raises: DatasetRefused.
    """
    asked = {path: _chosen(read(subject, path), subject, path) for path in sorted(files)}
    rates = {path: _answered(subject, items) for path, items in asked.items()}
    form = generate.form(subject)
    digests = {path: _digest(items, subject.max_length, form) for path, items in asked.items()}
    weights = [{"file": digests[path], "weight": files[path]} for path in asked]
    found = [
        Measured(
            NAME,
            Weighted(tuple(rates.values()), tuple(files[path] for path in rates)),
            digest(serialise(weights)),
            "task_files",
            VERSION,
            units=tuple(f"{path}:{item.key}" for path, items in asked.items() for item in items),
        )
    ]
    if len(asked) > 1:
        found += [
            Measured(
                f"quality:{PurePosixPath(path).stem}"[:63],
                rate,
                digests[path],
                "task_files",
                VERSION,
                units=tuple(item.key for item in asked[path]),
            )
            for path, rate in rates.items()
        ]
    return found


def _chosen(items: list[Item], subject: Subject, path: str) -> list[Item]:
    kept = set(drawn_keys([item.key for item in items], subject.limit, subject.seed, f"quality_score {path}"))
    return sorted((item for item in items if item.key in kept), key=lambda item: item.key)


def _answered(subject: Subject, items: list[Item]) -> Rate:
    """Which questions' right choices score highest."""
    chat = generate.form(subject) == "chat"
    samples: list[Sample] = []
    for item in items:
        for choice in item.choices:
            samples.append(_sample(item.prompt, choice, chat, subject))
            samples.append(_sample(None, choice, chat, subject))
    scores, _ = log_likelihoods(subject.model, samples, subject.device)
    outcomes, place = [], 0
    for item in items:
        gains = [scores[place + 2 * i] - scores[place + 2 * i + 1] for i in range(len(item.choices))]
        place += 2 * len(item.choices)
        others = [gain for i, gain in enumerate(gains) if i != item.right]
        outcomes.append(bool(gains[item.right] > max(others)))
    chance = sum(1 / len(item.choices) for item in items) / len(items)
    return Rate.of(outcomes, chance)


def _sample(prompt: str | None, choice: str, chat: bool, subject: Subject) -> Sample:
    if chat:
        return chat_sample((Message("user", prompt if prompt is not None else NEUTRAL),), choice, subject)
    return text_sample(prompt + "\n" if prompt is not None else "", choice, subject)


def _digest(items: list[Item], length: int, form: str) -> str:
    return digest(serialise([length, ANSWER_TOKENS, NEUTRAL, form, [item.key for item in items]]))
