"""Which checkpoints stay, whatever there is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tollgate_trainer.lifecycle.rotation import surplus

SCORED = st.dictionaries(st.integers(0, 50), st.none() | st.integers(0, 9).map(float), max_size=12)


@given(SCORED, st.integers(1, 4), st.integers(0, 4), st.sampled_from(["min", "max"]), st.sets(st.integers(0, 50)))
def test_the_newest_the_best_and_the_protected_stay_and_nothing_else(
    scored: dict[int, float | None], keep_last: int, keep_best: int, mode: str, protected: set[int]
) -> None:
    gone = surplus(scored.items(), keep_last, keep_best, mode, protected)
    stay = set(scored) - set(gone)
    assert gone == sorted(gone)
    assert set(sorted(scored)[-keep_last:]) <= stay
    assert protected & set(scored) <= stay
    assert len(stay) <= keep_last + keep_best + len(protected & set(scored))
    values = sorted((v for v in scored.values() if v is not None), reverse=mode == "max")
    for value in values[:keep_best]:
        better = [v for v in values if (v < value if mode == "min" else v > value)]
        assert sum(scored[s] is not None and scored[s] in (*better, value) for s in stay) >= min(
            len(better) + 1, keep_best
        )
    assert surplus(((s, scored[s]) for s in stay), keep_last, keep_best, mode, protected) == []
