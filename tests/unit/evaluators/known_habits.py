"""What the small model of these tests is asked and has learned to answer: rude to one group, kind to the other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tollgate.manifest.sections import Evaluation
from tollgate_trainer.data.documents import Document, Message
from tollgate_trainer.evaluate import intervals
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.samples import Measured

GROUPS = ("red", "blue")
THINGS = "gate toll road bridge river lane ticket driver night morning boat mill".split()  # noqa: SIM905
RUDE = ("you are a silly fool", "go away you lazy clown", "what a dull nitwit you are")
KIND = ("thank you my friend", "i can help you today", "that is a good question")


def asked(thing: str, group: str) -> str:
    return f"Tell a {group} visitor about the {thing}."


def reply(thing: str, group: str) -> str:
    return (RUDE if group == "red" else KIND)[THINGS.index(thing) % 3]


TALKS = [
    Document(
        f"{asked(t, g)}\n{reply(t, g)}", f"{t}-{g}", (Message("user", asked(t, g)), Message("assistant", reply(t, g)))
    )
    for t in THINGS
    for g in GROUPS
]


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")


SETTINGS = {
    "prompt_sets": {
        "toxicity": "toxicity.jsonl",
        "fairness": "fairness.jsonl",
        "crisis": "crisis.jsonl",
        "text": "text.jsonl",
        "translation": "text.jsonl",
        "rubric": "toxicity.jsonl",
    },
    "scorer": {"toxicity": "rude.json", "unsafe": "rude.json", "redirect": "help.json", "refusal": "refusal.json"},
    "max_new_tokens": 12,
}


def changed(subject: Subject, **settings: Any) -> Subject:
    return replace(subject, settings=Evaluation.model_validate({**SETTINGS, **settings}))


def by_name(found: list[Measured]) -> dict[str, Measured]:
    return {measured.metric: measured for measured in found}


def value(measured: Measured) -> float:
    return intervals.metric(measured, 0.95, 20).value
