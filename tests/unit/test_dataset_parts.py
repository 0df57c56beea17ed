"""The pure parts of `tollgate dataset`: figures, leakage, samples, splits, and what a model is taught."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate_trainer.data.document import Document, Message
from tollgate_trainer.data.split import split as trainers_split
from tollgate_trainer.data.tokens import IGNORED, Sample
from tollgate_trainer.dataset import checks, leakage
from tollgate_trainer.dataset.checks import Severity
from tollgate_trainer.dataset.draw import apportioned, draw
from tollgate_trainer.dataset.lesson import Part, parts, spread, sums, warnings
from tollgate_trainer.dataset.partition import crossings, partition
from tollgate_trainer.dataset.statistics import histogram, statistics, summary
from tollgate_trainer.refusal import DatasetRefused

WORDS = "gate toll road bridge river lane ticket driver night morning early late open close count carry".split()  # noqa: SIM905


def texts(count: int, words: int = 30, seed: int = 1) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=words)) for _ in range(count)]


def documents(*found: str, **fields: str) -> list[Document]:
    return [Document(text, f"d:{number}", **fields) for number, text in enumerate(found, 1)]


# --- figures ----------------------------------------------------------------------------------------------------------


def test_percentiles_are_lengths_that_occur() -> None:
    found = summary([5, 1, 100, 3, 2])
    assert (found.least, found.p50, found.p95, found.most, found.total) == (1, 3, 100, 100, 111)
    assert found.mean == pytest.approx(22.2)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=200))
def test_a_histogram_holds_every_length_once_in_bins_that_touch(lengths: list[int]) -> None:
    bins = histogram(lengths)
    assert sum(each.count for each in bins) == len(lengths)
    assert len(bins) <= 14
    for one, other in pairwise(bins):
        assert one.end == other.start
    for each in bins:
        assert each.count == sum(each.start <= n and (each.end is None or n < each.end) for n in lengths)


def test_one_giant_does_not_flatten_the_histogram() -> None:
    bins = histogram([*range(10, 60), *range(10, 60), 1_000_000])
    assert bins[-1].end is None
    assert bins[-1].count == 1
    assert sum(each.count > 0 for each in bins) > 5


def test_figures_name_duplicates_labels_roles_and_sources() -> None:
    talk = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"), Message("user", "more"))
    found = statistics(
        [
            Document("The Gate", "a:1", label="x", source="one"),
            Document("the  gate", "a:2", label="y", source="one"),
            Document("the gate", "b:1", label="x", source="two"),
            Document("the gate", "b:2", label="x", source="two"),
            Document("s\nu\na\nmore", "c:1", messages=talk, source="two"),
        ],
        [2, 2, 2, 2, 9],
        8,
    )
    assert (found.duplicates.exact, found.duplicates.normalised, found.duplicates.groups) == (1, 3, 1)
    assert found.duplicates.worst == ("a:1", "a:2", "b:1", "b:2")
    assert found.labels == {"x": 3, "y": 1}
    assert found.unlabelled == 1
    assert found.conversations is not None
    assert found.conversations.roles == {"user": 2, "system": 1, "assistant": 1}
    assert (found.conversations.with_system, found.conversations.ends_elsewhere) == (1, 1)
    assert {name: (each.documents, each.length) for name, each in found.sources.items()} == {
        "one": (2, 4),
        "two": (3, 13),
    }
    assert found.longer_than_limit == 1


def test_two_questions_about_one_text_are_no_duplicates() -> None:
    asked = [Document("a text", "d:1", question="Who?"), Document("a text", "d:2", question="Where?")]
    assert statistics(asked, [2, 2], None).duplicates.normalised == 0


# --- leakage ----------------------------------------------------------------------------------------------------------


def brute_force(left: list[Document], right: list[Document], threshold: float) -> int:
    """Pairs of different texts by comparing all with all."""
    ours, theirs = ({d.hash: leakage.shingles(d.text) for d in side} for side in (left, right))
    return sum(
        leakage.jaccard(one, other) >= threshold
        for left_hash, one in ours.items()
        for right_hash, other in theirs.items()
        if left_hash != right_hash
    )


def test_near_duplicates_are_those_of_an_exact_comparison_of_all_with_all() -> None:
    chance = random.Random(3)
    train = texts(300, words=40)
    held_out = texts(60, words=40, seed=2)
    for text in chance.sample(train, 60):  # the same with one to three words changed
        changed = text.split()
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(changed))] = "elsewhere"
        held_out.append(" ".join(changed))
    left, right = documents(*held_out), documents(*train)
    wanted = brute_force(left, right, 0.8)
    found = leakage.near(left, right, 0.8)
    assert wanted > 5
    assert found.pairs == wanted
    assert all(pair.jaccard >= 0.8 for pair in found.worst)
    assert [pair.jaccard for pair in found.worst] == sorted((pair.jaccard for pair in found.worst), reverse=True)


def test_the_same_text_is_exact_leakage_and_not_counted_as_near() -> None:
    one, other = documents("The gate opens at night", "a road"), documents("the  gate opens at NIGHT", "a bridge")
    assert [(pair.left.origin, pair.right.origin) for pair in leakage.exact(one, other).worst] == [("d:1", "d:1")]
    assert leakage.near(one, other).pairs == 0


def test_texts_without_spaces_between_words_are_compared_by_characters() -> None:
    text = "収費所は夜間も開いており、運転手は切符を受け取ってから橋を渡ることができます。"
    assert len(leakage.shingles(text)) > 20
    assert leakage.near(documents(text), documents("橋を渡る前に運転手は切符を受け取ります。")).pairs == 0
    assert leakage.near(documents(text), documents(text[:-2])).pairs == 1


@pytest.mark.parametrize("text", ["", "...", "one", "a b c d"])
def test_short_texts_have_one_shingle_or_none(text: str) -> None:
    assert len(leakage.shingles(text)) == bool(leakage.words(text))


# --- samples ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.data())
def test_seats_are_within_one_of_their_share(sizes: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(sizes)))
    seats = apportioned(sizes, count)
    assert sum(seats) == count
    for size, got in zip(sizes, seats, strict=True):
        assert got <= size
        assert abs(got - size * count / sum(sizes)) < 1


@settings(max_examples=30)
@given(st.integers(1, 90), st.integers(0, 5))
def test_a_sample_keeps_the_shares_of_labels_and_does_not_depend_on_the_order(count: int, seed: int) -> None:
    labelled = [
        Document(text, f"d:{number}", label="rare" if number % 9 == 0 else "common")
        for number, text in enumerate(texts(90))
    ]
    places = draw(labelled, count, seed)
    assert len(places) == count
    assert places == sorted(set(places))
    share = Counter(labelled[place].label for place in places)
    assert abs(share["rare"] - count / 9) < 1
    shuffled = random.Random(seed).sample(labelled, len(labelled))
    assert {labelled[place].origin for place in places} == {shuffled[p].origin for p in draw(shuffled, count, seed)}


def test_another_seed_draws_others_and_quarters_of_the_length_keep_their_shares() -> None:
    long_and_short = documents(*(" ".join(WORDS * (1 + number % 20)) + f" {number}" for number in range(200)))
    one, other = (draw(long_and_short, 40, seed) for seed in (0, 1))
    assert one != other
    lengths = sorted(len(d.text) for d in long_and_short)
    quarters = Counter(sum(len(long_and_short[p].text) > lengths[i] for i in (49, 99, 149)) for p in one)
    assert all(9 <= quarters[quarter] <= 11 for quarter in range(4))


# --- splits -----------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), min_size=4, max_size=60), st.integers())
def test_no_group_and_no_text_is_ever_parted(made: list[tuple[int, int]], seed: int) -> None:
    found = [Document(f"text {text}", f"d:{n}", group=f"g{group}") for n, (text, group) in enumerate(made)]
    try:
        sides = partition(found, 0.2, 0.2)
    except DatasetRefused:
        return
    assert sorted(place for places in sides.values() for place in places) == list(range(len(found)))
    assert sides.keys() == {"train", "validation", "test"}
    assert crossings([(name, [found[place] for place in places]) for name, places in sides.items()]) == []
    shuffled = random.Random(seed).sample(found, len(found))
    again = partition(shuffled, 0.2, 0.2)
    assert {n: {found[p].origin for p in places} for n, places in sides.items()} == {
        n: {shuffled[p].origin for p in places} for n, places in again.items()
    }


def test_without_a_test_split_the_division_is_the_trainers_own() -> None:
    found = documents(*texts(400))
    sides = partition(found, 0.1, 0.0)
    train, held_out = trainers_split(found, 0.1)
    assert [found[place].origin for place in sides["validation"]] == [d.origin for d in held_out]
    assert [found[place].origin for place in sides["train"]] == [d.origin for d in train]


def test_shares_are_about_what_was_asked_for_and_a_seed_divides_otherwise() -> None:
    found = documents(*(f"text number {number}" for number in range(4000)))
    sides = partition(found, 0.1, 0.2)
    assert len(sides["validation"]) == pytest.approx(400, abs=90)
    assert len(sides["test"]) == pytest.approx(800, abs=110)
    assert partition(found, 0.1, 0.2, seed=1) != sides


def test_what_cannot_be_parted_is_refused_and_small_sets_fill_every_split() -> None:
    with pytest.raises(DatasetRefused, match="too few for 3 splits"):
        partition(documents("a", "A ", "b"), 0.1, 0.1)
    sides = partition(documents("a", "b", "c"), 0.1, 0.1)
    assert {name: len(places) for name, places in sides.items()} == {"train": 1, "validation": 1, "test": 1}


def test_a_group_in_two_files_is_found_though_its_texts_differ() -> None:
    one, other = documents("a", "b", group="ann"), documents("c", group="ann")
    (found,) = crossings([("one", one), ("two", other)])
    assert (found.what, found.first, found.second) == ("group 'ann'", "d:1", "d:1")


# --- what is taught ---------------------------------------------------------------------------------------------------


def sample(labels: str) -> Sample:
    """`x` carries loss, `.` does not."""
    ids = np.arange(len(labels), dtype=np.int64)
    return Sample(ids, np.asarray([i if each == "x" else IGNORED for i, each in enumerate(labels)], dtype=np.int64))


@pytest.mark.parametrize(
    ("labels", "limit", "wanted"),
    [("..xx", None, "rrtt"), ("xxxx", None, "rttt"), ("..xx", 3, "rrtc"), ("..xx", 2, "rrcc"), ("", 4, "")],
)
def test_the_first_token_is_never_predicted_and_what_is_too_long_is_cut(
    labels: str, limit: int | None, wanted: str
) -> None:
    assert "".join("rtc"[kind] for kind in parts(sample(labels), limit)) == wanted


@pytest.mark.parametrize(
    ("labels", "chat", "limit", "words"),
    [
        (["....", "...."], True, None, ["No token carries loss"]),
        (["xxxx", "xxxx"], True, None, ["Every token carries loss"]),
        (["xxxx", "xxxx"], False, None, []),
        ([".xxx", "...x"], True, 3, ["1 of 2 documents have no token left"]),
        (["..xx", "..xx"], True, 4, []),
    ],
)
def test_a_share_of_none_or_all_is_told_aloud(
    labels: list[str], chat: bool, limit: int | None, words: list[str]
) -> None:
    whole = sums(documents(*labels), [sample(each) for each in labels], limit)
    found = warnings(whole, chat, limit)
    assert len(found) == len(words)
    assert all(word in message for word, message in zip(words, found, strict=True))


def test_the_share_is_taken_over_what_is_kept() -> None:
    whole = sums(documents("a", "b"), [sample("..xxxx"), sample("..xx")], 4)
    assert (whole.tokens, whole.trained, whole.share) == (8, 4, 0.5)
    assert (whole.cut_documents, whole.cut_tokens) == (1, 2)
    assert sums([], [], None).share is None


@given(st.integers(0, 50), st.integers(0, 10))
def test_documents_to_show_are_spread_from_the_first_on(count: int, wanted: int) -> None:
    places = spread(count, wanted)
    assert len(places) == min(count, wanted)
    assert places == sorted(set(places))
    assert not places or (places[0] == 0 and places[-1] < count)


def test_kinds_of_tokens_have_names() -> None:
    assert [str(part) for part in Part] == ["trained", "read", "cut"]


# --- checks -----------------------------------------------------------------------------------------------------------


def test_examples_of_personal_data_keep_its_shape_and_not_its_content() -> None:
    (found,) = checks.personal("train", documents("write to ann.lee@example.com today"), redacted=False)
    assert (found.severity, found.count) == (Severity.WARNING, 1)
    assert found.examples == ("d:1: a**.***@*******.***",)
    (found,) = checks.personal("train", documents("write to ann.lee@example.com today"), redacted=True)
    assert found.severity is Severity.NOTE


def test_labels_that_are_rare_missing_or_torn_are_found() -> None:
    train = [Document("a", "t:1", label="x"), Document("A", "t:2", label="y"), Document("b", "t:3", label="x")]
    held_out = [Document("c", "v:1", label="z")]
    found = list(checks.labels([("train", train), ("validation", held_out)], least=2))
    assert [(one.severity, one.examples) for one in found] == [
        (Severity.WARNING, ("'y': 1",)),
        (Severity.ERROR, ("'z'",)),
        (Severity.WARNING, ("t:1 'x', t:2 'y'",)),
    ]
    assert [one.severity for one in checks.labels([("train", train[::2])], least=1)] == [Severity.ERROR]


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ("su a", []),
        ("uus a", ["system turn stands after the first", "two turns of one role"]),
        ("aua", ["the assistant speaks first"]),
        ("uau", ["the last turn is not the assistant's"]),
    ],
)
def test_turns_in_an_order_that_is_rarely_meant_are_told(roles: str, words: list[str]) -> None:
    names = {"s": "system", "u": "user", "a": "assistant"}
    talk = tuple(Message(names[role], "words") for role in roles if role != " ")
    found = list(checks.turns("train", [Document("t", "d:1", messages=talk)]))
    assert len(found) == len(words)
    assert all(word in one.message for word, one in zip(words, found, strict=True))
