"""Tokenizers, chat masks, model configs, and the finished model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data import chat
from tollgate_trainer.data.documents import Document, Message
from tollgate_trainer.data.tokens import IGNORED, encode, tokenise
from tollgate_trainer.models import ModelInfo, load_finished
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.models.build import build, config_from
from tollgate_trainer.models.finished import OnBase, save
from tollgate_trainer.models.source import Source, model_source
from tollgate_trainer.refusal import DatasetRefused, ModelRefused
from trainer_fixtures import TINY_LLAMA, WORDS, manifest

CPU = torch.device("cpu")
DOCUMENTS = [Document(f"the {a} of the {b} and the {c}", "here") for a in WORDS for b in WORDS[:6] for c in WORDS[:3]]
TALK = Document(
    "",
    "talk:1",
    (
        Message("system", "Be short."),
        Message("user", "the gate?"),
        Message("assistant", "two coins"),
        Message("user", "the bridge?"),
        Message("assistant", "three coins"),
    ),
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizers.from_json(tokenizers.train(DOCUMENTS, 600))


def tiny(**changes: Any) -> TrainingManifest:
    return TrainingManifest.model_validate(manifest(**changes))


# --- tokenizer and chat -----------------------------------------------------------------------------------------------


def test_the_same_documents_train_the_same_tokenizer() -> None:
    assert tokenizers.train(DOCUMENTS, 600) == tokenizers.train(list(DOCUMENTS), 600)


def test_a_trained_tokenizer_starts_a_text_with_its_mark_and_gives_it_back(tokenizer: Any) -> None:
    text = "the gate: naïve 漢字 \U0001f6a7"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text


def assistants_words(tokenizer: Any, ids: list[int], mask: list[bool]) -> list[str]:
    """The spans that carry loss, as text."""
    spans: list[list[int]] = []
    for index, token in enumerate(ids):
        if mask[index]:
            if index == 0 or not mask[index - 1]:
                spans.append([])
            spans[-1].append(token)
    return [tokenizer.decode(span) for span in spans]


def test_only_what_the_assistant_says_carries_loss_and_where_it_ends(tokenizer: Any) -> None:
    ids, mask = chat.encode(TALK, tokenizer)
    assert assistants_words(tokenizer, ids, mask) == ["two coins<|end|>", "three coins<|end|>"]


UNMARKED = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def test_a_template_without_marks_is_cut_by_its_own_renderings(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", UNMARKED)
    ids, mask = chat.encode(TALK, tokenizer)
    assert assistants_words(tokenizer, ids, mask) == ["two coins<|end|>\n", "three coins<|end|>\n"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ messages | length }}: " + UNMARKED, "renders turn 2 differently"),
        ("{% for m in messages %}{{ m['content'] }}{% generation %}{% endgeneration %}{% endfor %}", "marks 5 parts"),
    ],
)
def test_a_template_that_does_not_tell_the_assistants_words_apart_is_refused(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str, words: str
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(DatasetRefused, match=words) as refused:
        chat.encode(TALK, tokenizer)
    assert "talk:1" in str(refused.value)


def test_truncation_and_what_has_nothing_left_to_learn_are_counted(tokenizer: Any) -> None:
    long = Document("the gate " * 40, "long")
    late = Document("", "late", (Message("user", "the gate " * 40), Message("assistant", "two")))
    tokens = tokenise([DOCUMENTS[0], long, late, DOCUMENTS[0]], tokenizer, 16)
    told = tokens.statistics
    assert (told.documents, told.samples, told.dropped_samples, told.duplicates) == (4, 3, 1, 1)
    assert told.truncated_samples == 2
    assert told.longest == 16
    assert len(tokens.documents) == 3
    sample = tokens[1]
    assert len(sample.input_ids) == 16
    assert (tokens[0].input_ids == tokens[2].input_ids).all()
    assert tokens[0].input_ids[-1] == tokenizer.eos_token_id
    assert told.loss_tokens == sum(int((tokens[i].labels[1:] != IGNORED).sum()) for i in range(3))
    assert tokens.lengths.dtype == np.int64
    alone = encode(long, tokenizer)
    assert (sample.input_ids == alone.input_ids[:16]).all()


# --- model ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"hiden_size": 3}, "model.config.hiden_size", "did you mean 'hidden_size'"),
        ({"model_type": "lama"}, "model.config.model_type", "knows no model_type 'lama'"),
        ({"vocab_size": 10}, "model.config.vocab_size", "below the tokenizer's"),
        ({"hidden_size": "wide"}, "model.config", "not a valid llama config"),
    ],
)
def test_a_config_that_makes_no_model_is_refused_with_its_key(
    tokenizer: Any, changes: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ModelRefused, match=words) as refused:
        config_from({**TINY_LLAMA, **changes}, tokenizer)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"config": None}, "give model.base"),
        ({"config": TINY_LLAMA, "base": "x"}, "keep one"),
        ({"config": None, "base": "nowhere"}, "no folder nowhere below the dataset root"),
        ({"config": None, "base": "empty"}, "no config.json"),
    ],
)
def test_a_model_that_is_nowhere_is_refused_before_anything_heavy_is_loaded(
    tmp_path: Path, model: dict[str, Any], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelRefused, match=words):
        model_source(tiny(model=model), tmp_path)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_weights_from_a_config_are_a_function_of_the_seed(tokenizer: Any, tmp_path: Path) -> None:
    def made(seed: int) -> dict[str, torch.Tensor]:
        return weights(build(tiny(reproducibility={"seed": seed}), tmp_path, tokenizer, CPU).model)

    assert same(made(1), made(1))
    assert not same(made(1), made(2))


RECORD = {"manifest_digest": "sha256:m", "dataset_digest": "sha256:d"}


def finished(root: Path, tokenizer: Any, base: Path | None = None, **changes: Any) -> tuple[Any, str]:
    """A model saved below `root`, and its digest."""
    asked = tiny(**changes)
    built = build(asked, base.parent if base else root, tokenizer, CPU)
    for name, parameter in built.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # a trained adapter changes something
    base_of = None
    if built.base_digest is not None:
        base_of = OnBase(built.source, asked.model.base, built.base_digest, asked.model.quantization)
    digest = save(built.model, tokenizer, root, 1, RECORD, base_of)
    return built.model, digest


def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval()(input_ids=torch.arange(12).reshape(1, 12)).logits.detach()
    return found


def test_a_finished_model_is_loaded_as_it_was_and_its_digest_covers_every_file(tmp_path: Path, tokenizer: Any) -> None:
    model, digest = finished(tmp_path, tokenizer)
    loaded, its_tokenizer = load_finished(tmp_path / "model")
    assert torch.equal(logits(loaded), logits(model))
    assert its_tokenizer("the gate")["input_ids"] == tokenizer("the gate")["input_ids"]
    info = ModelInfo.read(tmp_path / "model")
    assert info is not None
    assert info.digest == digest
    assert info.problem(tmp_path / "model") is None
    (tmp_path / "model" / "extra.bin").write_bytes(b"x")
    assert info.problem(tmp_path / "model") == "extra.bin was added after training"
    (tmp_path / "model" / "extra.bin").unlink()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert "config.json" in str(info.problem(tmp_path / "model"))


def test_an_adapter_on_a_saved_base_is_stored_with_a_reference_that_is_checked(tmp_path: Path, tokenizer: Any) -> None:
    finished(tmp_path / "first", tokenizer)
    base = tmp_path / "bases" / "small"
    base.parent.mkdir()
    (tmp_path / "first" / "model").rename(base)
    lora = {"model": {"config": None, "base": "small"}, "adapter": {"type": "lora", "rank": 4}}
    model, _ = finished(tmp_path / "run", tokenizer, base, **lora)
    folder = tmp_path / "run" / "model"
    assert (folder / "adapter_model.safetensors").is_file()
    assert not (folder / "model.safetensors").exists()
    loaded, _ = load_finished(folder)
    assert torch.allclose(logits(loaded), logits(model), atol=1e-6)
    moved = tmp_path / "elsewhere" / "small"
    moved.parent.mkdir()
    base.rename(moved)
    with pytest.raises(ModelRefused, match="base is in none of"):
        load_finished(folder)
    loaded, _ = load_finished(folder, dataset_root=moved.parent)
    assert torch.allclose(logits(loaded), logits(model), atol=1e-6)
    (moved / "README.md").write_text("changed")
    with pytest.raises(ModelRefused, match="restore that one"):
        load_finished(folder, dataset_root=moved.parent)


def test_an_adapter_on_weights_that_lie_in_no_file_is_merged_so_that_the_model_stands_alone(
    tmp_path: Path, tokenizer: Any
) -> None:
    model, _ = finished(tmp_path, tokenizer, adapter={"type": "lora", "rank": 4})
    loaded, _ = load_finished(tmp_path / "model")
    assert not (tmp_path / "model" / "adapter_config.json").exists()
    assert torch.allclose(logits(loaded), logits(model), atol=1e-5)
    plain = build(tiny(), tmp_path, tokenizer, CPU).model
    assert not torch.allclose(logits(loaded), logits(plain), atol=1e-3)


def test_layers_that_are_not_there_are_refused_with_the_names_of_those_that_are(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(ModelRefused, match=r"Linear layers of this model: .*q_proj"):
        build(tiny(adapter={"type": "lora", "target_modules": ["query"]}), tmp_path, tokenizer, CPU)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    finished(tmp_path, tokenizer)
    larger = tokenizers.from_json(tokenizers.train([Document(" ".join(chr(i) * 3 for i in range(200, 900)), "x")], 900))
    asked = tiny(model={"config": None, "base": "model"})
    with pytest.raises(ModelRefused, match="embeddings"):
        build(asked, tmp_path, larger, CPU)


def test_a_folder_without_a_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelRefused, match="no tokenizer could be loaded"):
        tokenizers.load(Source(folder=tmp_path))
