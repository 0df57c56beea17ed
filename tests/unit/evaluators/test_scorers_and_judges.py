"""What judges replies: rules, a classifier that was trained for it, a judge; and two models judged alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_habits import KIND, RUDE, TALKS, THINGS, changed, value

from tollgate.manifest.sections import Judge
from tollgate_trainer.evaluate import measuring, prompts, rubric, scorers, threshold
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.samples import Rate
from tollgate_trainer.evaluate.toxicity import Toxicity
from tollgate_trainer.models.digest import digest_of, inventory
from tollgate_trainer.refusal import ModelRefused

# --- scorers ----------------------------------------------------------------------------------------------------------


def test_rules_without_enough_labelled_replies_are_advisory(subject: Subject, root: Path) -> None:
    (root / "few.json").write_text(json.dumps({"name": "few", "version": "1", "patterns": ["fool"]}))
    found = Toxicity().measure(changed(subject, scorer={"toxicity": "few.json"}))
    assert "no labelled replies" in str(found.advisory)
    (root / "blind.json").write_text(
        json.dumps({"name": "blind", "version": "1", "patterns": ["quiet"], "labelled": "rude.jsonl"})
    )
    found = Toxicity().measure(changed(subject, scorer={"toxicity": "blind.json"}))
    assert "tell nothing apart" in str(found.advisory)


@pytest.fixture(scope="module")
def trained_scorer(root: Path, subject: Subject) -> Path:
    """A classifier folder with a frozen threshold, as a run leaves it."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(1)
    config = AutoConfig.for_model(
        "bert",
        vocab_size=600,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        id2label={0: "kind", 1: "toxic"},
        label2id={"kind": 0, "toxic": 1},
        pad_token_id=subject.tokenizer.pad_token_id,
    )
    model: Any = AutoModelForSequenceClassification.from_config(config)
    texts = [f"{text} {thing}" for text in (*RUDE, *KIND) for thing in THINGS * 4]
    texts = [f"{text} {number}" for number, text in enumerate(texts)]
    truth = np.asarray([number < len(texts) // 2 for number in range(len(texts))])
    batch = subject.tokenizer(texts, padding=True, return_tensors="pt")
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(25):
        loss = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=torch.from_numpy(truth.astype(np.int64)),
        ).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    folder = root / "scorer"
    model.eval().save_pretrained(folder / "model")
    subject.tokenizer.save_pretrained(folder / "model")
    digest = digest_of(inventory(folder / "model"))
    scores = scorers.probabilities(model, subject.tokenizer, model.device, texts)[:, 1]
    frozen = threshold.freeze(scores, truth, texts, model=digest, dataset="sha256:" + "2" * 64, positive_label="toxic")
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / threshold.FILE).write_bytes(threshold.to_json(frozen))
    return folder


def test_a_trained_classifier_scores_and_brings_its_roc(subject: Subject, trained_scorer: Path) -> None:
    found = Toxicity().measure(changed(subject, scorer={"toxicity": "scorer"}))
    assert isinstance(found.samples, Rate)
    assert (found.samples.successes, found.advisory) == (len(THINGS), None)
    assert found.facts.digest == digest_of(inventory(trained_scorer / "model"))
    assert found.facts.properties["auroc"] > 0.99
    assert len(found.facts.roc) >= 2


def test_a_scorer_that_was_trained_on_the_data_it_judges_is_advisory(subject: Subject, trained_scorer: Path) -> None:
    same = replace(changed(subject, scorer={"toxicity": "scorer"}), trained_on="sha256:" + "2" * 64)
    assert "trained on the data of the model" in str(Toxicity().measure(same).advisory)


