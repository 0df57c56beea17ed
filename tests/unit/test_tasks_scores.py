"""What a classification and a span are worth: figures that scikit-learn or a brute force gives too."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from tollgate_trainer.data.document import Answer, Document
from tollgate_trainer.refusal import DatasetRefused
from tollgate_trainer.tasks import answers, scores
from tollgate_trainer.tasks.labels import classes
from tollgate_trainer.tasks.span import span_metrics, threshold_for

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


def labelled(*labels: str | None) -> list[Document]:
    return [Document(f"text {place}", f"data.csv:{place}", label=label) for place, label in enumerate(labels)]


# --- classes ----------------------------------------------------------------------------------------------------------


def test_classes_are_the_training_labels_in_sorted_order() -> None:
    assert classes(labelled("wolf", "ant", "wolf", "bee"), labelled("ant")) == ("ant", "bee", "wolf")


@pytest.mark.parametrize(
    ("train", "held_out", "told"),
    [
        (["a", "b", None], [], "1 documents have no label (the first: data.csv:2)"),
        (["a", "a"], [], "'a'"),
        ([f"id {i}" for i in range(9)], [], "a label of its own"),
        (["a", "b", "a"], ["a", "c", "c", "d"], "3 of 4 held-out documents have a label that no training document has"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(
    train: list[str | None], held_out: list[str | None], told: str
) -> None:
    with pytest.raises(DatasetRefused) as refused:
        classes(labelled(*train), labelled(*held_out))
    assert told in str(refused.value)


@given(PAIRS)
def test_macro_figures_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = (np.asarray(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    for mine, theirs in (
        (scores.macro_f1, metrics.f1_score),
        (scores.macro_precision, metrics.precision_score),
        (scores.macro_recall, metrics.recall_score),
    ):
        assert mine(true, predicted, 4) == pytest.approx(theirs(true, predicted, average="macro", zero_division=0))
    assert (scores.confusion(true, predicted, 4) == metrics.confusion_matrix(true, predicted, labels=range(4))).all()


def test_a_class_without_documents_or_predictions_has_no_figures_rather_than_zeros() -> None:
    first, second, third = scores.by_class(np.asarray([[2, 1, 0], [0, 0, 0], [0, 0, 0]]))
    assert (first.precision, first.recall) == (1.0, pytest.approx(2 / 3))
    assert (second.precision, second.recall, second.f1) == (0.0, None, 0.0)
    assert (third.precision, third.recall, third.f1) == (None, None, None)


def test_auroc_of_several_classes_is_the_mean_of_each_against_the_rest() -> None:
    generator = np.random.default_rng(5)
    true = np.arange(60) % 3
    raw = generator.random((60, 3))
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    expected = metrics.roc_auc_score(true, probabilities, multi_class="ovr", average="macro")
    assert scores.auroc(true, probabilities) == pytest.approx(expected)
    tied = np.round(probabilities[:, :2], 1)
    expected = metrics.roc_auc_score(true > 0, tied[:, 1])
    assert scores.auroc((true > 0).astype(np.int64), tied) == pytest.approx(expected)


def test_auroc_is_undefined_where_a_class_has_no_document_and_says_which() -> None:
    true, probabilities = np.asarray([0, 0]), np.asarray([[0.9, 0.1], [0.8, 0.2]])
    assert math.isnan(scores.auroc(true, probabilities))
    assert scores.auroc_problem(true, ["spam", "ham"]) == "undefined: no held-out document of 'ham'"


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_answer", "right", "exact", "f1"),
    [
        ("The bridge.", ["bridge"], True, 1.0),
        ("old bridge", ["bridge", "river"], False, 2 / 3),
        ("", [], True, 1.0),
        ("bridge", [], False, 0.0),
        ("", ["bridge"], False, 0.0),
        ("()", ["()"], True, 1.0),
        ("«мост»", ["Мост"], True, 1.0),
    ],
)
def test_answers_are_compared_as_people_read_them(given_answer: str, right: list[str], exact: bool, f1: float) -> None:
    assert answers.exact_match(given_answer, right) is exact
    assert answers.token_f1(given_answer, right) == pytest.approx(f1)


LOGITS = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=12)


@given(LOGITS, st.integers(1, 6))
def test_the_best_span_is_the_best_of_all_that_are_short_enough(logits: list[tuple[int, int]], longest: int) -> None:
    starts, ends = (np.asarray(side, dtype=np.float32) for side in zip(*logits, strict=True))
    offsets = np.asarray([(-1, -1), *((3 * i, 3 * i + 2) for i in range(len(logits) - 1))], dtype=np.int32)
    found = answers.best_span(starts, ends, offsets, longest)
    every = [starts[i] + ends[j] for i in range(1, len(logits)) for j in range(i, min(i + longest, len(logits)))]
    assert found.best == pytest.approx(float(max(every)))
    assert found.null == pytest.approx(float(starts[0] + ends[0]))
    assert 0 < found.end - found.start <= 3 * longest


@given(st.lists(st.tuples(st.integers(-5, 5), st.sampled_from([0.0, 0.5, 1.0]), st.booleans()), min_size=1, max_size=9))
def test_no_threshold_is_better_than_the_chosen_one(rows: list[tuple[int, float, bool]]) -> None:
    doubts = [float(doubt) for doubt, _, _ in rows]
    answered = [0.0 if silent else worth for _, worth, silent in rows]
    kept = [float(silent) for _, _, silent in rows]

    def total(threshold: float) -> float:
        return sum(b if d > threshold else a for d, a, b in zip(doubts, answered, kept, strict=True))

    chosen = answers.choose_threshold(doubts, answered, kept)
    assert total(chosen) == pytest.approx(max(total(t / 2) for t in range(-13, 14)))


def test_over_windows_the_best_span_wins_and_no_answer_counts_where_it_is_least_believed() -> None:
    found = answers.over_windows([answers.Found(5.0, 1.0, 0, 4), answers.Found(-2.0, 3.0, 10, 14)])
    assert (found.null, found.best, found.start, found.end) == (-2.0, 3.0, 10, 14)


# --- threshold --------------------------------------------------------------------------------------------------------


def judged(count: int, doubt_of_silent: float) -> list[tuple[Document, answers.Found]]:
    """Documents of which every second has no answer; "word" is right for the others, and found."""
    made = []
    for number in range(count):
        silent = number % 2 == 0
        document = Document(f"word {number}", "x", question="?", answers=() if silent else (Answer("word", 0),))
        made.append((document, answers.Found(doubt_of_silent if silent else 1.0, 0.0, 0, 4)))
    return made


def test_the_threshold_is_chosen_on_other_documents_than_it_is_judged_on() -> None:
    found = judged(120, doubt_of_silent=3.0)
    chosen = threshold_for(found)
    assert chosen == pytest.approx(2.0)
    values = span_metrics(found, unanswered=True)
    assert values["eval_documents"] == sum(not answers.calibrates(document) for document, _ in found)
    assert values["eval_exact_match"] == 1.0
    judged_only = [pair for pair in found if not answers.calibrates(pair[0])]
    assert threshold_for(judged_only) is None


def test_with_few_documents_no_threshold_is_chosen_and_all_are_judged() -> None:
    values = span_metrics(judged(10, doubt_of_silent=3.0), unanswered=True)
    assert "eval_null_threshold" not in values
    assert values["eval_documents"] == 10
    assert values["eval_no_answer_accuracy"] == 1.0


def test_a_score_that_is_not_finite_gives_no_figure() -> None:
    broken = [(document, answers.Found(math.nan, 0.0, 0, 4)) for document, _ in judged(4, 1.0)]
    assert span_metrics(broken, unanswered=True) == {}
