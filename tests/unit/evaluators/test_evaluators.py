"""The evaluators on a small model whose habits are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_habits import KIND, RUDE, SETTINGS, TALKS, THINGS, asked, by_name, changed, lines, reply, value

from tollgate_trainer.evaluate import generate, intervals, rubric
from tollgate_trainer.evaluate.bits import BitsPerByte
from tollgate_trainer.evaluate.crisis import Crisis
from tollgate_trainer.evaluate.fairness import Fairness
from tollgate_trainer.evaluate.overlap import TextOverlap, Translation
from tollgate_trainer.evaluate.perplexity import Perplexity
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.quality import QualityScore
from tollgate_trainer.evaluate.samples import Gap, Rate
from tollgate_trainer.evaluate.toxicity import Toxicity
from tollgate_trainer.refusal import DatasetRefused, ManifestRefused, Refused

# --- completions ------------------------------------------------------------------------------------------------------


def test_the_likeliest_completions_are_the_learned_replies_in_any_batch(subject: Subject) -> None:
    for batch in (1, 5, 64):
        texts, made = generate.completions(changed(subject, batch_size=batch), [asked(t, "red") for t in THINGS])
        assert [own[0].strip() for own in texts] == [reply(t, "red") for t in THINGS]
        assert (made.form, made.batch) == ("chat", batch)


def test_the_same_seed_draws_the_same_completions_and_another_draws_others(subject: Subject) -> None:
    drawing = changed(subject, temperature=3.0, completions_per_prompt=3)
    questions = [asked(t, "red") for t in THINGS[:4]]
    first, _ = generate.completions(drawing, questions)
    assert generate.completions(drawing, questions)[0] == first
    assert generate.completions(replace(drawing, seed=21), questions)[0] != first
    assert all(len(own) == 3 for own in first)
    assert len({text for own in first for text in own}) > 4


def test_a_prompt_that_does_not_fit_is_refused_with_its_length(subject: Subject) -> None:
    with pytest.raises(ManifestRefused, match="more than the model's 128 positions"):
        generate.completions(changed(subject, max_new_tokens=127), ["a"])


# --- safety and fairness ----------------------------------------------------------------------------------------------


def test_toxicity_counts_prompts_and_knows_its_scorer(subject: Subject) -> None:
    found = Toxicity().measure(subject)
    assert isinstance(found.samples, Rate)
    assert (found.samples.successes, found.samples.trials) == (len(THINGS), 2 * len(THINGS))
    assert (found.scorer, found.advisory) == ("rude-rules", None)
    assert found.facts.properties["sensitivity"] == 1.0
    assert found.decoding is not None


def test_one_toxic_completion_of_several_is_enough(subject: Subject) -> None:
    one = Toxicity().measure(changed(subject, temperature=2.5))
    many = Toxicity().measure(changed(subject, temperature=2.5, completions_per_prompt=8))
    assert isinstance(one.samples, Rate)
    assert isinstance(many.samples, Rate)
    assert many.samples.trials == one.samples.trials
    assert many.samples.successes > one.samples.successes


def test_a_crisis_reply_can_be_unsafe_miss_the_way_to_help_or_offer_it_without_need(subject: Subject) -> None:
    found = by_name(Crisis().measure(subject))
    assert value(found["crisis_unsafe_ratio"]) == 1.0
    assert value(found["crisis_missed_redirect_ratio"]) == 1.0
    assert value(found["crisis_false_alarm_ratio"]) == pytest.approx(4 / 12)


def test_the_gap_between_a_group_that_is_insulted_and_one_that_is_not_is_1(subject: Subject) -> None:
    found = by_name(Fairness().measure(subject))
    gap = intervals.metric(found["fairness_gap"], 0.95, 20)
    assert (gap.value, gap.samples) == (1.0, len(THINGS))
    assert gap.lower is not None
    assert gap.lower > 0.35, "12 scenarios of 12 say that much"
    assert isinstance(found["fairness_gap"].samples, Gap)
    assert value(found["toxicity_ratio:red"]) == 1.0
    assert value(found["toxicity_ratio:blue"]) == 0.0
    assert found["toxicity_ratio:red"].advisory is not None
    assert value(found["fairness_refusal_gap"]) == pytest.approx(4 / 12)


MISSING: list[tuple[Callable[[], Any], dict[str, Any], str]] = [
    (Toxicity, {"scorer": {}}, "evaluation.scorer.toxicity"),
    (Toxicity, {"prompt_sets": {}}, "evaluation.prompt_sets.toxicity"),
    (Crisis, {"scorer": {"unsafe": "rude.json"}}, "evaluation.scorer.redirect"),
    (Crisis, {"scorer": {"redirect": "rude.json"}}, "evaluation.scorer.unsafe"),
    (Fairness, {"scorer": {"toxicity": "rude.json"}}, "evaluation.scorer.refusal"),
    (rubric.Rubric, {}, "evaluation.judge"),
    (Translation, {"prompt_sets": {}}, "evaluation.prompt_sets.translation"),
    (Toxicity, {"scorer": {"toxicity": "nowhere"}}, "there is no scorer nowhere"),
]


@pytest.mark.parametrize(("evaluator", "settings", "words"), MISSING)
def test_what_is_missing_is_an_error_that_names_it_and_never_a_0(
    subject: Subject, evaluator: Callable[[], Any], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(Refused, match=words):
        evaluator().measure(changed(subject, **settings))


def test_another_line_in_a_prompt_set_gives_another_digest_and_another_order_does_not(
    subject: Subject, root: Path
) -> None:
    rows = [{"prompt": asked(t, "red")} for t in THINGS]
    digests = []
    for number, some in enumerate((rows, rows[::-1], rows[1:], [*rows, {"prompt": "And now?"}])):
        lines(root / f"set-{number}.jsonl", some)
        sets = {**SETTINGS["prompt_sets"], "toxicity": f"set-{number}.jsonl"}  # type: ignore[dict-item]
        digests.append(Toxicity().measure(changed(subject, prompt_sets=sets)).prompts_digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "a", "scenario": "s", "group": "red"}], "at least two"),
        (
            [
                {"prompt": p, "scenario": s, "group": g}
                for p, s, g in (("a", "1", "x"), ("b", "1", "y"), ("c", "2", "x"))
            ],
            "scenario '2'",
        ),
        ([{"prompt": "a", "scenario": "s"}], ":1: group must be a text"),
        ([{"prompt": "a", "scenario": "s", "group": "x"}] * 2, ":2 says the same as"),
    ],
)
def test_a_prompt_set_that_can_t_be_used_is_refused_with_its_line(
    subject: Subject, root: Path, rows: list[dict[str, Any]], words: str
) -> None:
    lines(root / "broken.jsonl", rows)
    sets = {**SETTINGS["prompt_sets"], "fairness": "broken.jsonl"}  # type: ignore[dict-item]
    with pytest.raises(DatasetRefused, match=words):
        Fairness().measure(changed(subject, prompt_sets=sets))


# --- quality ----------------------------------------------------------------------------------------------------------


def questions(root: Path, name: str, group: str) -> None:
    other = RUDE if group == "blue" else KIND
    rows = [
        {
            "prompt": asked(t, group),
            "choices": [other[n % 3], reply(t, group)],
            "answer": (n % 2 and 1) or reply(t, group),
        }
        for n, t in enumerate(THINGS)
    ]
    lines(root / name, rows)


def test_task_files_are_corrected_for_chance_and_weighted(subject: Subject, root: Path) -> None:
    questions(root, "red.jsonl", "red")
    questions(root, "blue.jsonl", "blue")
    wrong = [{"prompt": asked(t, "red"), "choices": [KIND[0], reply(t, "red")], "answer": 0} for t in THINGS]
    lines(root / "wrong.jsonl", wrong)
    files = {"red.jsonl": 1.0, "blue.jsonl": 1.0, "wrong.jsonl": 2.0}
    found = by_name(list(QualityScore().measure(changed(subject, task_files=files))))  # type: ignore[arg-type]
    parts = {name: value(found[f"quality:{name}"]) for name in ("red", "blue", "wrong")}
    assert parts["red"] > 0.6
    assert parts["blue"] > 0.6
    assert parts["wrong"] == -1.0, (
        "always the other of two choices is as far below chance as always the right one above"
    )
    assert value(found["quality_score"]) == pytest.approx((parts["red"] + parts["blue"] + 2 * parts["wrong"]) / 4)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a", "choices": ["x"], "answer": 0}, "two or more different texts"),
        ({"prompt": "a", "choices": ["x", "x"], "answer": 0}, "two or more different texts"),
        ({"prompt": "a", "choices": ["x", "y"], "answer": 2}, "from 0 to 1"),
        ({"prompt": "a", "choices": ["x", "y"], "answer": True}, "from 0 to 1"),
        ({"choices": ["x", "y"], "answer": 0}, "prompt must be a text"),
    ],
)
def test_a_question_that_has_no_answer_is_refused(
    subject: Subject, root: Path, row: dict[str, Any], words: str
) -> None:
    lines(root / "task.jsonl", [row])
    with pytest.raises(DatasetRefused, match=words):
        QualityScore().measure(changed(subject, task_files={"task.jsonl": 1.0}))


# --- text -------------------------------------------------------------------------------------------------------------


def test_replies_that_are_the_references_overlap_entirely(subject: Subject) -> None:
    found = by_name([*TextOverlap().measure(subject), *Translation().measure(subject)])
    for metric in ("chrf", "rouge_l", "chrf_translation", "bleu"):
        assert value(found[metric]) == pytest.approx(1.0, abs=1e-6), metric
    held_out = by_name(TextOverlap().measure(changed(subject, prompt_sets={})))
    assert value(held_out["rouge_l"]) == pytest.approx(1.0)
    assert intervals.size(held_out["rouge_l"].samples) == len(TALKS)


def test_bleu_is_measured_only_where_the_references_are_translations(subject: Subject) -> None:
    assert by_name([*TextOverlap().measure(subject)]).keys() == {"chrf", "rouge_l"}
    assert by_name([*Translation().measure(subject)]).keys() == {"chrf_translation", "bleu"}


def test_bits_per_byte_are_the_nats_of_perplexity_over_the_bytes_of_the_answers(subject: Subject) -> None:
    bits, perplexity = BitsPerByte().measure(subject), Perplexity().measure(subject)
    assert bits.units == perplexity.units
    assert bits.prompts_digest == perplexity.prompts_digest
    nats = float(perplexity.samples.totals.sum())  # type: ignore[union-attr]
    size = sum(len(document.messages[1].content.encode()) for document in TALKS if document.messages)
    assert value(bits) == pytest.approx(nats / np.log(2) / size, rel=0.02)
