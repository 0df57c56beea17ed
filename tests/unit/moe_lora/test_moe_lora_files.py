"""The mixture of LoRA experts on the disk: it comes back as it was, and nothing mistakes it for a LoRA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from small_mixture import ALPHA, EXPERTS, MASK, RANK, TOP_K, base, layers, logits, model
from transformers import AutoModelForCausalLM

from tollgate_trainer.models.moe_lora.config import CONFIG_FILE, WEIGHTS_FILE, MoeLoraConfig
from tollgate_trainer.models.moe_lora.layer import MergeRefusedError
from tollgate_trainer.models.moe_lora.model import load_experts, with_experts
from tollgate_trainer.refusal import ModelRefused

# --- saved and loaded -------------------------------------------------------------------------------------------------

IN_A_FRESH_PROCESS = """
import sys, torch
from transformers import AutoModelForCausalLM
from pathlib import Path
from tollgate_trainer.models.moe_lora.model import load_experts
torch.set_num_threads(1)
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
model = load_experts(base, Path(sys.argv[2]))
with torch.no_grad():
    found = model(input_ids=torch.arange(24).reshape(2, 12), attention_mask=torch.load(sys.argv[3])).logits
torch.save(found, sys.argv[4])
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and an adapter of it on the disk."""
    root = tmp_path_factory.mktemp("moe")
    base().save_pretrained(root / "base")
    model().save_pretrained(root / "adapter")
    return root / "base", root / "adapter"


def loaded_base(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_a_saved_adapter_is_the_same_bit_for_bit_in_a_fresh_process(saved: tuple[Path, Path], tmp_path: Path) -> None:
    torch.save(MASK, tmp_path / "mask.pt")
    arguments = [str(saved[0]), str(saved[1]), str(tmp_path / "mask.pt"), str(tmp_path / "logits.pt")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", IN_A_FRESH_PROCESS, *arguments], check=True, timeout=120, env=environment)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), logits(model()))


def test_plain_peft_finds_nothing_and_fails_instead_of_being_wrong(saved: tuple[Path, Path]) -> None:
    assert sorted(path.name for path in saved[1].iterdir()) == [WEIGHTS_FILE, CONFIG_FILE]
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        PeftModel.from_pretrained(loaded_base(saved[0]), str(saved[1]))


@pytest.mark.parametrize("call", ["merge_and_unload", "merge_adapter", "unmerge_adapter", "merge", "unmerge", "delta"])
def test_merging_is_refused_with_what_to_do_instead(call: str) -> None:
    made: Any = model()
    layer = layers(made)[0]
    calls = {
        "merge": layer.merge,
        "unmerge": layer.unmerge,
        "delta": lambda: layer.get_delta_weight("default"),
    }
    with pytest.raises(MergeRefusedError, match=r"adapter\.type: lora"):
        (calls.get(call) or getattr(made, call))()


def test_the_base_comes_back_when_the_experts_are_taken_off() -> None:
    assert torch.equal(logits(model().bare()), logits(base()))


def broken(folder: Path, tmp_path: Path, **changes: Any) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (copy / name).write_bytes((folder / name).read_bytes())
    document = json.loads((copy / CONFIG_FILE).read_text()) | changes
    (copy / CONFIG_FILE).write_text(json.dumps(document))
    return copy


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 9}, "format 9"),
        ({"rank": 4}, r"this model has \(16, 32\)"),
        ({"target_modules": ["q_proj"]}, "has an unknown tensor"),
        ({"heads": 2}, "cannot be understood"),
        ({"target_modules": ["query"]}, "Linear layers of this model: .*q_proj"),
    ],
)
def test_an_adapter_that_is_not_what_its_record_says_is_refused(
    saved: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelRefused, match=words):
        load_experts(base(), broken(saved[1], tmp_path, **changes))


def test_weights_that_are_missing_or_cut_are_refused(saved: tuple[Path, Path], tmp_path: Path) -> None:
    copy = broken(saved[1], tmp_path)
    (copy / WEIGHTS_FILE).write_bytes((copy / WEIGHTS_FILE).read_bytes()[:200])
    with pytest.raises(ModelRefused, match="cannot be read"):
        load_experts(base(), copy)
    (copy / WEIGHTS_FILE).unlink()
    with pytest.raises(ModelRefused, match="cannot be read"):
        load_experts(base(), copy)


@pytest.mark.parametrize(
    ("targets", "whole", "words"),
    [
        (("q_proj", "embed_tokens"), (), "embed_tokens is no linear layer"),
        (("q_proj", "v_proj"), ("v_proj",), "name only one of the two"),
    ],
)
def test_layers_that_cannot_have_experts_are_refused_by_name(
    targets: tuple[str, ...], whole: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ModelRefused, match=words) as refused:
        with_experts(base(), MoeLoraConfig(EXPERTS, TOP_K, RANK, ALPHA, 0.0, 0.01, targets, whole))
    assert refused.value.field == "adapter.target_modules"


def test_a_head_that_is_trained_whole_is_saved_with_the_experts(tmp_path: Path) -> None:
    config = MoeLoraConfig(EXPERTS, TOP_K, RANK, ALPHA, 0.0, 0.01, ("q_proj",), ("lm_head",))
    made = model(config)
    for name, parameter in made.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(parameter)
    made.save_pretrained(tmp_path)
    assert torch.equal(logits(load_experts(base(), tmp_path)), logits(made))


def test_a_plain_adapter_cannot_be_loaded_into_it(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="takes no plain adapter"):
        model().load_adapter(str(tmp_path), "other")
