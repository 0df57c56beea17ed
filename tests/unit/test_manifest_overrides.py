"""Overrides as people type them: typed by the schema, the later layer wins, every change is told with its origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tollgate.manifest.errors import ABSENT, ManifestError
from tollgate.manifest.loader import load_document, load_file, load_overridden
from tollgate.manifest.overrides import Change, Override, apply, from_environment, setting

BASE: dict[str, Any] = {"name": "m", "dataset": {"path": "d"}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("name=123", "123"),
        ("version=1.0", "1.0"),
        ("description=", ""),
        ("dataset.created_at=2024-01-02", "2024-01-02"),
        ("name=a=b", "a=b"),
        ("hyperparameters.learning_rate=1e-4", 1e-4),
        ("hyperparameters.learning_rate=3", 3),
        ("hyperparameters.max_steps=7", 7),
        ("hyperparameters.packing=true", True),
        ("hyperparameters.packing=auto", "auto"),
        ("hyperparameters.gradient_checkpointing=false", False),
        ("hyperparameters.optimizer.betas=[0.9, 0.95]", [0.9, 0.95]),
        ("adapter.target_modules=[q_proj, v_proj]", ["q_proj", "v_proj"]),
        ("model.config.hidden_size=64", 64),
        ("model.config.model_type=llama", "llama"),
        ("resources.max_budget_usd=4.5", 4.5),
        ("model.base=null", None),
        ("early_stopping={patience: 2}", {"patience": 2}),
    ],
)
def test_a_setting_has_the_type_of_its_field(text: str, value: Any) -> None:
    found = setting(text)
    assert (found.value, type(found.value)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hyperparameters.learning_rat=1", "Did you mean hyperparameters.learning_rate?"),
        ("learning_rate=1", "Did you mean hyperparameters.learning_rate? It stands below `hyperparameters`."),
        ("hyperparameters.learningRate=1", "write learning_rate"),
        ("hyperparameters.learning_rate.x=1", "there is no such field"),
        ("max_steps", "this is not FIELD=VALUE"),
        ("=3", "this is not FIELD=VALUE"),
        ("hyperparameters.gradient_checkpointing=no", "YAML readers disagree on this value"),
        ("early_stopping={patience: ", "this is not YAML"),
        ("name[0]=x", "Only lists are indexed"),
    ],
)
def test_a_setting_that_cannot_be_one_is_refused_with_the_fix(text: str, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        setting(text)
    assert words in str(caught.value)
    assert f"--set {text}" in str(caught.value)


def test_a_value_of_the_wrong_type_is_refused_by_the_loader_with_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("name: m\ndataset: {path: d}\n")
    with pytest.raises(ManifestError, match=r"with --set hyperparameters.max_steps=many: .*must be a whole number"):
        load_overridden(file, None, [[setting("hyperparameters.max_steps=many")]])


def test_the_environment_is_read_by_its_prefix_alone() -> None:
    environ = {"TOLLGATE_SET_hyperparameters__max_steps": "3", "TOLLGATE_SET_name": "x", "TOLLGATE_RUN": "r", "A": "b"}
    assert [(o.path, o.value) for o in from_environment(environ)] == [
        (("hyperparameters", "max_steps"), 3),
        (("name",), "x"),
    ]
    with pytest.raises(ManifestError, match="environment TOLLGATE_SET_nam: nam: there is no such field"):
        from_environment({"TOLLGATE_SET_nam": "x"})
    with pytest.raises(ManifestError, match="this variable is empty"):
        from_environment({"TOLLGATE_SET_seed": ""})


def test_file_then_overlay_then_environment_then_options(tmp_path: Path) -> None:
    file, overlay = tmp_path / "m.yaml", tmp_path / "o.yaml"
    file.write_text(
        "name: m\ndataset: {path: d}\nhyperparameters: {learning_rate: 1e-1, max_steps: 1, save_steps: 1}\n"
    )
    overlay.write_text("hyperparameters: {learning_rate: 1e-2, max_steps: 2, eval_steps: 2}\n")
    environ = {"TOLLGATE_SET_hyperparameters__learning_rate": "1e-3"}
    layers = [from_environment(environ), [setting("hyperparameters.learning_rate=1e-4")]]
    loaded, changes = load_overridden(file, overlay, layers)
    asked = loaded.manifest.hyperparameters
    assert (asked.learning_rate, asked.max_steps, asked.save_steps, asked.eval_steps) == (1e-4, 2, 1, 2)
    written = {
        "name": "m",
        "dataset": {"path": "d"},
        "hyperparameters": {"learning_rate": 1e-4, "max_steps": 2, "save_steps": 1, "eval_steps": 2},
    }
    assert loaded.digest == load_document(written, "by hand").digest, "the digest is of the effective document"
    assert list(map(str, changes)) == [
        f"hyperparameters.learning_rate: 0.1 -> 0.01 (overlay {overlay})",
        f"hyperparameters.max_steps: 1 -> 2 (overlay {overlay})",
        f"hyperparameters.eval_steps: absent -> 2 (overlay {overlay})",
        "hyperparameters.learning_rate: 0.01 -> 0.001 (environment TOLLGATE_SET_hyperparameters__learning_rate)",
        "hyperparameters.learning_rate: 0.001 -> 0.0001 (--set hyperparameters.learning_rate=1e-4)",
    ]


def test_without_overrides_the_file_alone_speaks_and_keeps_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("name: m\ndataset: {path: d}\n")
    assert load_overridden(file, None, []) == (load_file(file), [])
    file.write_text("name: m\ndataset: {path: d}\nseed: x\n")
    with pytest.raises(ManifestError, match="line 3, seed"):
        load_overridden(file, None, [[setting("name=n")]])


@pytest.mark.parametrize(
    ("below", "text"),
    [
        ({"seed": 1}, "reproducibility.seed=2"),
        ({"reproducibility": {"seed": 1}}, "seed=2"),
        ({"hyperparameters": {"bf16": True}}, "precision=fp32"),
        ({"precision": "fp32"}, "hyperparameters.bf16=true"),
        ({"hyperparameters": {"warmup_ratio": 0.1}}, "hyperparameters.warmup_steps=5"),
        ({"model": {"config": {"model_type": "llama"}}}, "model.base=models/base"),
        ({"model": {"base": "b", "revision": "main"}}, "model.config={model_type: llama}"),
        ({"evaluation": {"enabled": True}}, "evaluation_enabled=false"),
    ],
)
def test_an_override_replaces_the_other_spelling_instead_of_contradicting_it(below: dict[str, Any], text: str) -> None:
    document, changes = apply(BASE | below, [[setting(text)]])
    load_document(document, "effective")
    assert [change.origin for change in changes] == [f"--set {text}"] * len(changes)
    assert any(change.after is ABSENT for change in changes), "what was taken away is told"


def test_epochs_beat_the_steps_that_the_file_gave_or_they_would_have_no_effect() -> None:
    below = BASE | {"hyperparameters": {"max_steps": 10}}
    document, _ = apply(below, [[setting("hyperparameters.num_train_epochs=1")]])
    assert document["hyperparameters"] == {"num_train_epochs": 1}


def test_two_options_that_give_one_field_two_values_are_refused_naming_both() -> None:
    flag = Override(("hyperparameters", "max_steps"), 5, "--max-steps 5")
    with pytest.raises(ManifestError, match=r"also set to 5 by --max-steps 5 \(found 6\)"):
        apply(BASE, [[flag, setting("hyperparameters.max_steps=6")]])
    same = setting("hyperparameters.max_steps=5")
    assert apply(BASE, [[flag, same]])[0]["hyperparameters"] == {"max_steps": 5}


def test_one_item_of_a_list_is_set_by_its_index_and_no_other() -> None:
    below = BASE | {"hyperparameters": {"optimizer": {"betas": [0.9, 0.99]}}}
    document, changes = apply(below, [[setting("hyperparameters.optimizer.betas[1]=0.95")]])
    assert document["hyperparameters"]["optimizer"]["betas"] == [0.9, 0.95]
    assert changes == [
        Change(
            ("hyperparameters", "optimizer", "betas"),
            [0.9, 0.99],
            [0.9, 0.95],
            "--set hyperparameters.optimizer.betas[1]=0.95",
        )
    ]
    with pytest.raises(ManifestError, match="this list has 2 item"):
        apply(below, [[setting("hyperparameters.optimizer.betas[2]=0.95")]])


def test_an_overlay_removes_by_null_and_turns_a_section_on_by_an_empty_one() -> None:
    below = BASE | {"early_stopping": {"patience": 4}, "tf32": False}
    document, _ = apply(below, [[Override((), {"early_stopping": None, "tf32": None}, "overlay")]])
    assert document == BASE
    document, changes = apply(BASE, [[Override((), {"early_stopping": {}}, "overlay")]])
    assert load_document(document, "effective").manifest.early_stopping is not None
    assert [change.path for change in changes] == [("early_stopping",)]
