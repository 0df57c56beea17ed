"""Laws of merging: an overlay is applied once however often, order is all that matters, nothing is changed in place."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tollgate.manifest.errors import ABSENT
from tollgate.manifest.overrides import Change, Override, apply, at, differences, merge

KEYS = st.sampled_from(["a", "b", "c", "seed", "precision"])
SCALARS = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["x", "y"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
PATCHES = st.dictionaries(KEYS, VALUES, max_size=4)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


DOCUMENTS = PATCHES.map(without_nulls)


@given(DOCUMENTS)
def test_nothing_over_a_document_is_the_document_and_it_over_nothing_too(document: dict[str, Any]) -> None:
    assert merge(document, {}) == document == merge({}, document)


@given(DOCUMENTS, PATCHES)
def test_a_patch_twice_is_a_patch_once(document: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge(document, patch)
    assert merge(once, patch) == once


@given(DOCUMENTS, PATCHES)
def test_after_a_patch_its_leaves_stand_there_and_its_nulls_do_not(
    document: dict[str, Any], patch: dict[str, Any]
) -> None:
    merged = merge(document, patch)

    def check(found: Any, asked: Any) -> None:
        if isinstance(asked, dict):
            for key, item in asked.items():
                check(at(found, (key,)), item)
        else:
            assert found == (ABSENT if asked is None else asked)

    check(merged, patch)


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_layers_may_be_merged_in_any_grouping(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    assume_mappings_stay = merge(merge(a, b), c)
    grouped = merge(a, merge(b, c))
    # A mapping under a scalar under a mapping is the one case where grouping shows; it can't occur in a typed document.
    if not _shadowed(a, b, c):
        assert grouped == assume_mappings_stay


def _shadowed(a: Any, b: Any, c: Any) -> bool:
    if not all(isinstance(value, dict) for value in (a, b, c)):
        return isinstance(a, dict) and isinstance(c, dict) and b is not ABSENT
    return any(_shadowed(at(a, (k,)), at(b, (k,)), at(c, (k,))) for k in {*a, *b, *c})


@given(DOCUMENTS, PATCHES)
def test_arguments_are_never_changed(document: dict[str, Any], patch: dict[str, Any]) -> None:
    before = copy.deepcopy((document, patch))
    merged = merge(document, patch)
    _spoil(merged)
    assert (document, patch) == before


def _spoil(value: Any) -> None:
    if isinstance(value, dict):
        for item in list(value.values()):
            _spoil(item)
        value["spoilt"] = True
    elif isinstance(value, list):
        for item in value:
            _spoil(item)
        value.append("spoilt")


@given(DOCUMENTS, st.lists(PATCHES, max_size=3))
def test_the_told_changes_lead_from_the_file_to_the_effective_document(
    document: dict[str, Any], patches: list[dict[str, Any]]
) -> None:
    effective, changes = apply(document, [[Override((), patch, f"layer {n}")] for n, patch in enumerate(patches)])
    replayed = copy.deepcopy(document)
    for change in changes:
        _put(replayed, change)
    assert _pruned(replayed) == _pruned(effective)
    assert list(differences(effective, effective)) == []


def _put(document: dict[str, Any], change: Change) -> None:
    *parents, last = change.path
    for part in parents:
        document = document.setdefault(part, {})  # type: ignore[arg-type]
    if change.after is ABSENT:
        document.pop(last)  # type: ignore[arg-type]
    else:
        document[last] = copy.deepcopy(change.after)  # type: ignore[index]


def _pruned(value: Any) -> Any:
    """Without empty sections, which a change of their last field may leave or not."""
    if not isinstance(value, dict):
        return value
    kept = {key: _pruned(item) for key, item in value.items()}
    return {key: item for key, item in kept.items() if item != {}}
