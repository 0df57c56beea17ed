"""Several sources, redaction, streaming and the cache of token ids: what is read is the same, whichever way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data import Documents, Splits, load_documents, tokenise_documents
from tollgate_trainer.data.cache import TokenCache, cache_for
from tollgate_trainer.data.document import Document
from tollgate_trainer.data.order import Share
from tollgate_trainer.data.sources import shares_of
from tollgate_trainer.data.streaming import Streamed
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.refusal import DatasetRefused
from trainer_fixtures import WORDS, write_chat, write_conversations

PRIVATE = "Mail bob@example.org or call +49 30 123456, then pay with 4111 1111 1111 1111."


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_conversations(tmp_path / "talk.json", 60)
    write_chat(tmp_path / "chat.jsonl", 40)
    return tmp_path


def manifest(**dataset: Any) -> TrainingManifest:
    document = {"name": "t", "dataset": {"path": "talk.json", **dataset}, "hyperparameters": {"max_seq_length": 24}}
    return load_document(document, "test").manifest


CHAT = [{"path": "chat.jsonl"}]


# --- sources ----------------------------------------------------------------------------------------------------------


def test_every_document_knows_its_source_and_the_digest_covers_all_sources(root: Path) -> None:
    documents = load_documents(manifest(sources=CHAT), root)
    assert documents.reading["sources"] == {"talk": 60, "chat": 40}
    assert {document.source for document in documents.train} == {"talk", "chat"}
    alone = load_documents(manifest(), root)
    write_chat(root / "chat.jsonl", 39)
    assert len({documents.digest, alone.digest, load_documents(manifest(sources=CHAT), root).digest}) == 3


def test_another_version_of_one_source_is_refused(root: Path) -> None:
    with pytest.raises(DatasetRefused, match="another version") as refused:
        load_documents(manifest(sources=[{"path": "chat.jsonl", "sha256": "0" * 64}]), root)
    assert refused.value.field == "dataset.sources[0].sha256"


def test_weights_say_how_much_of_each_source_makes_an_epoch(root: Path) -> None:
    samples = [Document("a", "", source="talk")] * 10 + [Document("b", "", source="chat")] * 6
    weighted = manifest(weight=0.5, sources=[{"path": "chat.jsonl", "weight": 2.0}])
    assert shares_of(weighted, samples) == (Share(0, 10, 5), Share(10, 6, 12))
    assert shares_of(manifest(sources=CHAT), samples) == ()


@pytest.mark.parametrize(
    ("dataset", "field", "words"),
    [
        ({"sources": [{"path": "other/talk.jsonl"}]}, "dataset.sources[0].name", "another source has this name"),
        ({"sources": [{"path": "../other.jsonl"}]}, "dataset.sources[0].path", "leaves its root"),
        ({"sources": [{"path": "a.csv", "format": "span"}]}, "dataset.sources[0].format", "would not see the targets"),
        ({"format": "classification"}, "dataset.format", "would not see the targets"),
        ({"sources": [{"path": "a", "weight": 0}]}, "dataset.sources[0].weight", "more than 0"),
    ],
)
def test_what_sources_cannot_be_is_refused_when_the_manifest_is_read(
    dataset: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ManifestError) as refused:
        manifest(**dataset)
    (problem,) = refused.value.problems
    assert problem.field == field
    assert words in problem.message


# --- redaction --------------------------------------------------------------------------------------------------------


def test_personal_data_is_gone_before_the_split_and_counted_by_kind(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": PRIVATE}, {"role": "assistant", "content": "ok, a@b.org"}]}
    plain = [{"text": f"{PRIVATE} {i}"} for i in range(9)]
    ask = {"prompt": "whose is a@b.org?", "completion": "bob's"}
    rows = [chat, ask, *plain]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = manifest(path="data.jsonl", privacy_preservation_enabled=True)
    documents = load_documents(asked, tmp_path)
    every = [*documents.train, *documents.validation]
    words = " ".join([d.text for d in every] + [turn.content for d in every for turn in d.messages or ()])
    assert "bob@" not in words
    assert "4111" not in words
    assert documents.reading["redacted"] == {"email": 12, "phone": 10, "card": 10, "iban": 0}
    assert any(d.completion is not None and d.text[d.completion :] == "bob's" for d in every)
    assert "redacted" not in load_documents(manifest(path="data.jsonl"), tmp_path).reading


def test_an_answer_moves_with_its_text_when_something_before_it_is_redacted(tmp_path: Path) -> None:
    text = "a@b.org says: the gate of bob@example.org is blue."
    rows = [
        {"text": text, "question": "What colour?", "answer": "blue"},
        {"text": f"{text} ", "question": "Whose is it, a@b.org?", "answer": "of bob"},
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    document = {
        "name": "t",
        "task": "span",
        "dataset": {"path": "data.jsonl", "privacy_preservation_enabled": True, "splits": {"validation": 0}},
    }
    found = load_documents(TrainingManifest.model_validate(document), tmp_path).train
    for one in found:
        for answer in one.answers or ():
            assert one.text[answer.start :].startswith(answer.text)
    assert [answer.text for one in found for answer in one.answers or ()] == ["blue", "of [EMAIL]"]
    assert found[1].question == "Whose is it, [EMAIL]?"


# --- streaming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"sources": CHAT}, {"limit": 20}, {"splits": {"validation_path": "chat.jsonl"}}])
def test_streamed_documents_are_those_that_would_be_in_memory_in_the_same_order(
    root: Path, more: dict[str, Any]
) -> None:
    kept, passing = load_documents(manifest(**more), root), load_documents(manifest(**more, streaming=True), root)
    assert list(passing.train) == list(kept.train)
    assert list(passing.validation) == list(kept.validation)
    assert len(passing.train) == len(kept.train)
    assert passing.train[5] == kept.train[5]
    assert isinstance(passing.train, Streamed) != ("limit" in more)


def test_streamed_documents_are_read_anew_in_each_pass_and_not_kept(root: Path) -> None:
    passing = load_documents(manifest(streaming=True), root).train
    first = list(passing)
    shutil.move(root / "talk.json", root / "away.json")
    with pytest.raises(DatasetRefused, match="does not exist"):
        list(passing)
    shutil.move(root / "away.json", root / "talk.json")
    assert list(passing) == first


# --- the cache of token ids -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = [Document(f"the {a} of the {b} and the {c}", "") for a in WORDS for b in WORDS[:6] for c in WORDS[:3]]
    return tokenizers.from_json(tokenizers.train(texts, 600))


def made(root: Path, asked: TrainingManifest, tokenizer: Any, checks: bool = True) -> tuple[Splits, TokenCache]:
    """Tokens as a start of a run would have them."""
    documents = load_documents(asked, root)
    cache = cache_for(asked, documents.digest, root / "output", {}, checks=checks)
    return tokenise_documents(replace(documents, cache=cache), tokenizer, asked), cache


def tokens(splits: Splits) -> Iterator[tuple[list[int], list[int], str]]:
    for part in (splits.train, splits.validation):
        for sample, document in zip(part, part.documents, strict=True):
            yield sample.input_ids.tolist(), sample.labels.tolist(), document.origin


@pytest.mark.parametrize("streaming", [False, True])
def test_a_second_start_reuses_the_tokens_of_the_first_and_they_are_those_of_no_cache(
    root: Path, tokenizer: Any, streaming: bool
) -> None:
    asked = manifest(sources=CHAT, streaming=streaming)
    plain = tokenise_documents(load_documents(manifest(sources=CHAT), root), tokenizer, asked)
    first, one = made(root, asked, tokenizer)
    second, two = made(root, asked, tokenizer)
    assert {said.split()[0] for said in one.said.values()} == {"made"}
    assert {said.split()[0] for said in two.said.values()} == {"reused"}
    assert list(tokens(first)) == list(tokens(second)) == list(tokens(plain))
    assert first.stats == second.stats == plain.stats
    assert isinstance(second.train._arrays.ids, np.memmap)


def changed_data(root: Path, asked: TrainingManifest, tokenizer: Any) -> tuple[TrainingManifest, Any]:
    write_conversations(root / "talk.json", 59)
    return asked, tokenizer


def changed_length(root: Path, asked: TrainingManifest, tokenizer: Any) -> tuple[TrainingManifest, Any]:
    longer = asked.hyperparameters.model_copy(update={"max_seq_length": 20})
    return asked.model_copy(update={"hyperparameters": longer}), tokenizer


def changed_split(root: Path, asked: TrainingManifest, tokenizer: Any) -> tuple[TrainingManifest, Any]:
    return manifest(splits={"validation": 0.3}), tokenizer


def changed_template(root: Path, asked: TrainingManifest, tokenizer: Any) -> tuple[TrainingManifest, Any]:
    other = tokenizers.from_json(tokenizer.backend_tokenizer.to_str())
    other.chat_template = "{# another #}" + tokenizer.chat_template
    return asked, other


def changed_tokenizer(root: Path, asked: TrainingManifest, tokenizer: Any) -> tuple[TrainingManifest, Any]:
    return asked, tokenizers.from_json(tokenizers.train([Document("the gate " * 9, "")], 600))


@pytest.mark.parametrize("change", [changed_data, changed_length, changed_split, changed_template, changed_tokenizer])
def test_tokens_of_something_else_are_never_reused(root: Path, tokenizer: Any, change: Any) -> None:
    made(root, manifest(), tokenizer)
    asked, words = change(root, manifest(), tokenizer)
    _, cache = made(root, asked, words)
    assert cache.said["train"].startswith("made")


@pytest.mark.parametrize("name", ["ids", "learned", "lengths", "kept", "tokens.json"])
def test_spoiled_tokens_are_noticed_and_made_again(root: Path, tokenizer: Any, name: str) -> None:
    before = list(tokens(made(root, manifest(), tokenizer)[0]))
    for file in (root / "output" / ".cache" / "tokens").glob(f"*/{name}"):
        data = bytearray(file.read_bytes())
        data[0] ^= 1
        file.write_bytes(data)
    after, cache = made(root, manifest(), tokenizer)
    assert all("again" in said for said in cache.said.values())
    assert list(tokens(after)) == before
    assert set(said.split()[0] for said in made(root, manifest(), tokenizer)[1].said.values()) == {"reused"}


def test_where_nothing_can_be_written_the_tokens_are_made_and_it_is_said(root: Path, tokenizer: Any) -> None:
    (root / "output").mkdir()
    (root / "output" / ".cache").write_text("a file where a folder should be")
    splits, cache = made(root, manifest(), tokenizer)
    assert len(splits.train)
    assert all(said.startswith("not kept: ") for said in cache.said.values())


def test_nothing_half_made_is_left_when_a_document_is_refused(root: Path, tokenizer: Any) -> None:
    documents = load_documents(manifest(path="chat.jsonl"), root)
    cache = TokenCache(root / "cache", {})
    other = tokenizers.from_json(tokenizer.backend_tokenizer.to_str())
    other.chat_template = "{% generation %}{% endgeneration %}"
    with pytest.raises(DatasetRefused, match=r"part 0 .* is ''"):
        tokenise_documents(Documents(documents.train, (), "", {}, cache), other, manifest())
    assert list((root / "cache").iterdir()) == []


def test_the_cache_lies_where_the_environment_says(root: Path) -> None:
    assert cache_for(manifest(), "d", root, {"TOLLGATE_CACHE": "/c"}, checks=True).folder == Path("/c/tokens")
