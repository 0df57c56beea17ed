"""No secret passes from the training's output into the pod's log, however the pipe cuts it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate_trainer.launcher.veil import HIDDEN, Veil


def through(values: list[str], *pieces: bytes) -> bytes:
    veil = Veil(values)
    return b"".join(veil.through(piece) for piece in pieces) + veil.rest()


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((b"token=hunter22.",), b"token=[hidden]."),
        ((b"token=hunt", b"er22."), b"token=[hidden]."),
        ((b"hun", b"t", b"er22hunter22"), b"[hidden][hidden]"),
        ((b"hunter2",), b"hunter2"),
        ((b"hhunter22",), b"h[hidden]"),
        ((b"",), b""),
    ],
)
def test_a_value_is_hidden_wherever_it_is_cut(pieces: tuple[bytes, ...], expected: bytes) -> None:
    assert through(["hunter22"], *pieces) == expected


def test_a_value_that_holds_another_is_hidden_whole() -> None:
    assert through(["hunter22-long", "hunter22"], b"hunter22-long hunter22") == b"[hidden] [hidden]"


def test_what_cannot_be_a_secret_is_passed_on_at_once() -> None:
    assert Veil(["hunter22"]).through(b"step 1\n") == b"step 1\n"


TEXT = st.text(alphabet="ab-", max_size=40)


@given(TEXT, st.lists(st.integers(0, 40)), st.text(alphabet="ab", min_size=2, max_size=4))
def test_cuts_change_nothing_and_no_value_is_left(text: str, cuts: list[int], value: str) -> None:
    data = text.encode()
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    passed = through([value], *(data[start:end] for start, end in pairwise(edges)))
    assert value.encode() not in passed.replace(HIDDEN, b"|")
    assert passed.count(HIDDEN) == text.count(value)
