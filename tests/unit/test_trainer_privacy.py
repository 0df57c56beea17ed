"""Personal data that has a form: what is found, what is not taken for it, and where things lie after it is replaced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate_trainer.data.privacy import Moved, find, redact, replaced


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("write to bob.smith+x@example.co.uk.", "email", "bob.smith+x@example.co.uk"),
        ("call +49 30 123456 now", "phone", "+49 30 123456"),
        ("call (415) 555-2671", "phone", "(415) 555-2671"),
        ("card 4111 1111 1111 1111, please", "card", "4111 1111 1111 1111"),
        ("card 378282246310005", "card", "378282246310005"),
        ("to DE89 3704 0044 0532 0130 00 AND NO MORE", "iban", "DE89 3704 0044 0532 0130 00"),
        ("to GB82WEST12345698765432", "iban", "GB82WEST12345698765432"),
    ],
)
def test_each_kind_is_found_where_it_stands(text: str, kind: str, found: str) -> None:
    assert [(one.kind, text[one.start : one.end]) for one in find(text)] == [(kind, found)]


@pytest.mark.parametrize(
    "text",
    [
        "a @ b, x@y, @name, bob@localhost",
        "card 4111 1111 1111 1112",  # Luhn does not hold
        "GB82WEST12345698765433",  # nor do the check digits
        "on 2024-10-11 at 12:30:11.123456 from 10.0.0.1",
        "order 100-200-3000, part 2125550123, years 2019-2020",
        "pi is 3.14159265358979, a zero is 0000000000000000",
    ],
)
def test_what_only_looks_like_it_is_let_be(text: str) -> None:
    assert find(text) == []


def test_a_redacted_text_says_what_stood_there_and_how_often() -> None:
    text, counts = redact("a@b.org or c@d.org, else +49 30 123456")
    assert text == "[EMAIL] or [EMAIL], else [PHONE]"
    assert counts == {"email": 2, "phone": 1}


PIECES = st.lists(
    st.sampled_from(
        ["a@b.org", "+49 30 123456", "4111 1111 1111 1111", "the gate", "é😀", ",", "DE89370400440532013000"]
    ),
    max_size=8,
).map(" ; ".join)


@given(PIECES, st.data())
def test_what_lay_outside_of_findings_is_found_again_at_its_new_place(text: str, data: st.DataObject) -> None:
    findings = find(text)
    clean, moved = replaced(text, findings), Moved(tuple(findings))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    new_start, new_end = moved.span(start, end)
    assert 0 <= new_start <= new_end <= len(clean)
    if not any(finding.start < place < finding.end for finding in findings for place in (start, end)):
        inside = [f for f in findings if start <= f.start and f.end <= end and f.start < f.end]
        shifted = [type(f)(f.kind, f.start - start, f.end - start) for f in inside]
        assert clean[new_start:new_end] == replaced(text[start:end], shifted)


@given(PIECES)
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once, _ = redact(text)
    assert redact(once) == (once, {})
