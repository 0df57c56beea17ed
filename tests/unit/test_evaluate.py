"""Evaluation with real models: an untrained one fails the gate that the trained one passes, and nothing is made up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from evaluation_fixtures import Trained, conversation, train
from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.contract import Env, Files
from tollgate.gates import evidence, verdict
from tollgate_trainer.data.documents import Document, Message
from tollgate_trainer.evaluate import quality, run, suites
from tollgate_trainer.refusal import DatasetRefused, ManifestRefused


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Trained]:
    return lambda steps: train(tmp_path_factory.mktemp("run"), steps)


@pytest.fixture(scope="module")
def trained(make: Callable[[int], Trained]) -> Trained:
    made = make(120)
    assert run.main(made.environ) == 0
    return made


def test_an_untrained_model_fails_the_gate_that_the_trained_one_passes(
    make: Callable[[int], Trained], trained: Trained
) -> None:
    untrained = make(0)
    assert run.main(untrained.environ) == 0
    assert untrained.verdicts()["stage"] == "Failed"
    assert untrained.verdicts()["perplexity"] == "Failed"
    assert trained.verdicts() == {"perplexity": "Passed", "quality_score": "Passed", "stage": "Passed"}


def test_the_evidence_is_about_this_model_manifest_and_data_and_says_how_it_was_measured(trained: Trained) -> None:
    summary = trained.outcome().evaluation
    assert summary is not None
    data = (trained.root / "output" / Files.EVIDENCE).read_bytes()
    facts = evidence.parse_statement(data, summary.evidence_digest)
    assert facts.model_digest == trained.environ[Env.MODEL_DIGEST]
    assert facts.manifest_digest == trained.environ[Env.MANIFEST_SHA256]
    assert facts.seeds == {"standard": 20}
    assert {(scorer.name, scorer.version) for scorer in facts.scorers} == {("perplexity", "1"), ("quality_score", "1")}
    for metric in facts.metrics:
        assert metric.lower is not None
        assert metric.upper is not None
        assert metric.lower <= metric.value <= metric.upper
        assert metric.confidence == 0.95
        assert 20 <= metric.samples <= 300


def test_the_same_model_is_measured_the_same_again(trained: Trained, tmp_path: Path) -> None:
    again = trained.copy(tmp_path / "again")
    assert run.main(again.environ) == 0
    first, second = trained.outcome().evaluation, again.outcome().evaluation
    assert first is not None
    assert second is not None
    assert (first.metrics, first.suite_digest) == (second.metrics, second.suite_digest)


def test_a_stricter_confidence_widens_the_bounds_of_the_same_values(trained: Trained, tmp_path: Path) -> None:
    strict = trained.copy(tmp_path / "strict")
    assert run.main(strict.environ | {Env.CONFIDENCE: "0.999"}) == 0
    loose_summary, strict_summary = trained.outcome().evaluation, strict.outcome().evaluation
    assert loose_summary is not None
    assert strict_summary is not None
    for a, b in zip(loose_summary.metrics, strict_summary.metrics, strict=True):
        assert a.value == b.value
        assert b.confidence == 0.999
        assert (b.lower or 0) < (a.lower or 0)
        assert (b.upper or 0) > (a.upper or 0)


def break_weights(made: Trained) -> None:
    path = made.root / "output/model/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def change_data(made: Trained) -> None:
    with (made.root / "data/talks.jsonl").open("a") as file:
        file.write("\n" + json.dumps(conversation("amber", "now", "here")))


def remove_model(made: Trained) -> None:
    shutil.rmtree(made.root / "output/model")


def nothing(made: Trained) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "environ", "reason", "message"),
    [
        (break_weights, {}, "ModelRefused", "changed after training: model.safetensors"),
        (remove_model, {}, "ModelRefused", "no finished model"),
        (change_data, {}, "DatasetRefused", "the model was trained on"),
        (nothing, {Env.MODEL_DIGEST: "sha256:" + "0" * 64}, "ModelRefused", "is to be evaluated"),
        (nothing, {Env.SUITES: "standard,unheard-of"}, "ManifestRefused", "known are standard"),
        (nothing, {Env.CONFIDENCE: "95"}, "ManifestRefused", "TOLLGATE_CONFIDENCE=95"),
    ],
)
def test_what_is_not_what_was_asked_for_is_refused_and_leaves_no_evidence(
    trained: Trained,
    tmp_path: Path,
    spoil: Callable[[Trained], None],
    environ: dict[str, str],
    reason: str,
    message: str,
) -> None:
    made = trained.copy(tmp_path / "spoilt")
    (made.root / "output" / Files.EVIDENCE).unlink()
    spoil(made)
    assert run.main(made.environ | environ) == 64
    words = made.outcome()
    assert words.error is not None
    assert (words.outcome, words.reason) == ("failed", reason)
    assert message in words.error.message
    assert not (made.root / "output" / Files.EVIDENCE).exists()


def documents(count: int) -> list[Document]:
    return [
        Document(
            f"q {i}\nthe answer {i}", f"d:{i}", (Message("user", f"q {i}"), Message("assistant", f"the answer {i}"))
        )
        for i in range(count)
    ]


def test_questions_do_not_depend_on_the_order_of_the_documents_and_ask_each_only_once() -> None:
    pool = documents(40)
    asked = quality.questions(pool, 10, 1)
    turned = quality.questions(list(reversed(pool)), 10, 1)
    by_id = {question.pair.document.hash: question.answers for question in asked}
    assert {question.pair.document.hash: question.answers for question in turned} == by_id
    assert len(by_id) == 10
    for question in asked:
        assert question.answers[0] == question.pair.answer
        assert len(set(question.answers)) == quality.OPTIONS


def test_too_few_different_answers_are_an_error_not_a_score() -> None:
    with pytest.raises(DatasetRefused, match="give 3 different answers"):
        quality.questions(documents(3), 10, 1)


@pytest.mark.parametrize(
    ("document", "question", "answer"),
    [
        (Document("What is it?\nA long answer.\nMore.", "d"), "What is it?", "A long answer.\nMore."),
        (Document("one line only with eight words in it", "d"), "one line only with", "eight words in it"),
        (Document("yes\nno", "d"), None, None),
    ],
)
def test_a_text_is_cut_into_question_and_answer(document: Document, question: str | None, answer: str | None) -> None:
    found = quality.pair(document)
    assert (found.question if found else None, found.answer if found else None) == (question, answer)


def test_an_evaluator_of_another_package_is_found_by_its_entry_point() -> None:
    point = EntryPoint("my_score", "tollgate_trainer.evaluate.perplexity:Perplexity", "tollgate.evaluators")
    (task,) = suites.tasks(["my_score"], [point])
    assert task.evaluator.name == "perplexity"


def test_an_evaluator_that_can_t_be_loaded_is_an_error() -> None:
    point = EntryPoint("my_score", "no_such_package:Score", "tollgate.evaluators")
    with pytest.raises(ManifestRefused, match="'my_score' of no_such_package:Score can't be loaded"):
        suites.tasks(["my_score"], [point])


def test_a_suite_asked_for_twice_measures_once() -> None:
    assert len(suites.tasks(["standard", "standard"])) == 2


def test_every_evaluator_of_tollgate_is_found_by_the_same_entry_points_as_others() -> None:
    for suite in suites.SUITES.values():
        for task in suites.tasks([suite.name]):
            assert task.evaluator.name in suite.evaluators


def test_the_untrained_model_is_worse_than_its_baseline_on_the_same_prompts_and_the_gate_uses_that(
    make: Callable[[int], Trained], trained: Trained
) -> None:
    untrained = make(0)
    assert run.main(untrained.environ | {Env.BASELINE: str(trained.root / "output")}) == 0
    summary = untrained.outcome().evaluation
    assert summary is not None
    assert summary.baseline_digest == trained.environ[Env.MODEL_DIGEST]
    metrics = {metric.name: metric for metric in summary.metrics}
    quality, worse = metrics["quality_score_delta"], metrics["perplexity_delta"]
    assert quality.upper is not None
    assert quality.upper < 0
    assert worse.lower is not None
    assert worse.lower > 0
    facts = evidence.parse_statement((untrained.root / "output" / Files.EVIDENCE).read_bytes())
    stated = next(metric for metric in facts.metrics if metric.name == "quality_score")
    assert stated.comparison is not None
    assert stated.comparison.mcnemar is not None
    assert stated.comparison.mcnemar < 0.01
    body = {"metric": "quality_score", "op": ">=", "threshold": -1, "baseline": {"maxRegression": 0.02}}
    policy = PromotionPolicySpec.model_validate({"stages": [{"name": "staging", "checks": [body]}]})
    theirs = trained.outcome().evaluation
    assert theirs is not None
    (gate,) = verdict.judge(
        policy,
        evidence.evaluation_status(summary),
        evidence.evaluation_status(theirs),
        verdict.Expected(summary.model_digest, summary.manifest_digest),
    )
    assert gate.verdict == "Failed"
    assert gate.checks[0].reason is not None
    assert f"by {-quality.upper:.6g} at least" in gate.checks[0].reason, "the paired difference, not the two intervals"


def test_another_evaluation_than_the_manifest_s_is_another_suite(trained: Trained, tmp_path: Path) -> None:
    other = trained.copy(tmp_path / "other")
    (other.root / "settings.json").write_text(json.dumps({"max_samples": 25}))
    assert run.main(other.environ | {"TOLLGATE_EVALUATION_SETTINGS": str(other.root / "settings.json")}) == 0
    usual, small = trained.outcome().evaluation, other.outcome().evaluation
    assert usual is not None
    assert small is not None
    assert {metric.samples for metric in small.metrics} == {25}
    assert small.suite_digest != usual.suite_digest


def test_a_scorer_that_is_not_there_fails_the_evaluation_and_leaves_no_evidence(
    trained: Trained, tmp_path: Path
) -> None:
    made = trained.copy(tmp_path / "made")
    (made.root / "output" / Files.EVIDENCE).unlink()
    (made.root / "data/prompts.jsonl").write_text('{"prompt": "Tell me."}\n')
    settings = {"prompt_sets": {"toxicity": "prompts.jsonl"}, "scorer": {"toxicity": "nowhere"}}
    (made.root / "settings.json").write_text(json.dumps(settings))
    asked = {"TOLLGATE_EVALUATION_SETTINGS": str(made.root / "settings.json"), Env.SUITES: "toxicity"}
    assert run.main(made.environ | asked) == 64
    words = made.outcome()
    assert words.error is not None
    assert "there is no scorer nowhere" in words.error.message
    assert not (made.root / "output" / Files.EVIDENCE).exists()


def test_the_metrics_that_a_policy_looks_at_are_told_first(trained: Trained, tmp_path: Path) -> None:
    other = trained.copy(tmp_path / "other")
    assert run.main(other.environ | {Env.GATED: "quality_score,nothing_like_it"}) == 0
    summary = other.outcome().evaluation
    assert summary is not None
    assert [metric.name for metric in summary.metrics] == ["quality_score", "perplexity"]


def test_a_baseline_whose_files_are_gone_or_changed_is_not_compared_and_stops_nothing(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = trained.copy(tmp_path / "made")
    broken = trained.copy(tmp_path / "broken")
    break_weights(broken)
    assert run.main(made.environ | {Env.BASELINE: str(broken.root / "output")}) == 0
    summary = made.outcome().evaluation
    assert summary is not None
    assert summary.baseline_digest is None
    assert {metric.name for metric in summary.metrics} == {"perplexity", "quality_score"}
    assert "nothing is compared prompt by prompt" in capsys.readouterr().out