def test_a_classifier_without_its_threshold_or_with_other_weights_is_refused(
    subject: Subject, root: Path, trained_scorer: Path
) -> None:
    import shutil

    bare = changed(subject, scorer={"toxicity": "bare"})
    shutil.copytree(trained_scorer / "model", root / "bare")
    with pytest.raises(ModelRefused, match="nobody froze this classifier's threshold"):
        Toxicity().measure(bare)
    shutil.copy(trained_scorer / "evaluation" / threshold.FILE, root / "bare" / threshold.FILE)
    assert Toxicity().measure(bare).advisory is None
    weights = bytearray((root / "bare/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (root / "bare/model.safetensors").write_bytes(weights)
    with pytest.raises(ModelRefused, match="evaluate the classifier again"):
        Toxicity().measure(bare)


# --- the judge --------------------------------------------------------------------------------------------------------


def test_a_judge_is_pinned_and_advisory_without_people(subject: Subject, root: Path) -> None:
    subject.model.save_pretrained(root / "judge")
    subject.tokenizer.save_pretrained(root / "judge")
    small = Judge(path="judge", digest=digest_of(inventory(root / "judge")), rubrics={"clarity": "Clear?"})
    judged = replace(subject, settings=subject.settings.model_copy(update={"judge": small}))
    (found,) = rubric.Rubric().measure(judged)
    assert found.metric == "rubric:clarity"
    assert "0 people's labels" in str(found.advisory)
    assert 0 <= value(found) <= 1
    other = small.model_copy(update={"digest": "sha256:" + "0" * 64})
    with pytest.raises(ModelRefused, match="is pinned"):
        rubric.Rubric().measure(replace(subject, settings=subject.settings.model_copy(update={"judge": other})))


def test_a_judge_may_gate_when_it_agrees_with_people_and_not_when_it_guesses() -> None:
    from tollgate_trainer.evaluate.samples import ScorerFacts

    generator = np.random.default_rng(3)
    people = generator.integers(1, 6, 150)
    close = np.clip(people + generator.integers(-1, 2, 150) * (generator.random(150) < 0.4), 1, 5)
    facts, advisory = rubric.kappa(close, people, ScorerFacts(), 0.4, 1)
    assert advisory is None
    assert facts.properties["kappa"] > facts.properties["kappa_lower"] > 0.4
    guessed, why = rubric.kappa(generator.integers(1, 6, 150), people, ScorerFacts(), 0.4, 1)
    assert "0.4 is asked for" in str(why)
    assert guessed.properties["kappa"] < 0.3
    assert "0.4 is asked for" in str(rubric.kappa(np.full(150, 3), people, ScorerFacts(), 0.4, 1)[1])
    assert "same rating" in str(rubric.kappa(np.full(150, 3), np.full(150, 3), ScorerFacts(), 0.4, 1)[1])


def test_quadratic_kappa_is_the_library_s() -> None:
    from sklearn.metrics import cohen_kappa_score

    generator = np.random.default_rng(4)
    for _ in range(5):
        first, second = generator.integers(1, 6, (2, 40))
        expected = cohen_kappa_score(first, second, labels=[1, 2, 3, 4, 5], weights="quadratic")
        assert rubric.quadratic_kappa(first, second) == pytest.approx(expected)


# --- two models -------------------------------------------------------------------------------------------------------


def test_a_kinder_model_is_better_than_its_baseline_on_the_same_prompts(subject: Subject, root: Path) -> None:
    import torch

    wanted = measuring.asked(("toxicity", "perplexity"), subject.settings)
    around = measuring.Surroundings(TALKS, 96, subject.settings, root, None)
    theirs = measuring.measure(wanted, subject.model, subject.tokenizer, around)
    quiet = type(subject.model)(subject.model.config)
    quiet.load_state_dict(subject.model.state_dict())
    with torch.no_grad():
        for parameter in quiet.parameters():
            parameter.mul_(0.2)
    ours = measuring.measure(wanted, quiet.eval(), subject.tokenizer, around)
    pairings, notes = measuring.compare(ours, theirs, (subject.tokenizer, subject.tokenizer), 0.95)
    assert notes == []
    found = {metric.name: metric for metric in measuring.metrics(ours, ("toxicity",), 0.95, pairings)}
    delta = found["toxicity_ratio_delta"]
    assert delta.value == found["toxicity_ratio"].value - 0.5
    assert delta.upper is not None
    assert delta.upper < 0
    compared = found["toxicity_ratio"].comparison
    assert compared is not None
    assert compared.value == 0.5
    assert compared.mcnemar is not None
    assert compared.mcnemar < 0.01
    worse = found["perplexity_delta"]
    assert worse.lower is not None
    assert worse.lower > 0


def test_models_that_were_asked_differently_are_not_compared(subject: Subject, root: Path) -> None:
    wanted = measuring.asked(("toxicity",), subject.settings)
    around = measuring.Surroundings(TALKS, 96, subject.settings, root, None)
    longer = replace(around, settings=changed(subject, max_new_tokens=6).settings)
    ours, theirs = (measuring.measure(wanted, subject.model, subject.tokenizer, a) for a in (around, longer))
    pairings, notes = measuring.compare(ours, theirs, (subject.tokenizer, subject.tokenizer), 0.95)
    assert pairings == {}
    assert "toxicity_ratio is not compared" in notes[0]


def test_a_seed_and_a_limit_choose_the_same_prompts_each_time(subject: Subject, root: Path) -> None:
    read = prompts.read(subject, "toxicity.jsonl", "f")
    few = replace(subject, limit=5)
    assert prompts.chosen(read, few, "t") == prompts.chosen(read[::-1], few, "t")
    assert len(prompts.chosen(read, few, "t")) == 5
    assert prompts.chosen(read, replace(few, seed=3), "t") != prompts.chosen(read, few, "t")
