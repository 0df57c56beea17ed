"""Laws of the loader: whatever a document says, every way in agrees on it."""

from __future__ import annotations

import json
import math
import string
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.manifest import canonical
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_bytes, load_canonical, load_document
from tollgate.manifest.normal import MAX_INTEGER, normalise
from tollgate.manifest.reading import read_bytes, read_yaml
from tollgate.manifest.scalars import disagreement, plain
from tollgate.manifest.writing import to_yaml

# Text that the loader takes: no control characters, no surrogates, no byte order mark, no non-characters.
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff\ufffe\uffff"), max_size=20)
NUMBERS = st.one_of(
    st.integers(-MAX_INTEGER, MAX_INTEGER),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-float(MAX_INTEGER), max_value=float(MAX_INTEGER)),
)
SCALARS = st.one_of(st.booleans(), NUMBERS, TEXT)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, st.none() | inner, max_size=4))
)
CONFIGS = st.dictionaries(TEXT, st.none() | VALUES, max_size=5)
# What plain scalars that look like numbers, dates and words are made of.
SCALAR_TEXT = st.text("0123456789abefnosxyEINOTXY_.:+-~= ", min_size=1, max_size=10).map(str.strip).filter(bool)


def manifest(config: dict[str, Any]) -> dict[str, Any]:
    return {"name": "m", "dataset": {"path": "d"}, "model": {"config": config}}


def same(left: Any, right: Any) -> bool:
    """Equal in value and in type, so that 1, 1.0 and true are three things."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@given(CONFIGS)
def test_yaml_json_and_parsed_documents_agree(config: dict[str, Any]) -> None:
    parsed = load_document(manifest(config), "parsed")
    as_json = load_bytes(json.dumps(manifest(config)).encode(), "m.json", is_json=True)
    as_yaml = load_bytes(to_yaml(manifest(config)).encode(), "m.yaml")
    assert parsed.canonical == as_json.canonical == as_yaml.canonical
    assert same(parsed.document, as_yaml.document)
    assert load_canonical(parsed.canonical, parsed.digest, "pod").manifest == parsed.manifest


@given(CONFIGS)
def test_the_canonical_bytes_read_back_as_the_document(config: dict[str, Any]) -> None:
    document, found = normalise(config)
    assert not found
    data = canonical.serialise(document)
    assert same(json.loads(data), document)
    assert same(normalise(json.loads(data))[0], document)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_itself(value: float) -> None:
    text = canonical.number(value)
    assert float(text) == value
    # ECMAScript: no exponent from 1e-6 up to 1e21, and never a superfluous zero
    assert ("e" in text) == (value != 0 and not 1e-6 <= abs(value) < 1e21)
    assert not text.endswith(".0")
    assert len(text.lstrip("-").replace(".", "").split("e")[0].strip("0")) <= 17


@given(st.integers(-MAX_INTEGER, MAX_INTEGER))
def test_an_integer_is_written_in_full(value: int) -> None:
    assert canonical.number(value) == canonical.number(float(value)) == str(value)


@given(st.dictionaries(TEXT, st.integers(0, 9)))
def test_the_order_of_keys_does_not_matter(document: dict[str, int]) -> None:
    backwards = dict(reversed(document.items()))
    assert canonical.serialise(document) == canonical.serialise(backwards)


@given(CONFIGS)
def test_nulls_do_not_change_the_digest(config: dict[str, Any]) -> None:
    without = {key: value for key, value in config.items() if value is not None}
    assert load_document(manifest(config), "a").digest == load_document(manifest(without), "b").digest


@settings(max_examples=1000)
@given(SCALAR_TEXT)
def test_an_accepted_plain_scalar_means_the_same_to_pyyaml(text: str) -> None:
    try:
        reading = read_yaml(f"a: {text}\n", "m")
        theirs = yaml.safe_load(f"a: {text}\n")
    except (ManifestError, yaml.YAMLError, ValueError):
        return  # not one scalar, or a date that does not exist: refused by one of the two
    if reading.found or not isinstance(theirs, dict) or not isinstance(theirs.get("a"), str | int | float | None):
        return
    ours = reading.value["a"]
    if isinstance(ours, float) and isinstance(theirs["a"], str):
        # The one known difference: YAML 1.1 wants a point and a signed exponent (1e-4, 1.5e3).
        assert "e" in text.lower()
        return
    assert same(ours, theirs["a"]) or (isinstance(ours, float) and math.isnan(ours) and math.isnan(theirs["a"]))


@settings(max_examples=500)
@given(st.one_of(SCALAR_TEXT, TEXT, st.text(string.printable.replace("\x0b", "").replace("\x0c", ""), max_size=30)))
def test_what_is_written_is_read_back_by_us_and_by_pyyaml(text: str) -> None:
    document = {"a": text, "b": [text]}
    written = to_yaml(document)
    reading = read_bytes(written.encode(), "m")
    assert not reading.found
    assert reading.value == document
    assert yaml.safe_load(written) == document


@given(SCALAR_TEXT)
def test_every_plain_scalar_has_a_meaning_or_a_disagreement(text: str) -> None:
    if disagreement(text) is None:
        assert plain(text) is None or isinstance(plain(text), str | int | float)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_manifest_or_a_refusal_that_can_be_shown(data: bytes) -> None:
    for is_json in (True, False):
        refusal: ManifestError | None = None
        try:
            load_bytes(data, "m", is_json=is_json)
        except ManifestError as error:
            refusal = error
        assert refusal is None or (refusal.problems and str(refusal).startswith("m: "))
