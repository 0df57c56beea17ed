"""Configurations from elsewhere: three shapes, nothing dropped silently, and the result is a manifest."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tollgate.manifest.errors import ManifestError
from tollgate.manifest.foreign.importing import HIDDEN, Imported, import_files
from tollgate.manifest.foreign.leaves import Leaf, flatten, read, resolve
from tollgate.manifest.foreign.table import TABLE, by_name
from tollgate.manifest.loader import load_file
from tollgate.manifest.overrides import at, setting
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.manifest.validation import fields

FILES = Path(__file__).parent / "foreign"


def imported(*names: str, settings: tuple[str, ...] = ()) -> Imported:
    found = import_files(
        [(name, (FILES / name).read_bytes()) for name in names], "stem", [setting(text) for text in settings]
    )
    keys = [leaf.key for name in names for leaf in flatten(read((FILES / name).read_bytes(), name), name)]
    told = [one.key for one in (*found.mapped, *found.unmapped)]
    assert sorted(told) == sorted(keys), "each key is told exactly once"
    return found


def one(keys: dict[str, Any]) -> Imported:
    """Of one JSON file with these keys, and a place for the data."""
    return import_files([("a.json", json.dumps(keys).encode())], "a", [setting("dataset.path=d.jsonl")])


def whys(found: Imported) -> dict[str, tuple[str, bool]]:
    return {one.key: (one.reason, one.important) for one in found.unmapped}


def test_flat_keys_over_three_files() -> None:
    found = imported("training.json", "tracking.json", "safety.json")
    document, manifest = found.loaded.document, found.loaded.manifest
    assert document["model"] == {"base": "models/base"}
    assert document["dataset"]["path"] == "data/train.jsonl"
    assert document["dataset"]["splits"] == {"validation": 0.05}
    asked = manifest.hyperparameters
    assert (asked.num_train_epochs, asked.per_device_train_batch_size, asked.learning_rate) == (2, 4, 2e-4)
    assert (asked.scheduler.name, asked.optimizer.betas, asked.max_seq_length) == ("cosine", [0.9, 0.95], 1024)
    assert (asked.save_steps, asked.eval_steps, asked.logging_steps, asked.max_steps) == (100, 50, 10, None)
    assert manifest.precision == "bf16"
    assert manifest.adapter.type == "lora"
    assert manifest.adapter.target_modules == ["q_proj", "v_proj"]
    assert (manifest.checkpoint.keep_last, manifest.checkpoint.keep_best) == (3, 1)
    assert manifest.early_stopping is not None
    assert manifest.early_stopping.patience == 2
    assert manifest.resources.expected_runtime_hours == 6
    assert manifest.name == "support"
    assert {text.partition(":")[0] for text in found.assumed} == {"adapter.type", "name"}
    workers = read((FILES / "training.json").read_bytes(), "training.json")["dataloader_num_workers"]
    assert asked.dataloader_num_workers == workers
    told = whys(found)
    assert told["frobnicate"] == ("no field is known for this key", True)
    assert told["label_smoothing_factor"][1]
    assert "PromotionPolicy" in told["safety.max_toxicity"][0]
    assert told["seed"] == ("seed gives reproducibility.seed, too, with another value: 7 is kept", True)
    assert manifest.reproducibility.seed == 7
    for harmless in ("fp16", "max_steps", "evaluation_strategy", "logging_dir", "report_to"):
        assert not told[harmless][1], harmless
    assert not found.complete
    notes = {one.key: one.note for one in found.mapped}
    assert "--max-runtime" in notes["training_window_hours"]


def test_sections() -> None:
    found = imported("sections.yaml")
    manifest = found.loaded.manifest
    asked = manifest.hyperparameters
    assert (manifest.name, manifest.model.base, manifest.precision) == ("triage", "models/encoder", "bf16")
    assert (asked.learning_rate, asked.num_train_epochs, asked.per_device_train_batch_size) == (3e-5, 4, 16)
    assert (asked.max_seq_length, asked.max_grad_norm, asked.warmup_steps, asked.logging_steps) == (256, 0.5, 100, 20)
    assert (manifest.dataset.path, manifest.dataset.splits.validation) == ("data/tickets.csv", 0.2)
    assert manifest.dataset.text_field == "body"
    assert manifest.early_stopping is None
    assert "switches it off" in whys(found)["training.early_stopping.patience"][0]
    assert found.complete
    assert found.shape == "sections"


def test_hydra_with_interpolations() -> None:
    found = imported("hydra.yaml")
    manifest = found.loaded.manifest
    asked = manifest.hyperparameters
    assert manifest.output_dir == "runs/hydra-run"
    assert manifest.dataset.path == "data/train.jsonl"
    assert (asked.learning_rate, asked.weight_decay, asked.optimizer.betas) == (1e-4, 0.05, [0.9, 0.98])
    assert (asked.max_steps, asked.max_seq_length, asked.per_device_train_batch_size) == (500, 128, 2)
    assert manifest.precision == "bf16"
    assert manifest.early_stopping is not None
    assert (manifest.early_stopping.metric, manifest.early_stopping.patience) == ("eval_loss", 4)
    told = whys(found)
    assert "${oc.env:BASE_MODEL} can only be resolved" in told["model.pretrained_model_name_or_path"][0]
    assert told["model.pretrained_model_name_or_path"][1]
    assert told["scheduler._target_"][1], "another schedule trains other weights"
    assert "--cfg job --resolve" in told["defaults"][0]
    assert found.shape == "Hydra-style YAML"


def test_every_argument_of_transformers_is_known_and_its_default_loses_nothing() -> None:
    from transformers import TrainingArguments

    arguments = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    written = {name: default for name, default in arguments.items() if default is not dataclasses.MISSING}
    assert [name for name in arguments if name not in by_name()] == []
    found = one(json.loads(json.dumps(written, default=str)) | {"output_dir": "out"})
    assert [left for left in found.unmapped if left.important] == []
    asked = found.loaded.manifest.hyperparameters
    assert (asked.learning_rate, asked.per_device_train_batch_size, asked.num_train_epochs) == (5e-5, 8, 3)
    assert (asked.dataloader_num_workers, asked.compile, asked.group_by_length) == (0, False, False)


STAGE_3 = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu", "pin_memory": True}}}
GPUS = {"compute_target": "gpu_multi"}
KEYS: list[tuple[dict[str, Any], str, Any]] = [
    ({"dataloader_num_workers": 4}, "hyperparameters.dataloader_num_workers", 4),
    ({"warmup_steps": 0.1}, "hyperparameters.warmup_ratio", 0.1),
    ({"warmup_steps": 20.0}, "hyperparameters.warmup_steps", 20),
    ({"train_sampling_strategy": "group_by_length"}, "hyperparameters.group_by_length", True),
    ({"use_cpu": True}, "compute_target", "cpu"),
    ({"torch_compile": "true", "packing": True}, "hyperparameters.compile", True),
    ({"deepspeed": "configs/zero2.json"} | GPUS, "parallelism", "zero2"),
    ({"deepspeed": STAGE_3} | GPUS, "parallelism_options.offload", "cpu"),
    ({"fsdp": "full_shard", "fsdp_config": {"fsdp_version": 2}} | GPUS, "parallelism", "fsdp2"),
    ({"val_set_size": 0.05}, "dataset.splits.validation", 0.05),
    ({"save_steps": 50, "save_strategy": "steps"}, "hyperparameters.save_steps", 50),
    ({"peft_use_rslora": True, "adapter": "lora"}, "adapter.rslora", True),
    ({"optim": "paged_adamw_32bit"}, "hyperparameters.optimizer.name", "adamw"),
    ({"use_wandb": True, "wandb_mode": "offline"}, "tracking.wandb.mode", "offline"),
]


@pytest.mark.parametrize(("keys", "field", "value"), KEYS)
def test_keys_of_other_trainers_become_fields(keys: dict[str, Any], field: str, value: Any) -> None:
    found = one(keys)
    assert at(found.loaded.document, field.split(".")) == value
    assert found.complete


LOST = [
    ({"save_steps": 50, "save_strategy": "epoch"}, "save_strategy is epoch", False),
    ({"eval_steps": 50, "evaluation_strategy": "no"}, "it had no effect", False),
    ({"assistant_only_loss": False}, "only the assistant's words carry loss", True),
    ({"assistant_only_loss": True}, "this is what Tollgate does anyway", False),
    ({"completion_only_loss": False}, "a prompt carries no loss", True),
    ({"packing_strategy": "wrapped"}, "documents are not cut", True),
    ({"packing_strategy": "bfd"}, "keeps documents whole", False),
    ({"label_smoothing_factor": 0.1}, "the loss is the task's own", True),
    ({"data_seed": 42}, "one seed decides", False),
    ({"data_seed": 7}, "one seed decides", True),
    ({"optim": "adamw_bnb_8bit"}, "32 bits", True),
    ({"val_set_size": 100}, "a count", True),
    ({"lora_target_linear": False}, "adapter.target_modules", True),
    ({"rl": "dpo"}, "only supervised", True),
    ({"deepspeed": "ds.json"}, "parallelism: zero1, zero2 or zero3", True),
    ({"deepspeed": "zero3_cpuoffload.json"}, "parallelism_options.offload", True),
    ({"use_liger_kernel": True}, "changes no result", False),
]


@pytest.mark.parametrize(("keys", "words", "important"), LOST)
def test_what_no_field_says_is_told_with_a_reason(keys: dict[str, Any], words: str, important: bool) -> None:
    told = [left for left in one(keys).unmapped if words in left.reason]
    assert [left.important for left in told] == [important]


def test_a_secret_is_never_repeated() -> None:
    found = one({"hub_token": "hf_abcdef", "wandb_api_key": "k-123", "eos_token": "<|end|>"})
    told = {left.key: left.value for left in found.unmapped}
    assert told == {"hub_token": HIDDEN, "wandb_api_key": HIDDEN, "eos_token": "<|end|>"}


@pytest.mark.parametrize("names", [("training.json",), ("sections.yaml",), ("hydra.yaml",)])
def test_what_comes_out_is_taken_by_the_strict_loader_after_a_round_through_yaml(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(imported(*names).loaded.document))))
    assert load_file(path).manifest == imported(*names).loaded.manifest


def test_what_the_files_lack_is_asked_for_and_may_be_given() -> None:
    lacking = [("a.json", b'{"learning_rate": 1e-4}')]
    with pytest.raises(ManifestError, match=r"Give it: --set dataset.path=data/train.jsonl"):
        import_files(lacking, "a")
    found = import_files(lacking, "a", [setting("dataset.path=d.jsonl")])
    assert (found.loaded.manifest.dataset.path, found.loaded.manifest.name) == ("d.jsonl", "a")
    assert found.complete


def test_a_value_that_the_loader_refuses_goes_to_the_list_with_the_loader_s_words() -> None:
    text = b'{"train_file": "/abs/data.jsonl", "learning_rate": -1, "epochs": 2, "trust_remote_code": true}'
    found = import_files([("a.json", text)], "a", [setting("dataset.path=d.jsonl")])
    told = whys(found)
    assert "must be more than 0" in told["learning_rate"][0]
    assert "this version of Tollgate does not do this yet" in told["trust_remote_code"][0]
    assert not found.complete
    with pytest.raises(ManifestError, match="dataset"):
        import_files([("a.json", text)], "a")


@pytest.mark.parametrize(
    ("leaves", "expected"),
    [
        ({"a": "${b}", "b": 3}, {"a": 3, "b": 3}),
        ({"a": "x-${b.c}", "b.c": 3}, {"a": "x-3", "b.c": 3}),
        ({"s.a": "${.b}", "s.b": "${..t.c}", "t.c": 1.5}, {"s.a": 1.5, "s.b": 1.5, "t.c": 1.5}),
        ({"a": ["${b}", "c"], "b": "x"}, {"a": ["x", "c"], "b": "x"}),
    ],
)
def test_plain_interpolations_are_followed(leaves: dict[str, Any], expected: dict[str, Any]) -> None:
    found = resolve([Leaf(key, value, "f") for key, value in leaves.items()])
    assert {leaf.key: leaf.value for leaf in found} == expected
    assert not any(leaf.unresolved for leaf in found)


@pytest.mark.parametrize("text", ["${now:%Y}", "${oc.env:X}", "${nowhere}", "${a}", "${b}", "x-${b}"])
def test_resolvers_circles_and_names_of_nothing_are_marked(text: str) -> None:
    found = {leaf.key: leaf for leaf in resolve([Leaf("a", text, "f"), Leaf("b", "${a}", "f")])}
    assert found["a"].unresolved.startswith("${")


def test_references_that_double_at_each_level_end() -> None:
    leaves = [Leaf(f"k{n}", f"${{k{n + 1}}}" * 8, "f") for n in range(20)]
    assert all(len(str(leaf.value)) < 100_000 for leaf in resolve([*leaves, Leaf("k20", "x" * 100, "f")]))


def test_every_row_of_the_table_names_a_field_of_the_manifest_and_no_name_stands_twice() -> None:
    known = {".".join(map(str, path)) for path, _ in fields(TrainingManifest)}
    for row in TABLE:
        name = row.field.partition("[")[0]
        assert not name or name in known, name
    assert len(by_name()) == sum(len(row.names) for row in TABLE)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[1]", "no mapping"),
        (b"a: [", "not YAML"),
        (b"a: !!python/object:os.system {}", "not YAML"),
        (b"\xff", "YAML"),
    ],
)
def test_a_file_that_is_none_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        import_files([("a.yaml", data)], "a")


def test_the_command_writes_the_manifest_with_the_list_and_its_exit_code_tells(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tollgate_cli.main", "manifest", "import", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    answer = run(str(FILES / "training.json"), "--to", "m.yaml")
    assert answer.returncode == 1, answer.stderr
    assert "frobnicate = 3: no field is known for this key" in answer.stdout
    text = (tmp_path / "m.yaml").read_text()
    assert "# not mapped: frobnicate = 3: no field is known for this key" in text
    assert load_file(tmp_path / "m.yaml").manifest.name == "support"
    again = run(str(FILES / "sections.yaml"), "--to", "m.yaml")
    assert (again.returncode, again.stdout) == (64, "")
    assert "m.yaml exists" in again.stderr
    told = run(str(FILES / "sections.yaml"), "--to", "m.yaml", "--force", "-o", "json")
    assert told.returncode == 0
    assert json.loads(told.stdout)["digest"] == load_file(tmp_path / "m.yaml").digest
    assert run(str(FILES / "tracking.json"), "--to", "n.yaml").returncode == 64
    assert not (tmp_path / "n.yaml").exists()


def test_brackets_in_a_value_are_told_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"output_dir": "runs/[bold]/[/INST]"}))
    command = [sys.executable, "-m", "tollgate_cli.main", "manifest", "import", "a.json", "--to", "m.yaml"]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [*command, "--set", "dataset.path=d.jsonl"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "runs/[bold]/[/INST]" in done.stdout


def test_axolotl_s_yaml_and_its_list_of_one_data_file() -> None:
    found = imported("axolotl.yaml")
    manifest = found.loaded.manifest
    assert (manifest.dataset.path, manifest.dataset.format) == ("data/train.jsonl", "chat")
    assert manifest.dataset.splits.validation == 0.1
    assert manifest.model.quantization == "nf4"
    assert (manifest.adapter.type, manifest.adapter.rank) == ("lora", 16)
    assert (manifest.hyperparameters.max_seq_length, manifest.hyperparameters.packing) == (2048, True)
    assert [one.key for one in found.unmapped if one.important] == ["optimizer"]


def test_several_data_files_of_axolotl_are_told_and_not_guessed(tmp_path: Path) -> None:
    data = b"base_model: b\ndatasets: [{path: a.jsonl, type: alpaca}, {path: b.jsonl, type: alpaca}]\n"
    found = import_files([("a.yaml", data)], "a", [setting("dataset.path=a.jsonl")])
    assert "dataset.sources" in whys(found)["datasets"][0]


def test_a_quantisation_that_is_off_contradicts_none_that_is_on() -> None:
    data = b"model_name_or_path: b\ntrain_file: d.jsonl\nload_in_8bit: false\nload_in_4bit: true\nuse_lora: true\n"
    found = import_files([("a.yaml", data)], "a")
    assert found.loaded.manifest.model.quantization == "nf4"
    assert found.complete


def test_a_program_is_refused_with_a_way_to_get_its_arguments() -> None:
    with pytest.raises(ManifestError, match=r"args\.to_dict"):
        import_files([("train.py", b"import torch\n")], "a")
