"""`dataset.limit`: a small part of the data that is the same part everywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tollgate_trainer.data.documents import Document
from tollgate_trainer.data.splits import Documents, limited

TEXTS = st.lists(st.text("abcdefgh", min_size=1, max_size=6), unique=True, max_size=30)


def documents(train: list[str], held_out: list[str]) -> Documents:
    return Documents(*(tuple(Document(text, text) for text in part) for part in (train, held_out)), "sha256:x")


@given(TEXTS.filter(bool), TEXTS, st.integers(1, 40))
def test_a_limit_keeps_at_most_so_many_in_order_and_never_empties_a_split(
    train: list[str], held_out: list[str], limit: int
) -> None:
    kept = limited(documents(train, held_out), limit)
    assert len(kept.train) == min(limit, len(train))
    assert [d.text for d in kept.train] == [text for text in train if text in {d.text for d in kept.train}]
    assert bool(kept.validation) == bool(held_out)
    assert len(kept.validation) <= len(held_out)
    assert limited(documents(train, held_out), None) == documents(train, held_out)


@given(TEXTS.filter(bool), st.integers(1, 10), st.randoms())
def test_the_choice_depends_on_no_order(train: list[str], limit: int, chance: object) -> None:
    shuffled = list(train)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    chosen = limited(documents(train, []), limit).train
    assert {d.text for d in chosen} == {d.text for d in limited(documents(shuffled, []), limit).train}
