"""The loader: every way in, every refusal with its field and fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tollgate.contract import MAX_MANIFEST_BYTES
from tollgate.manifest.errors import ManifestError, Problem
from tollgate.manifest.loader import LoadedManifest, load_bytes, load_canonical, load_document, load_file
from tollgate.manifest.support import NOT_YET
from tollgate.manifest.writing import EXAMPLE

Document = dict[str, Any]
MINIMAL: Document = {"name": "m", "dataset": {"path": "train.jsonl"}}


def with_(field: str, value: Any) -> Document:
    document = json.loads(json.dumps(MINIMAL))
    *parents, last = field.split(".")
    at = document
    for part in parents:
        at = at.setdefault(part, {})
    at[last] = value
    return document


def refused(document: Any) -> list[Problem]:
    with pytest.raises(ManifestError) as refusal:
        load_document(document, "test")
    return refusal.value.problems


def from_text(text: str, name: str = "m.yaml") -> LoadedManifest:
    return load_bytes(text.encode(), name, is_json=name.endswith(".json"))


def refused_text(text: str, name: str = "m.yaml") -> list[Problem]:
    with pytest.raises(ManifestError) as refusal:
        from_text(text, name)
    return refusal.value.problems


# --- one manifest, all ways in ----------------------------------------------------------------------------------------


def test_name_and_dataset_path_are_enough() -> None:
    loaded = load_document(MINIMAL, "test")
    assert loaded.canonical == b'{"dataset":{"path":"train.jsonl"},"name":"m"}'
    assert loaded.manifest.hyperparameters.learning_rate == 5e-5


def test_yaml_json_and_parsed_documents_have_one_digest() -> None:
    text = """
name: m
dataset: {path: train.jsonl, size_bytes: 10}
description: null
hyperparameters: {learning_rate: 1e-4, num_train_epochs: 3.0, max_steps: 10.0}
resources:
"""
    as_yaml = from_text(text)
    as_json = from_text(
        '{"hyperparameters": {"max_steps": 10, "num_train_epochs": 3, "learning_rate": 0.0001}, "dataset":'
        ' {"size_bytes": 1e1, "path": "train.jsonl"}, "name": "m"}',
        "m.json",
    )
    parsed = load_document(as_yaml.document | {"seed": None}, "API server")
    assert as_yaml.digest == as_json.digest == parsed.digest
    assert as_yaml.manifest == as_json.manifest == parsed.manifest
    assert as_yaml.manifest.hyperparameters.max_steps == 10


def test_the_pod_reads_exactly_the_canonical_bytes() -> None:
    loaded = load_document(with_("hyperparameters.learning_rate", 1e-4), "test")
    again = load_canonical(loaded.canonical, loaded.digest, "/etc/tollgate/manifest.json")
    assert (again.manifest, again.digest) == (loaded.manifest, loaded.digest)


def test_other_bytes_are_refused_in_the_pod() -> None:
    loaded = load_document(MINIMAL, "test")
    changed = loaded.canonical.replace(b"train", b"other")
    with pytest.raises(ManifestError, match="not sha256:"):
        load_canonical(changed, loaded.digest, "pod")
    with pytest.raises(ManifestError, match="not in canonical form"):
        load_canonical(json.dumps(MINIMAL, indent=1).encode(), None, "pod")


def test_a_training_run_file_is_loaded_by_its_manifest(tmp_path: Path) -> None:
    run = {
        "apiVersion": "tollgate.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "counsel"},
        "spec": {"manifest": MINIMAL, "storage": {}},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run), encoding="utf-8")
    loaded = load_file(path)
    assert loaded.digest == load_document(MINIMAL, "test").digest
    assert loaded.source == f"{path} (spec.manifest of TrainingRun counsel)"


def test_in_a_training_run_only_the_manifest_is_judged_and_lines_are_those_of_the_file() -> None:
    text = """\
apiVersion: tollgate.dev/v1alpha1
kind: TrainingRun
metadata: {name: counsel, labels: {a: yes}}
spec:
  manifest:
    name: m
    dataset: {path: d}
    hyperparameters:
      learning_rat: 1
      max_steps: 0
