"""Laws of the intervals by simulation, of text measures, and of the frozen threshold. Seeded: they never flicker."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate_trainer.evaluate import intervals, overlap, threshold
from tollgate_trainer.evaluate.protocol import drawn_keys
from tollgate_trainer.evaluate.samples import Gap, Mean, Rate, Statistic, Weighted
from tollgate_trainer.refusal import DatasetRefused

TURNS = 250
SPARE = 0.045  # 3.3 standard errors of 250 turns at 95 %


def shares(estimates: list[intervals.Estimate], truth: float) -> tuple[float, float]:
    """(how often the upper bound covers the truth, how often the lower one does)."""
    upper = np.mean([e.upper is not None and e.upper >= truth - 1e-12 for e in estimates])
    lower = np.mean([e.lower is not None and e.lower <= truth + 1e-12 for e in estimates])
    return float(upper), float(lower)


@pytest.mark.parametrize("rates", [(0.02, 0.02, 0.02, 0.40), (0.1, 0.1, 0.1, 0.1), (0.0, 0.0, 0.3), (0.5, 0.6)])
@pytest.mark.parametrize("together", [0.0, 0.7])
def test_the_bounds_of_the_largest_gap_cover_it(rates: tuple[float, ...], together: float) -> None:
    """Also where scenarios pull all groups along (`together`): the share of scenarios that use one random number."""
    generator = np.random.default_rng(11)
    found = []
    for _ in range(TURNS):
        common, own = generator.random(80), generator.random((len(rates), 80))
        drawn = np.where(generator.random(80) < together, common, own)
        found.append(intervals.gap(Gap(tuple("abcd"[: len(rates)]), drawn < np.asarray(rates)[:, None]), 0.95))
    upper, lower = shares(found, max(rates) - min(rates))
    assert upper >= 0.95 - SPARE
    assert lower >= 0.95 - SPARE


@pytest.mark.parametrize(("ours", "theirs", "together"), [(0.1, 0.1, 0.9), (0.3, 0.25, 0.5), (0.02, 0.0, 0.0)])
def test_the_bounds_of_a_paired_difference_cover_it(ours: float, theirs: float, together: float) -> None:
    generator = np.random.default_rng(12)
    found = []
    for _ in range(TURNS):
        first = generator.random(120)
        second = np.where(generator.random(120) < together, first, generator.random(120))
        a, b = Rate.of(list(first < ours)), Rate.of(list(second < theirs))
        estimate = intervals.difference(a, b, 0.95, 1)
        assert estimate is not None
        found.append(estimate)
    upper, lower = shares(found, ours - theirs)
    assert min(upper, lower) >= 0.95 - SPARE


def test_the_bounds_of_a_weighted_mean_of_rates_cover_it() -> None:
    generator = np.random.default_rng(13)
    truths, chances, weights = (0.6, 0.9, 0.3), (0.25, 0.5, 0.25), (1.0, 2.0, 1.0)
    truth = sum(w * (p - c) / (1 - c) for p, c, w in zip(truths, chances, weights, strict=True)) / sum(weights)
    found = []
    for _ in range(TURNS):
        rates = tuple(Rate.of(list(generator.random(60) < p), c) for p, c in zip(truths, chances, strict=True))
        found.append(intervals.weighted(Weighted(rates, weights), 0.95))
    assert min(shares(found, truth)) >= 0.95 - SPARE


def test_a_weighted_mean_of_one_task_has_the_exact_bounds_of_its_rate() -> None:
    rate = Rate(30, 50, 0.25)
    found, exact = intervals.weighted(Weighted((rate,), (3.0,)), 0.95), intervals.rate(rate, 0.95)
    assert (found.value, found.lower, found.upper) == pytest.approx((exact.value, exact.lower, exact.upper))


def test_completions_of_one_prompt_are_one_sample_and_without_that_the_bounds_would_be_too_narrow() -> None:
    generator = np.random.default_rng(14)
    clustered, naive = [], []
    for turn in range(150):
        prompts = generator.normal(0, 1, 60)
        values = np.repeat(prompts, 8) + generator.normal(0, 0.1, 480)
        place = np.repeat(np.arange(60), 8)
        clustered.append(intervals.mean(Mean.clustered(list(place), list(values)), 0.95, turn, 1000))
        naive.append(intervals.mean(Mean(values, np.ones(480)), 0.95, turn, 1000))
    assert min(shares(clustered, 0.0)) >= 0.95 - 0.055  # 150 turns
    assert max(shares(naive, 0.0)) < 0.85, "a test that could not tell the two apart would prove nothing"


def test_any_statistic_is_bounded_by_resampled_units_and_a_mean_is_such_a_statistic() -> None:
    generator = np.random.default_rng(15)
    totals, weights = generator.normal(5, 2, 60), generator.uniform(1, 3, 60)
    direct = intervals.mean(Mean(totals, weights), 0.95, 3)
    general = intervals.statistic(
        Statistic(60, lambda chosen: float(totals[chosen].sum() / weights[chosen].sum())), 0.95, 3
    )
    assert (general.value, general.lower, general.upper) == pytest.approx((direct.value, direct.lower, direct.upper))


def test_a_statistic_that_too_many_sets_do_not_have_gets_no_bounds() -> None:
    found = intervals.statistic(Statistic(4, lambda chosen: float("nan") if 0 not in chosen else 1.0), 0.95, 1)
    assert (found.value, found.lower, found.upper) == (1.0, None, None)


def test_two_equal_models_differ_by_nothing_but_nobody_can_be_sure() -> None:
    same = Rate.of([True] * 30 + [False] * 70)
    found = intervals.difference(same, same, 0.95, 1)
    assert found is not None
    assert found.value == 0
    assert found.lower is not None
    assert found.upper is not None
    assert -0.05 < found.lower < 0 < found.upper < 0.05
    assert intervals.mcnemar(same, same) == 1.0


def test_mcnemar_has_its_exact_value() -> None:
    ours, theirs = Rate.of([True] * 9 + [False] * 11), Rate.of([False] * 8 + [True] + [False] * 10 + [True])
    # 8 units are ours alone, 1 is theirs alone: two-sided binomial of 1 in 9.
    assert intervals.mcnemar(ours, theirs) == pytest.approx(2 * (1 + 9) / 2**9)


@given(seed=st.integers(0, 1000), units=st.integers(2, 60))
@settings(max_examples=30)
def test_the_difference_of_means_is_the_difference_of_the_values_with_the_same_sign_turned_round(
    seed: int, units: int
) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.uniform(1, 5, units)
    ours, theirs = (Mean(generator.normal(2, 1, units) * weights, weights, exponential=True) for _ in range(2))
    there, back = (intervals.difference(*pair, 0.95, 1) for pair in ((ours, theirs), (theirs, ours)))
    assert there is not None
    assert back is not None
    assert there.value == pytest.approx(-back.value)
    assert there.value == pytest.approx(intervals.mean(ours, 0.95, 1).value - intervals.mean(theirs, 0.95, 1).value)


# --- text -------------------------------------------------------------------------------------------------------------


def by_table(first: list[str], second: list[str]) -> int:
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, j in itertools.product(range(len(first)), range(len(second))):
        table[i + 1, j + 1] = table[i, j] + 1 if first[i] == second[j] else max(table[i, j + 1], table[i + 1, j])
    return int(table[-1, -1])


@given(st.lists(st.sampled_from("abc"), max_size=20), st.lists(st.sampled_from("abc"), max_size=20))
def test_the_longest_common_subsequence_is_that_of_the_table(first: list[str], second: list[str]) -> None:
    assert overlap.common_subsequence(first, second) == by_table(first, second)


@given(st.text(max_size=40), st.text(max_size=40))
def test_rouge_l_is_symmetric_within_0_and_1_and_1_for_the_same_text(first: str, second: str) -> None:
    assert 0 <= overlap.rouge_l(first, second) <= 1
    assert overlap.rouge_l(first, second) == overlap.rouge_l(second, first)
    assert overlap.rouge_l(first, first) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The gate, the toll!", ["the", "gate", "the", "toll"]),
        ("Straße ÄPFEL", ["strasse", "äpfel"]),
        ("мост и ворота", ["мост", "и", "ворота"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("収費所A1です", ["収", "費", "所", "a1", "で", "す"]),
        ("جسر قديم", ["جسر", "قديم"]),
        ("...", []),
    ],
)
def test_words_are_found_in_any_script(text: str, words: list[str]) -> None:
    assert overlap.words(text) == words


# --- draws and thresholds ---------------------------------------------------------------------------------------------


@given(st.sets(st.text(max_size=6), max_size=30), st.integers(0, 30), st.integers(0, 5))
def test_what_is_drawn_does_not_depend_on_the_order_and_a_larger_draw_keeps_the_smaller(
    keys: set[str], count: int, seed: int
) -> None:
    ordered = sorted(keys)
    drawn = drawn_keys(ordered, count, seed, "law")
    assert drawn == drawn_keys(ordered[::-1], count, seed, "law")
    assert len(drawn) == min(count, len(keys))
    assert drawn_keys(ordered, count + 1, seed, "law")[: len(drawn)] == drawn


def frozen(shift: float, documents: int = 400, seed: int = 5) -> threshold.Threshold:
    generator = np.random.default_rng(seed)
    positive = generator.random(documents) < 0.5
    scores = generator.normal(0, 1, documents) + shift * positive
    keys = [f"document {number}" for number in range(documents)]
    return threshold.freeze(scores, positive, keys, model="sha256:m", dataset="sha256:d", positive_label="toxic")


def test_a_threshold_spares_the_negatives_of_documents_that_did_not_choose_it() -> None:
    found = frozen(3.0)
    assert found.specificity >= 0.9
    assert found.sensitivity >= 0.8
    assert found.sensitivity_lower < found.sensitivity
    assert found.auroc > 0.95
    assert found.advisory is None
    assert found.positives + found.negatives + found.chosen_on == 400
    sensitivity, alarms = next((s, f) for t, s, f in found.roc if t == found.threshold)
    assert (sensitivity, 1 - alarms) == pytest.approx((found.sensitivity, found.specificity))
    thresholds, hits, alarms_all = zip(*found.roc, strict=True)
    assert list(thresholds) == sorted(thresholds)
    assert list(hits) == sorted(hits, reverse=True)
    assert list(alarms_all) == sorted(alarms_all, reverse=True)


def test_a_scorer_that_tells_nothing_apart_or_was_hardly_measured_may_not_gate() -> None:
    assert "tells nothing apart" in str(frozen(-1.0).advisory)
    assert "at least 50 of each" in str(frozen(3.0, documents=60).advisory)


def test_without_both_labels_there_is_no_threshold() -> None:
    with pytest.raises(DatasetRefused, match="no threshold can be chosen"):
        threshold.freeze(
            np.arange(4.0), np.ones(4, dtype=bool), list("abcd"), model="m", dataset="d", positive_label="toxic"
        )


def test_a_threshold_survives_its_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("threshold") / threshold.FILE
    path.write_bytes(threshold.to_json(frozen(2.0)))
    assert threshold.read(path) == frozen(2.0)
