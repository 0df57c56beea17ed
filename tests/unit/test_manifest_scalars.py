"""Plain YAML scalars: the ones that everybody reads alike, and the ones that are refused."""

from __future__ import annotations

import math

import pytest

from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_bytes
from tollgate.manifest.reading import read_yaml
from tollgate.manifest.scalars import disagreement, plain

SAME = [
    ("null", None),
    ("~", None),
    ("Null", None),
    ("true", True),
    ("False", False),
    ("TRUE", True),
    ("0", 0),
    ("-0", 0),
    ("42", 42),
    ("+42", 42),
    ("-7", -7),
    ("0x1F", 31),
    ("1e-4", 1e-4),
    ("1E5", 1e5),
    ("2.5e+3", 2500.0),
    (".5", 0.5),
    ("2.", 2.0),
    ("010.5", 10.5),
    ("1.2.3", "1.2.3"),
    ("v1.0", "v1.0"),
    ("nan", "nan"),
    ("inf", "inf"),
    ("tRUE", "tRUE"),
    ("yEs", "yEs"),
    ("nope", "nope"),
    ("_1", "_1"),
    ("1__a", "1__a"),
    ("0x", "0x"),
    ("0xZZ", "0xZZ"),
    ("1e", "1e"),
    ("e5", "e5"),
    ("1-2", "1-2"),
    ("12:99", "12:99"),
    ("a:b", "a:b"),
    ("2024-01", "2024-01"),
    ("data/care_v2.jsonl", "data/care_v2.jsonl"),
]

DIFFERENT = [
    *("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF"),
    *("010", "00", "-07", "08", "0_7", "0o10", "0O7", "-0o7", "0b11", "0B1", "+0b1", "-0x1F", "+0x1", "0X1F", "0x1_F"),
    *("1:30", "-1:30", "190:20:30", "190:20:30.15", "1:0"),
    *("1_000", "-1_000", "1_", "1_000.5", "1.5_0", "1_0e5", "-_0", "0e-_2"),
    *("2024-01-01", "2024-1-1", "2024-01-01T10:00:00Z", "2024-01-01 10:00:00", "2024-01-01t10:00:00.5+01:00"),
    *("-.5", "+.5e3"),
    *("<<", "="),
]


@pytest.mark.parametrize(("text", "value"), SAME)
def test_readers_agree_on(text: str, value: object) -> None:
    assert disagreement(text) is None
    found = plain(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", DIFFERENT)
def test_readers_disagree_on(text: str) -> None:
    assert disagreement(text) is not None


@pytest.mark.parametrize("text", DIFFERENT)
def test_a_scalar_that_would_change_is_refused_with_line_field_value_and_fix(text: str) -> None:
    source = f"name: m\ndataset: {{path: d}}\ndescription:\n  {text}\n".encode()
    with pytest.raises(ManifestError) as refusal:
        load_bytes(source, "m.yaml")
    (problem,) = refusal.value.problems
    assert (problem.line, problem.field, problem.value) == (4, "description", text)
    assert f'Quote it: "{text}"' in problem.fix


@pytest.mark.parametrize("text", DIFFERENT)
def test_quoted_it_is_text(text: str) -> None:
    for quoted in (f'"{text}"', f"'{text}'"):
        loaded = load_bytes(f"name: m\ndataset: {{path: d}}\ndescription: {quoted}\n".encode(), "m.yaml")
        assert loaded.manifest.description == text


@pytest.mark.parametrize("key", ["on", "no", "010", "1", "true", "null", "1.5", "2024-01-01"])
def test_a_key_that_is_not_text_to_everybody_is_refused(key: str) -> None:
    (found,) = read_yaml(f"config:\n  {key}: a\n", "m.yaml").found
    assert found.path == ("config", key)
    assert found.problem.line == 2
    assert read_yaml(f'config:\n  "{key}": a\n', "m.yaml").value == {"config": {key: "a"}}


@pytest.mark.parametrize("text", [".inf", "-.Inf", ".NAN", "1e999", "-1e400", "9" * 400 + ".5"])
def test_what_is_not_finite_is_refused(text: str) -> None:
    assert not math.isfinite(plain(text))  # type: ignore[arg-type]
    source = f"name: m\ndataset: {{path: d}}\nhyperparameters: {{learning_rate: {text}}}\n".encode()
    with pytest.raises(ManifestError, match=r"hyperparameters\.learning_rate: this is not a finite number"):
        load_bytes(source, "m.yaml")
