"""`tollgate model` and `tollgate infer` on models that were trained here: what they tell, refuse, and leave behind."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tollgate.manifest.loader import load_document
from tollgate_cli.main import main
from tollgate_trainer.data.documents import Document
from tollgate_trainer.models import ModelInfo, load_finished
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.build import build
from tollgate_trainer.models.finished import OnBase, save
from tollgate_trainer.models.heads import Head
from trainer_fixtures import WORDS, manifest

CPU = torch.device("cpu")
LABELS = ("road", "bridge")
TEXT = "the gate of the road and the bridge of the river " * 3
IDS = torch.arange(24).reshape(2, 12)
RECORD = {"manifest_digest": "sha256:m", "dataset_digest": "sha256:d", "name": "tiny", "metrics": {"eval_loss": 2.5}}
ADAPTERS: dict[str, dict[str, Any]] = {
    "rslora": {"type": "lora", "rank": 4, "rslora": True},
    "dora": {"type": "lora", "rank": 4, "dora": True},
    "moe": {"type": "moe-lora", "rank": 4},
    "nf4": {"type": "lora", "rank": 4},
}


def asked(**changes: Any) -> Any:
    return load_document(manifest(**changes), "test").manifest


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS, use_cache=False).logits
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as trainings leave them: base (whole, in two files), adapters on it, and a classifier."""
    root = tmp_path_factory.mktemp("runs")
    documents = [Document(f"the {a} of the {b}", "here") for a in WORDS for b in WORDS[:6]]
    tokenizer = tokenizers.from_json(tokenizers.train(documents, 600))
    whole: Any = build(asked(), root, tokenizer, CPU).model
    save(whole, tokenizer, root / "whole", 1, RECORD)
    whole.save_pretrained(root / "base", max_shard_size="400KB")
    assert len(list((root / "base").glob("*.safetensors"))) > 1
    for name, adapter in ADAPTERS.items():
        base = {"config": None, "base": "base", "quantization": "nf4" if name == "nf4" else "none"}
        built = build(asked(adapter=adapter, model=base), root, tokenizer, CPU)
        for key, parameter in built.model.named_parameters():
            if "lora_B" in key or "magnitude" in key:
                torch.manual_seed(len(key))
                parameter.data += 0.1 * torch.randn_like(parameter)
        assert built.base_digest is not None
        on = OnBase(built.source, "base", built.base_digest, "nf4" if name == "nf4" else "none")
        save(built.model, tokenizer, root / name, 1, RECORD, on)
    shared = {"max_length": 32, "segments": False}
    span = {"doc_stride": 8, "max_answer_tokens": 6, "null_threshold": None}
    for name, head, task in (
        ("judge", Head("classification", LABELS), {"task": "classification", "labels": LABELS, **shared}),
        ("finder", Head("span"), {"task": "span", **shared, **span}),
        ("both", Head("joint", LABELS), {"task": "joint", "labels": LABELS, **shared, **span}),
    ):
        judge = build(asked(adapter=ADAPTERS["moe"]), root, tokenizer, CPU, head)
        assert judge.base_digest is not None
        save(judge.model, tokenizer, root / name, 1, RECORD, OnBase(judge.source, None, judge.base_digest), task)
    return root