"""
    problems = refused_text(text)
    assert [(p.line, p.field) for p in problems] == [
        (9, "hyperparameters.learning_rat"),
        (10, "hyperparameters.max_steps"),
    ]
    (problem,) = refused_text(text.replace("name: m\n", "name: on\n"))
    assert (problem.line, problem.field, problem.value) == (6, "name", "on")


def test_the_example_of_init_loads() -> None:
    assert from_text(EXAMPLE).manifest.name == "my-model"


# --- the wrong file ---------------------------------------------------------------------------------------------------

WRONG = [
    ("", "this file is empty"),
    ("# only a comment\n", "this holds nothing"),
    ("---\n", "this holds nothing"),
    ("- a\n- b\n", "this holds a list"),
    ("just words\n", "this holds one value"),
    ("name: a\n---\nname: b\n", "more than one YAML document"),
    ("%YAML 1.1\n---\nname: a\n", "YAML directives are not read here"),
    ("name: a\n\tb: c\n", "this is not YAML"),
    ("name: [a\n", "this is not YAML"),
    ("name: a\nname: b\n", "this key is given twice, first in line 1"),
    ("name: &x a\nversion: *x\n", "anchors (&x) are not read here"),
    ("name: !!str 5\n", "tags (tag:yaml.org,2002:str) are not read here"),
    ("name: !custom 5\n", "tags (!custom) are not read here"),
    ("? [a, b]\n: c\n", "is not text"),
    ("name: a\x07b\n", "U+0007 may not stand in YAML"),
    ('name: "a\u2028b"\n', "a line break in YAML 1.1"),
    ('name: "a\\x07b"\n', "this text holds U+0007"),
    ('name: "\\ud800"\n', "this text holds U+D800"),
    ("a: " + "[" * 70 + "]" * 70, "nested too deeply"),
    ("kind: ConfigMap\napiVersion: v1\n", "this is a ConfigMap of v1"),
    ("kind: TrainingRun\napiVersion: tollgate.dev/v2\n", "this is a TrainingRun of tollgate.dev/v2"),
    ("kind: TrainingRun\napiVersion: tollgate.dev/v1alpha1\nspec: {}\n", "this TrainingRun has no manifest"),
]
WRONG_JSON = [
    ('{"name": "a", "name": "b"}', "this key is given twice"),
    ('{"name": "a"', "this is not JSON"),
    ("name: a", "this is not JSON"),
    ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ('{"name": "m", "dataset": {"path": "d"}, "tf32": NaN}', "this is not a finite number"),
    ('{"name": "m", "dataset": {"path": "d"}, "seed": 9007199254740992}', "lose digits on the way"),
    ('{"name": "m", "dataset": {"path": "d"}, "seed": ' + "9" * 5000 + "}", "not JSON that can be read"),
    ('{"name": "\\ud83d", "dataset": {"path": "d"}}', "this text holds U+D83D"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_yaml_file_is_named_for_what_it_is(text: str, message: str) -> None:
    assert any(message in str(problem) for problem in refused_text(text))


@pytest.mark.parametrize(("text", "message"), WRONG_JSON)
def test_a_wrong_json_file_is_named_for_what_it_is(text: str, message: str) -> None:
    assert any(message in str(problem) for problem in refused_text(text, "m.json"))


def test_bytes_that_are_not_utf_8_are_refused_with_their_line() -> None:
    with pytest.raises(ManifestError, match="line 2: this is not UTF-8"):
        load_bytes(b"name: a\nversion: \xff\n", "m.yaml")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ManifestError, match="cannot be read"):
            load_file(path)


def test_a_text_of_megabytes_is_not_even_parsed() -> None:
    with pytest.raises(ManifestError, match="at most 1048576"):
        load_bytes(b"#" * (1024 * 1024 + 1), "m.yaml")


def test_json_in_a_yaml_file_is_read_as_kubectl_reads_it() -> None:
    assert from_text('{"name": "\\ud83d\\ude00", "dataset": {"path": "d"}}').manifest.name == "\U0001f600"
    assert from_text("{name: m, dataset: {path: d}}").manifest.name == "m"


# --- fields -----------------------------------------------------------------------------------------------------------

FIELDS = [
    ("name", 5, "this must be text", "Put the value in quotes"),
    ("name", "", "this text is too short", "at least 1"),
    ("hyperparameters.max_steps", "3", "this must be a whole number", "without quotes"),
    ("hyperparameters.max_steps", 2.5, "this must be a whole number", "whole number"),
    ("hyperparameters.max_steps", True, "this must be a whole number", "whole number"),
    ("hyperparameters.max_steps", 0, "this must be at least 1", "larger"),
    ("hyperparameters.learning_rate", "1e-4", "this must be a number", "without quotes"),
    ("hyperparameters.learning_rate", 0, "this must be more than 0", "larger"),
    ("hyperparameters.learning_rate", False, "this must be a number", "Write a number"),
    ("hyperparameters.packing", "maybe", "true or false", "Write true, false or 'auto'"),
    ("hyperparameters", [], "this must be a mapping", "key: value"),
    ("reproducibility.deterministic", "true", "this must be true or false", "without quotes"),
    ("reproducibility.seed", 2**32, "this must be less than", "smaller"),
    ("adapter.dropout", 1, "this must be less than 1", "smaller"),
    ("dataset.splits.validation", 1.5, "this must be at most 1", "smaller"),
    ("dataset.sha256", "abc", "another form", "must match"),
    ("evaluation.suites", [], "this list is too short", "at least 1"),
    ("evaluation.suites", "standard", "this must be a list", "[item, ...]"),
    ("compute_target", "tpu", "none of the values", "'cpu', 'gpu_single', 'gpu_multi' or 'cloud_gpu'"),
    ("resources.max_budget_usd", -1, "not an amount in USD", "not negative"),
    ("resources.max_budget_usd", "-1", "not an amount in USD", "not negative"),
    ("resources.max_budget_usd", "1 USD", "not an amount in USD", "decimal string"),
    ("resources.max_budget_usd", 1e-7, "not an amount in USD", "6 decimals"),
    ("resources.max_budget_usd", True, "not an amount in USD", "decimal string"),
    ("safety_metrics", [None], "a list may not hold null", "Remove"),
]


@pytest.mark.parametrize(("field", "value", "message", "fix"), FIELDS)
def test_a_bad_field_is_refused_with_field_value_and_fix(field: str, value: Any, message: str, fix: str) -> None:
    (problem,) = refused(with_(field, value))
    assert problem.field.startswith(field)
    assert message in problem.message + problem.fix
    assert fix in problem.fix


UNKNOWN = [
    ("hyperparameters.learning_rat", "Did you mean hyperparameters.learning_rate?"),
    ("hyperparameters.learningRate", "Fields are written in snake_case: write learning_rate."),
    ("hyperparameters.lr", f"{'The nearest field here is'}"),
    ("learning_rate", "Did you mean hyperparameters.learning_rate? It stands below `hyperparameters`."),
    ("hyperparameters.seed", "It stands at the top."),
    ("max_budget", "Did you mean resources.max_budget_usd?"),
    ("datasets", "Did you mean dataset?"),
    ("dataset.pth", "Did you mean dataset.path?"),
]


@pytest.mark.parametrize(("field", "fix"), UNKNOWN)
def test_an_unknown_key_names_the_nearest_known_one(field: str, fix: str) -> None:
    (problem,) = refused(with_(field, 1))
    assert (problem.field, problem.message) == (field, "there is no such field")
    assert fix in problem.fix


def test_all_problems_are_told_at_once() -> None:
    fields = {problem.field for problem in refused({"dataset": {}, "hyperparameters": {"max_steps": 0, "x": 1}})}
    assert fields == {"name", "dataset.path", "hyperparameters.max_steps", "hyperparameters.x"}


@pytest.mark.parametrize(
    ("value", "micro"), [(180, 180_000_000), (180.1, 180_100_000), ("180.10", 180_100_000), (0.000001, 1)]
)
def test_money_is_exact(value: Any, micro: int) -> None:
    assert load_document(with_("resources.max_budget_usd", value), "test").manifest.resources.max_budget_usd == micro


def test_a_manifest_over_32_kib_is_refused_with_its_size_and_its_largest_part() -> None:
    fits = with_(
        "description", "x" * (MAX_MANIFEST_BYTES - len(load_document(with_("description", ""), "t").canonical))
    )
    assert len(load_document(fits, "test").canonical) == MAX_MANIFEST_BYTES
    (problem,) = refused(fits | {"description": fits["description"] + "x"})
    assert f"{MAX_MANIFEST_BYTES + 1} bytes" in problem.message
    assert "`description`" in problem.fix


# --- short forms ------------------------------------------------------------------------------------------------------


def test_short_forms_end_in_the_long_fields() -> None:
    document = MINIMAL | {"seed": 7, "evaluation_enabled": False, "hyperparameters": {"bf16": True}}
    manifest = load_document(document, "test").manifest
    assert manifest.reproducibility.seed == 7
    assert manifest.evaluation.enabled is False
    assert manifest.precision == "bf16"
    assert (manifest.seed, manifest.evaluation_enabled, manifest.hyperparameters.bf16) == (None, None, None)


PRECISION = [
    ({"bf16": True}, None, "bf16"),
    ({"bf16": True}, "bf16", "bf16"),
    ({"bf16": True, "fp16": False}, None, "bf16"),
    ({"bf16": False}, None, "fp32"),
    ({"bf16": False, "fp16": False}, None, "fp32"),
    ({"fp16": False}, "bf16", "bf16"),
    ({"bf16": True, "fp16": True}, None, "hyperparameters.fp16"),
    ({"bf16": True}, "fp32", "precision"),
    ({"bf16": True}, "auto", "precision"),
    ({"bf16": False}, "bf16", "precision"),
    ({"bf16": False}, "auto", "precision"),
    ({"fp16": False}, "fp16", "precision"),
]


@pytest.mark.parametrize(("flags", "precision", "expected"), PRECISION)
def test_bf16_and_fp16_against_precision(flags: Document, precision: str | None, expected: str) -> None:
    document = MINIMAL | {"hyperparameters": flags, "precision": precision}
    if expected in ("bf16", "fp32"):
        assert load_document(document, "test").manifest.precision == expected
    else:
        (problem,) = refused(document)
        assert expected in problem.message


CONTRADICTIONS: list[tuple[Document, str, str]] = [
    ({"seed": 1, "reproducibility": {"seed": 2}}, "seed", "reproducibility.seed (2)"),
    (
        {"evaluation_enabled": True, "evaluation": {"enabled": False}},
        "evaluation_enabled",
        "evaluation.enabled (false)",
    ),
    ({"wandb_logging": False, "tracking": {"wandb": {}}}, "wandb_logging", "tracking.wandb"),
    ({"wandb_project": "a", "tracking": {"wandb": {"project": "b"}}}, "wandb_project", "tracking.wandb.project (b)"),
    ({"hyperparameters": {"warmup_steps": 0, "warmup_ratio": 0.1}}, "hyperparameters.warmup_steps", "warmup_ratio"),
    ({"model": {"base": "a", "config": {}}}, "model.base", "model.config"),
]


@pytest.mark.parametrize(("part", "field", "other"), CONTRADICTIONS)
def test_two_spellings_that_differ_are_refused_naming_both(part: Document, field: str, other: str) -> None:
    (problem,) = refused(MINIMAL | part)
    assert problem.field == field
    assert other in problem.message


def test_two_spellings_that_agree_are_fine() -> None:
    part = {"seed": 2, "reproducibility": {"seed": 2}, "wandb_logging": False, "wandb_project": "unused"}
    assert load_document(MINIMAL | part, "test").manifest.reproducibility.seed == 2


def test_adapter_fields_without_an_adapter_are_refused() -> None:
    (problem,) = refused(with_("adapter.rank", 8))
    assert (problem.field, problem.fix) == ("adapter.rank", "Write `type: lora`, or remove it.")


# --- what this version does not do ------------------------------------------------------------------------------------

NOT_IN_THIS_VERSION: list[tuple[str, Any]] = [
    ("framework", "openai"),
    ("safety_metrics", ["toxicity"]),
    ("model.trust_remote_code", True),
    ("log_dir", "logs"),
    ("tracking.comet", {}),
]


@pytest.mark.parametrize(("field", "value"), NOT_IN_THIS_VERSION)
def test_what_has_no_effect_yet_is_refused_aloud(field: str, value: Any) -> None:
    (problem,) = refused(with_(field, value))
    assert (problem.field, problem.value) == (field, value)
    assert "this version of Tollgate does not do this yet" in problem.message


def test_every_row_of_the_table_is_tested() -> None:
    tested = {field for field, _ in NOT_IN_THIS_VERSION}
    assert {row.field for row in NOT_YET} == tested
