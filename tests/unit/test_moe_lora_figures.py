"""How even the use of experts is, and when it is worth a warning: sums in, figures out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate_trainer.models.moe_lora.figures import IN_A_ROW, LayerFigures, LayerSums, Watch, load_entropy


def figures(shares: tuple[float, ...], top_k: int = 2) -> LayerFigures:
    return LayerSums(shares, shares, 0.5, 1.0).figures(top_k)


@pytest.mark.parametrize(
    ("shares", "top_k", "entropy"),
    [
        ((0.25, 0.25, 0.25, 0.25), 2, 1.0),
        ((0.5, 0.5, 0.0, 0.0), 2, 0.0),
        ((1.0, 0.0), 1, 0.0),
        ((0.5, 0.5), 2, None),
    ],
)
def test_load_entropy_is_0_when_the_same_k_serve_all_and_1_when_all_serve_alike(
    shares: tuple[float, ...], top_k: int, entropy: float | None
) -> None:
    found = load_entropy(shares, top_k)
    assert found == (None if entropy is None else pytest.approx(entropy))


@given(
    st.integers(2, 8).flatmap(
        lambda e: st.tuples(st.lists(st.integers(0, 1000), min_size=e, max_size=e), st.integers(1, e))
    )
)
def test_figures_are_shares_and_entropies_whatever_the_counts(drawn: tuple[list[int], int]) -> None:
    counts, top_k = drawn
    tokens = sum(counts) / top_k
    if not tokens:
        return
    found = LayerSums(tuple(c / top_k for c in counts), tuple(map(float, counts)), 0.3 * tokens, tokens).figures(top_k)
    assert sum(found.usage) == pytest.approx(1)
    assert sum(found.shares) == pytest.approx(1)
    assert found.routing_entropy_nats == pytest.approx(0.3)
    assert found.routing_entropy == pytest.approx(0.3 / math.log(len(counts)))
    assert found.load_entropy is None or 0 <= found.load_entropy <= 1


def test_a_layer_without_a_token_has_no_figures() -> None:
    with pytest.raises(ValueError, match="no token"):
        LayerSums((0.0, 0.0), (0.0, 0.0), 0.0, 0.0).figures(2)


EVEN = figures((0.25, 0.25, 0.25, 0.25))
COLLAPSED = figures((0.6, 0.4, 0.0, 0.0))


def said(watch: Watch, *logs: LayerFigures) -> list[int]:
    """How many messages each log brought."""
    return [len(watch.warnings({"q_proj": one})) for one in logs]


def test_uneven_use_is_warned_of_once_after_five_logs_in_a_row() -> None:
    assert IN_A_ROW == 5
    assert said(Watch(), *[COLLAPSED] * 12) == [0] * 4 + [3] + [0] * 7


def test_one_even_log_in_between_starts_the_count_again() -> None:
    assert said(Watch(), *[COLLAPSED] * 4, EVEN, *[COLLAPSED] * 5) == [0] * 9 + [3]


def test_even_use_is_never_warned_of() -> None:
    assert said(Watch(), *[EVEN] * 20) == [0] * 20


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((0.55, 0.15, 0.15, 0.15), ["more than twice its even part"]),
        ((0.36, 0.36, 0.275, 0.005), ["less than 1 %"]),
        ((0.48, 0.47, 0.025, 0.025), ["few experts serve most tokens"]),
    ],
)
def test_each_kind_of_unevenness_has_its_own_words_and_a_fix(shares: tuple[float, ...], words: list[str]) -> None:
    watch = Watch()
    for _ in range(IN_A_ROW - 1):
        watch.warnings({"q_proj": figures(shares)})
    found = watch.warnings({"q_proj": figures(shares)})
    assert len(found) == len(words)
    for message, word in zip(found, words, strict=True):
        assert word in message
        assert "q_proj" in message
        assert "Raise adapter.balance" in message
