"""What options ask of a manifest before anything is started: quick tests, records, and checkpoints to start from."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_bytes
from tollgate_cli.wishes import Wishes, effective
from tollgate_trainer.laptop.preparation import LaptopError
from tollgate_trainer.laptop.starting_point import find, take
from tollgate_trainer.lifecycle.checkpoints import Checkpoints, Identity, committed

OURS, OTHER, DATA = "sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha256:" + "d" * 64
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
TEXT = """
name: m
dataset: {path: d.json, limit: 10}
hyperparameters: {max_steps: 500, gradient_accumulation_steps: 16, max_seq_length: 128, per_device_train_batch_size: 3}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.yaml"
    path.write_text(TEXT)
    return path


def test_a_quick_test_shrinks_time_and_data_and_leaves_what_decides_whether_it_works(file: Path) -> None:
    found = effective(file, Wishes(quick_test=True), {})
    asked, manifest = found.loaded.manifest.hyperparameters, found.loaded.manifest
    assert (asked.max_steps, asked.save_steps, asked.eval_steps, asked.gradient_accumulation_steps) == (4, 2, 2, 2)
    assert (asked.max_seq_length, asked.per_device_train_batch_size) == (128, 3)
    assert manifest.dataset.limit == 10, "less than the quick test's own limit"
    assert {change.origin for change in found.changes} == {"--quick-test"}


def test_options_beat_the_quick_test_and_the_quick_test_beats_the_environment(file: Path) -> None:
    environ = {"TOLLGATE_SET_hyperparameters__save_steps": "100", "TOLLGATE_SET_seed": "5"}
    manifest = effective(file, Wishes(quick_test=True, max_steps=8), environ).loaded.manifest
    assert (manifest.hyperparameters.max_steps, manifest.hyperparameters.save_steps) == (8, 2)
    assert manifest.reproducibility.seed == 5


def test_the_record_loads_as_what_was_trained_and_says_where_each_change_came_from(file: Path) -> None:
    overlay = file.with_name("over.yaml")
    overlay.write_text("description: |\n  two\n  lines\n")
    found = effective(file, Wishes(overlay, ("tf32=false",), learning_rate=1e-4), {"TOLLGATE_SET_seed": "5"})
    record = found.record()
    assert load_bytes(record.encode(), "record").digest == found.loaded.digest
    for origin in (f"overlay {overlay}", "environment TOLLGATE_SET_seed", "--learning-rate 0.0001", "--set tf32=false"):
        assert any(line.startswith("# changed: ") and f"({origin})" in line for line in record.splitlines())


def test_the_arguments_that_are_told_for_going_on_ask_for_the_same_document(file: Path) -> None:
    wishes = Wishes(None, ("tf32=false", "name=other"), 7, 1e-4)
    assert wishes.arguments() == [
        *("--max-steps", "7", "--learning-rate", "0.0001", "--set", "tf32=false", "--set", "name=other")
    ]


def test_a_flag_and_a_setting_of_the_same_field_are_refused(file: Path) -> None:
    with pytest.raises(ManifestError, match="also set to 7 by --max-steps 7"):
        effective(file, Wishes(settings=("hyperparameters.max_steps=8",), max_steps=7), {})


# --- --resume PATH ----------------------------------------------------------------------------------------------------


def run_with(root: Path, *steps: int, content: str = "weights", manifest: str = OURS) -> Path:
    checkpoints = Checkpoints(root, Identity("u", 1, 1, 8, manifest, DATA), lambda: None)
    for step in steps:
        (checkpoints.prepare(step) / "model.bin").write_text(f"{content} {step}")
        checkpoints.commit(step, ["model.bin"])
    return root


def steps(root: Path) -> list[int]:
    return [one.commit.step for one in committed(root / "checkpoints")]


def test_a_checkpoint_from_elsewhere_becomes_the_newest_and_later_work_is_moved_aside(tmp_path: Path) -> None:
    theirs, ours = run_with(tmp_path / "theirs", 5, 10, content="their"), run_with(tmp_path / "ours", 5, 10, 15)
    (ours / "model").mkdir()
    told = take(find(theirs / "checkpoints" / "checkpoint-10"), ours, OURS, NOW)
    assert steps(ours) == [10, 5]
    assert (ours / "checkpoints/checkpoint-10/model.bin").read_text() == "their 10"
    aside = ours / "previous-20300102T030405Z"
    assert sorted(path.name for path in (aside / "checkpoints").iterdir()) == ["checkpoint-10", "checkpoint-15"]
    assert (aside / "model").is_dir()
    assert "step 10" in told
    assert aside.name in told
    assert steps(theirs) == [10, 5], "what it came from stays"


def test_an_earlier_checkpoint_of_the_same_run_is_gone_back_to(tmp_path: Path) -> None:
    ours = run_with(tmp_path, 5, 10)
    take(find(ours / "checkpoints" / "checkpoint-5"), ours, OURS, NOW)
    assert steps(ours) == [5]
    assert (ours / "previous-20300102T030405Z/checkpoints/checkpoint-10/COMMIT.json").exists()


def test_a_run_s_folder_means_its_newest_whole_checkpoint(tmp_path: Path) -> None:
    theirs = run_with(tmp_path / "theirs", 5, 10)
    (theirs / "checkpoints/checkpoint-10/model.bin").write_text("damaged!!")
    assert find(theirs).commit.step == 5
    take(find(theirs), tmp_path / "new", OURS, NOW)
    assert steps(tmp_path / "new") == [5]
    assert not list((tmp_path / "new").glob("previous-*"))


def test_what_is_no_checkpoint_damaged_or_of_another_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaptopError, match="no whole checkpoint is there; name a folder"):
        find(tmp_path / "nowhere")
    theirs = run_with(tmp_path / "theirs", 5, manifest=OTHER)
    with pytest.raises(LaptopError, match=r"made by another manifest \(sha256:bbb.*, this one is sha256:aaa"):
        take(find(theirs), run_with(tmp_path / "ours", 7), OURS, NOW)
    assert steps(tmp_path / "ours") == [7], "a refusal changes nothing"
    shutil.copytree(theirs, tmp_path / "damaged")
    (tmp_path / "damaged/checkpoints/checkpoint-5/model.bin").unlink()
    with pytest.raises(LaptopError, match=r"damaged: model.bin is missing"):
        find(tmp_path / "damaged/checkpoints/checkpoint-5")
