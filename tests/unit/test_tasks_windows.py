"""A text as windows of tokens: nothing is lost, neighbours share what they should, and an answer is where it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate_trainer.data.document import Answer, Document
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.refusal import DatasetRefused
from tollgate_trainer.tasks.windows import Windowing, windows
from trainer_fixtures import WORDS

TEXTS = [Document(f"the {a} of the {b} and the {c}", "here") for a in WORDS for b in WORDS[:6] for c in WORDS[:3]]
TOKENIZER: Any = tokenizers.from_json(tokenizers.train(TEXTS, 600))
NARROW = Windowing(36, 16)


def asked(words: list[str], first: int, last: int, question: str | None = "the gate?") -> Document:
    """The answer is the words from first to last."""
    text = " ".join(words)
    start = len(" ".join(words[:first])) + (first > 0)
    return Document(text, "data:1", question=question, answers=(Answer(" ".join(words[first : last + 1]), start),))


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([*WORDS, "naïve", "漢字", "a-b,c"]), min_size=1, max_size=60),
    st.integers(0, 59),
    st.integers(0, 1),
    st.sampled_from([None, "the gate?", "where is the open bridge of the lane?"]),
)
def test_every_character_is_in_a_window_and_the_answer_reads_back(
    words: list[str], place: int, more: int, question: str | None
) -> None:
    first = place % len(words)
    document = asked(words, first, min(first + more, len(words) - 1), question)
    made = windows([document], TOKENIZER, NARROW)
    covered: set[int] = set()
    marked = 0
    for window in made:
        assert len(window.input_ids) <= NARROW.max_length
        assert window.windows == len(made)
        for start, end in window.offsets:
            covered.update(range(start, end) if start >= 0 else ())
        if (window.start, window.end) != (0, 0):
            marked += 1
            span = document.text[window.offsets[window.start, 0] : window.offsets[window.end, 1]]
            assert document.answers is not None
            assert span.strip() == document.answers[0].text
    assert marked >= 1
    assert covered >= {i for i, character in enumerate(document.text) if not character.isspace()}


def test_neighbours_share_so_many_tokens() -> None:
    made = windows([asked(list(WORDS) * 5, 0, 0)], TOKENIZER, NARROW)
    for left, right in zip(made, list(made)[1:], strict=False):
        shared = {tuple(span) for span in left.offsets if span[0] >= 0} & {
            tuple(span) for span in right.offsets if span[0] >= 0
        }
        assert len(shared) == NARROW.stride


def test_the_question_is_told_from_the_text() -> None:
    (window,) = windows([asked(["gate", "road"], 1, 1)], TOKENIZER, NARROW)
    text = window.offsets[:, 0] >= 0
    assert (window.segments == text).all()
    assert TOKENIZER.decode(window.input_ids[text]).split() == ["gate", "road"]


def test_a_text_without_an_answer_points_at_its_first_token() -> None:
    document = Document("gate road", "data:1", question="the lane?", answers=())
    (window,) = windows([document], TOKENIZER, NARROW, learning=True)
    assert (window.start, window.end) == (0, 0)


def off_by_one(number: int) -> Document:
    return Document(f"gate road {number}", f"data:{number}", question="?", answers=(Answer("road", 4),))


def inside_a_word(number: int) -> Document:
    text = f"gate roadside {number}"
    return Document(text, f"data:{number}", question="?", answers=(Answer("oadsi", 6),))


def longer_than_a_window(number: int) -> Document:
    return asked(list(WORDS) * 5, 0, 60)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (off_by_one, "does not stand at character 4"),
        (inside_a_word, "can only be given as"),
        (longer_than_a_window, "is whole in no window"),
    ],
)
def test_more_than_one_in_a_hundred_answers_that_cannot_be_marked_are_an_error(bad: Any, told: str) -> None:
    good = [asked([*WORDS, str(number)], 2, 3) for number in range(100)]
    kept = windows([*good, bad(0)], TOKENIZER, Windowing(48, 6), learning=True)
    assert kept.statistics.dropped_samples == 1
    assert kept.statistics.documents == 101
    assert len(windows([*good, bad(0)], TOKENIZER, Windowing(48, 6))) > len(kept), "a held-out one still counts"
    with pytest.raises(DatasetRefused, match="2 of 102 answers cannot be marked") as refused:
        windows([*good, bad(0), bad(1)], TOKENIZER, Windowing(48, 6), learning=True)
    assert told in str(refused.value)


def test_a_question_that_leaves_no_room_is_refused_with_the_fields_to_change() -> None:
    document = asked(["gate", "road"], 1, 1, question=" ".join(WORDS * 2))
    with pytest.raises(DatasetRefused, match=r"span.doc_stride=16.*raise hyperparameters.max_seq_length"):
        windows([document], TOKENIZER, NARROW)


def test_a_document_without_answers_is_no_span_document() -> None:
    with pytest.raises(DatasetRefused, match="data:1 has no answers"):
        windows([Document("gate", "data:1", question="?")], TOKENIZER, NARROW)