Tollgate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tollgate(capsys: pytest.CaptureFixture[str]) -> Tollgate:
    """The command line: (exit code, what it said, what it complained about)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


# --- info and verify --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "task"),
    [
        ("whole", "whole", "causal-lm"),
        ("rslora", "lora", "causal-lm"),
        ("moe", "moe-lora", "causal-lm"),
        ("judge", "moe-lora", "classification"),
    ],
)
def test_info_tells_what_a_run_made(runs: Path, tollgate: Tollgate, name: str, kind: str, task: str) -> None:
    code, said, _ = tollgate("model", "info", runs / name, "-o", "json")
    known = json.loads(said)
    info = ModelInfo.read(runs / name / "model")
    assert info is not None
    assert code == 0
    assert (known["kind"], known["task"], known["digest"]) == (kind, task, info.digest)
    assert known["metrics"] == {"eval_loss": 2.5}
    code, said, _ = tollgate("model", "info", runs / name / "model")
    assert code == 0
    assert "eval_loss 2.5" in said


def test_a_folder_without_a_model_is_refused_with_what_to_name(tmp_path: Path, tollgate: Tollgate) -> None:
    code, _, complaint = tollgate("model", "info", tmp_path)
    assert code == 64
    assert "Name a run's output folder" in complaint


def test_verify_finds_a_changed_file_and_a_changed_base(runs: Path, tmp_path: Path, tollgate: Tollgate) -> None:
    assert tollgate("model", "verify", runs / "rslora")[0] == 0
    copy = tmp_path / "model"
    shutil.copytree(runs / "rslora" / "model", copy)
    (copy / "adapter_model.safetensors").write_bytes(b"x")
    code, said, _ = tollgate("model", "verify", copy, "-o", "json")
    assert code == 1
    assert "adapter_model.safetensors" in json.loads(said)["problem"]
    code, _, complaint = tollgate("infer", copy, "--prompt", "x")
    assert code == 64
    assert "is damaged" in complaint


def test_a_model_that_was_not_trained_here_cannot_be_verified(runs: Path, tollgate: Tollgate) -> None:
    code, _, complaint = tollgate("model", "verify", runs / "base")
    assert code == 64
    assert "nothing says what its files should be" in complaint


# --- merge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rslora", "dora"])
def test_a_merged_model_answers_as_the_adapter_on_its_base_and_keeps_its_files(
    runs: Path, tmp_path: Path, tollgate: Tollgate, name: str
) -> None:
    code, said, complaint = tollgate("model", "merge", runs / name, "--to", tmp_path / "merged", "-o", "json")
    assert code == 0, complaint
    merged, _ = load_finished(tmp_path / "merged")
    adapted, _ = load_finished(runs / name / "model", runs)
    assert torch.allclose(logits(merged), logits(adapted), atol=1e-5)
    plain = AutoModelForCausalLM.from_pretrained(runs / "base", dtype=torch.float32)
    assert not torch.allclose(logits(merged), logits(plain), atol=1e-2)
    shards = {path.name for path in (runs / "base").glob("*.safetensors")}
    assert {path.name for path in (tmp_path / "merged").glob("*.safetensors")} == shards
    info = ModelInfo.read(tmp_path / "merged")
    assert info is not None
    assert info.problem(tmp_path / "merged") is None
    assert info.digest == json.loads(said)["digest"]
    assert info.document["merged_from"]["trained_on_quantised"] == "none"
    assert info.manifest_digest == "sha256:m"


def test_an_adapter_over_a_quantised_base_is_merged_into_whole_weights_and_that_is_said(
    runs: Path, tmp_path: Path, tollgate: Tollgate
) -> None:
    code, _, complaint = tollgate("model", "merge", runs / "nf4", "--to", tmp_path / "merged")
    assert code == 0
    assert "trained over nf4" in complaint
    assert next(iter(load_file(next((tmp_path / "merged").glob("*.safetensors"))).values())).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "words"),
    [("moe", "cannot be merged"), ("whole", "nothing to merge")],
)
def test_what_cannot_be_merged_says_why_and_leaves_nothing(
    runs: Path, tmp_path: Path, tollgate: Tollgate, name: str, words: str
) -> None:
    code, _, complaint = tollgate("model", "merge", runs / name, "--to", tmp_path / "merged")
    assert code == 64
    assert words in complaint
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_taken_is_left_alone(runs: Path, tmp_path: Path, tollgate: Tollgate) -> None:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "mine").write_text("x")
    code, _, complaint = tollgate("model", "merge", runs / "rslora", "--to", tmp_path / "merged")
    assert code == 64
    assert "already there" in complaint
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


# --- export and backup ------------------------------------------------------------------------------------------------


def test_an_exported_adapter_is_a_plain_one_that_names_its_base(runs: Path, tmp_path: Path, tollgate: Tollgate) -> None:
    assert tollgate("model", "export", runs / "rslora", "--to", tmp_path / "out", "--base", "org/name")[0] == 0
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/name"
    base = AutoModelForCausalLM.from_pretrained(runs / "base", dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "out"))
    adapted, _ = load_finished(runs / "rslora" / "model", runs)
    assert torch.allclose(logits(loaded), logits(adapted), atol=1e-6)
    code, _, complaint = tollgate("model", "export", runs / "moe", "--to", tmp_path / "moe")
    assert code == 64
    assert "no stock server" in complaint


def test_a_backup_holds_every_file_with_its_digest_and_is_the_same_each_time(
    runs: Path, tmp_path: Path, tollgate: Tollgate
) -> None:
    code, said, _ = tollgate("model", "backup", runs / "moe", tmp_path / "a.tar", "-o", "json")
    assert code == 0
    assert tollgate("model", "backup", runs / "moe", tmp_path / "b.tar")[0] == 0
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert json.loads(said)["bytes"] == (tmp_path / "a.tar").stat().st_size
    with tarfile.open(tmp_path / "a.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "model" / "SHA256SUMS").read_text().splitlines())
    (tmp_path / "model" / "SHA256SUMS").unlink()
    info = ModelInfo.read(tmp_path / "model")
    assert info is not None
    assert info.problem(tmp_path / "model") is None
    assert {entry.path: entry.sha256 for entry in info.files}.items() <= sums.items()
    code, _, complaint = tollgate("model", "backup", runs / "moe", tmp_path / "a.tar")
    assert code == 64
    assert "already there" in complaint


# --- infer ------------------------------------------------------------------------------------------------------------


def lines(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


@pytest.mark.parametrize("name", ["whole", "rslora", "moe", "nf4"])
def test_a_model_answers_a_prompt_and_alike_each_time(runs: Path, tollgate: Tollgate, name: str) -> None:
    ask = ("infer", runs / name, "--prompt", "the gate", "--max-new-tokens", "4", "--dataset-root", runs, "-o", "json")
    code, said, complaint = tollgate(*ask)
    assert code == 0, complaint
    (answer,) = lines(said)
    assert answer["prompt"] == "the gate"
    assert 1 <= answer["tokens"] <= 4
    assert tollgate(*ask)[1] == said


def test_draws_come_from_the_seed_and_do_not_depend_on_the_questions_before(runs: Path, tollgate: Tollgate) -> None:
    def drawn(seed: int, *prompts: str) -> list[str]:
        given = [part for prompt in prompts for part in ("--prompt", prompt)]
        _, said, _ = tollgate(
            "infer", runs / "whole", *given, "--temperature", "1", "--top-p", "0.9", "--seed", seed,
            "--max-new-tokens", "8", "-o", "json",
        )  # fmt: skip
        return [answer["answer"] for answer in lines(said)]

    assert drawn(1, "the gate") == drawn(1, "the gate")
    assert drawn(1, "a", "the gate")[1:] == drawn(1, "the gate")
    assert drawn(1, "the gate") != drawn(2, "the gate")


def test_a_file_is_answered_line_by_line_and_a_bad_line_is_named(
    runs: Path, tmp_path: Path, tollgate: Tollgate
) -> None:
    file = tmp_path / "in.jsonl"
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "the road?"}]
    file.write_text(json.dumps({"prompt": "the gate"}) + "\n" + json.dumps({"messages": turns}) + "\n")
    code, said, _ = tollgate("infer", runs / "whole", "--file", file, "--max-new-tokens", "3", "-o", "json")
    assert code == 0
    assert [answer["prompt"] for answer in lines(said)] == ["the gate", "Be short.\nthe road?"]
    file.write_text('{"prompt": "x"}\n{"promt": "x"}\n')
    code, _, complaint = tollgate("infer", runs / "whole", "--file", file)
    assert code == 64
    assert "in.jsonl:2" in complaint


@pytest.mark.parametrize("name", ["judge", "both"])
def test_a_model_with_classes_answers_with_a_label_and_its_score(runs: Path, tollgate: Tollgate, name: str) -> None:
    code, said, complaint = tollgate("infer", runs / name, "--prompt", TEXT, "--question", "which?", "-o", "json")
    assert code == 0, complaint
    (answer,) = lines(said)
    assert answer["label"] in LABELS
    assert sum(answer["scores"].values()) == pytest.approx(1.0)
    assert answer["score"] == max(answer["scores"].values())


@pytest.mark.parametrize("name", ["finder", "both"])
def test_a_model_of_spans_answers_with_a_place_in_the_text_over_all_windows(
    runs: Path, tollgate: Tollgate, name: str
) -> None:
    code, said, complaint = tollgate("infer", runs / name, "--prompt", TEXT, "--question", "which?", "-o", "json")
    assert code == 0, complaint
    (answer,) = lines(said)
    assert answer["answer"]
    assert TEXT[answer["start"] : answer["end"]].strip() == answer["answer"]
    code, _, complaint = tollgate("infer", runs / name, "--prompt", TEXT)
    assert code == 64
    assert "has no question" in complaint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give --prompt or --file"),
        (("--prompt", "x", "--max-new-tokens", "100"), "more than the model's 64 positions"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    runs: Path, tollgate: Tollgate, arguments: tuple[str, ...], words: str
) -> None:
    code, _, complaint = tollgate("infer", runs / "whole", *arguments)
    assert code == 64
    assert words in complaint.replace("\n", " ")
