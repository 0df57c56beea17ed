"""A judge that was really trained: it rates a model's replies in an evaluation, and may gate where people agree."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from evaluation_fixtures import PLACES, STYLES, TOPICS, Trained, conversation, train
from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.contract import Env, EvaluationSummary, Files
from tollgate.gates import evidence, verdict
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.documents import Document, Message
from tollgate_trainer.evaluate import SETTINGS, rubric, run

QUESTION = "Does it name amber or birch early?"
POLICY = PromotionPolicySpec.model_validate(
    {"stages": [{"name": "staging", "checks": [{"metric": "rubric:order", "op": ">=", "threshold": 0.05}]}]}
)


def rating(reply: str) -> int:
    """What people say: 1 to 5 by the first topic that is named, in the order of the alphabet."""
    said = reply.replace(".", " ").replace(",", " ").split()
    first: str = next((topic for topic in said if topic in TOPICS), TOPICS[-1])
    return 5 - TOPICS.index(first) * 5 // len(TOPICS)


def asked(number: int) -> tuple[str, str]:
    chance = random.Random(number)
    turns = conversation(chance.choice(TOPICS), chance.choice(STYLES), chance.choice(PLACES))["messages"]
    return turns[0]["content"], turns[1]["content"]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run with a trained judge, prompts and people's labels beside its data."""
    import torch

    from tollgate_trainer.data.tokens import encode
    from tollgate_trainer.models import tokenizer as tokenizers
    from tollgate_trainer.models.build import build

    made = train(tmp_path_factory.mktemp("judged"), 60)
    data = made.root / "data"
    texts = [asked(number) for number in range(600)]
    documents = [
        Document(
            f"{rubric.question_of(prompt, reply, QUESTION)} {rating(reply)}",
            str(number),
            (Message("user", rubric.question_of(prompt, reply, QUESTION)), Message("assistant", str(rating(reply)))),
        )
        for number, (prompt, reply) in enumerate(texts)
    ]
    words = tokenizers.from_json(tokenizers.train(documents, 1024))
    config = {"model_type": "llama", "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 192}
    manifest = TrainingManifest.model_validate({"name": "j", "dataset": {"path": "d"}, "model": {"config": config}})
    torch.manual_seed(1)
    model: Any = build(manifest, data, words, torch.device("cpu")).model
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    samples = [encode(document, words) for document in documents]
    pad = torch.nn.utils.rnn.pad_sequence
    for step in range(120):
        batch = [samples[(step * 16 + i) * 331 % len(samples)] for i in range(16)]
        ids = pad([torch.from_numpy(one.input_ids) for one in batch], batch_first=True)
        targets = pad([torch.from_numpy(one.labels) for one in batch], batch_first=True, padding_value=-100)
        model(input_ids=ids, labels=targets).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(data / "judge")
    words.save_pretrained(data / "judge")
    prompts = sorted({asked(number)[0] for number in range(1000, 1200)})
    (data / "asks.jsonl").write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    labels = [(prompt, reply, rating(reply)) for prompt, reply in map(asked, range(2000, 2120))]
    chance = random.Random(3)
    close = [(prompt, reply, min(5, max(1, n + chance.choice((-1, 0, 0, 0, 1))))) for prompt, reply, n in labels]
    write_labels(data / "people.jsonl", close)
    write_labels(data / "others.jsonl", [(prompt, reply, chance.randint(1, 5)) for prompt, reply, _ in labels])
    return made


def write_labels(path: Path, labels: list[tuple[str, str, int]]) -> None:
    rows = [{"rubric": "order", "prompt": p, "reply": r, "rating": n} for p, r, n in labels]
    path.write_text("\n".join(map(json.dumps, rows)))


def evaluated(made: Trained, **changes: Any) -> tuple[int, EvaluationSummary | None, str]:
    """(exit code, what the evaluation gave, its error) with a judge of these settings."""
    judge = {
        "path": "judge",
        "digest": rubric.digest_of_judge(made.root / "data/judge"),
        "rubrics": {"order": QUESTION},
    }
    section = {"prompt_sets": {"rubric": "asks.jsonl"}, "judge": judge | changes, "max_new_tokens": 24}
    path = made.root / "settings.json"
    path.write_text(json.dumps(section))
    code = run.main(made.environ | {SETTINGS: str(path), str(Env.SUITES): "rubric"})
    words = made.outcome()
    return code, words.evaluation, words.error.message if words.error else ""


def staging(summary: EvaluationSummary) -> str:
    expected = verdict.Expected(summary.model_digest, summary.manifest_digest)
    return verdict.judge(POLICY, evidence.evaluation_status(summary), None, expected)[0].verdict


def test_a_judge_that_agrees_with_people_may_gate_and_its_agreement_stands_in_the_evidence(judged: Trained) -> None:
    code, summary, error = evaluated(judged, labels="people.jsonl")
    assert code == 0, error
    assert summary is not None
    (metric,) = summary.metrics
    assert metric.advisory is None
    assert metric.lower is not None
    assert 0 < metric.lower < metric.value < 1
    assert metric.samples >= 50
    facts = evidence.parse_statement((judged.root / "output" / Files.EVIDENCE).read_bytes())
    (measured,) = facts.metrics
    assert (measured.scorer, measured.samples) == ("judge:order", metric.samples)
    assert measured.prompts is not None
    assert measured.decoding is not None
    assert (measured.decoding.max_new_tokens, measured.decoding.temperature) == (24, 0)
    (scorer,) = facts.scorers
    assert scorer.name == "judge:order"
    assert scorer.properties["labels"] == 120
    assert 1 > scorer.properties["kappa"] > scorer.properties["kappa_lower"] >= 0.4
    assert staging(summary) == "Passed"


@pytest.mark.parametrize(
    ("labels", "why"), [(None, "compared with 0 people's labels"), ("others.jsonl", "agreement with people is")]
)
def test_a_judge_that_nobody_agrees_with_is_shown_and_decides_nothing(
    judged: Trained, labels: str | None, why: str
) -> None:
    code, summary, error = evaluated(judged, labels=labels)
    assert code == 0, error
    assert summary is not None
    assert why in str(summary.metrics[0].advisory)
    assert staging(summary) == "Inconclusive"


def test_another_judge_than_the_pinned_one_is_refused_with_the_digest_to_pin(judged: Trained) -> None:
    code, summary, error = evaluated(judged, digest="sha256:" + "0" * 64)
    assert (code, summary) == (64, None)
    assert rubric.digest_of_judge(judged.root / "data/judge") in error
