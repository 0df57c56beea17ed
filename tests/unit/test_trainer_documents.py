"""Formats, digests and splits of training data: what is read, and in which words the rest is refused."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data import load_documents
from tollgate_trainer.data.digest import checked_digest, path_digest
from tollgate_trainer.data.documents import Document, Form, read
from tollgate_trainer.data.split import split
from tollgate_trainer.refusal import DatasetRefused

CHAT = {"messages": [{"role": "user", "content": "toll?"}, {"role": "assistant", "content": "two"}]}


def manifest(**dataset: Any) -> TrainingManifest:
    return TrainingManifest.model_validate({"name": "t", "dataset": dataset})


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("one.json", json.dumps({"conversations": [{"text": "a"}, {"text": "b"}]}), ["a", "b"]),
        ("lines.jsonl", '{"conversations": [{"text": "a"}]}\n\n{"conversations": [{"text": "b"}]}\n', ["a", "b"]),
        ("pretty.json", json.dumps({"conversations": [{"text": "a"}]}, indent=2), ["a"]),
        ("text.jsonl", '{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        ("list.json", json.dumps([{"text": "a"}, {"text": "b"}]), ["a", "b"]),
        ("chat.jsonl", json.dumps(CHAT) + "\n" + json.dumps(CHAT), ["toll?\ntwo", "toll?\ntwo"]),
        ("plain.txt", "a\nb\n\n\nc\n", ["a\nb", "c"]),
        ("mark.jsonl", '\ufeff{"text": "a"}', ["a"]),
    ],
)
def test_each_format_is_recognised_by_what_it_holds(tmp_path: Path, name: str, content: str, texts: list[str]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert [document.text for document in read(tmp_path / name, Form(), name)] == texts


@pytest.mark.parametrize(
    ("content", "format", "field", "words"),
    [
        ('{"text": "a"}\n{"text": ', "auto", "dataset.path", "data.jsonl:2 is not JSON"),
        ('{"txt": "a"}', "auto", "dataset.format", "['txt']"),
        ('{"text": "a"}\n{"text": ""}', "auto", "dataset.text_field", "data.jsonl:2: the text field 'text' is empty"),
        ('{"text": 3}', "auto", "dataset.text_field", "is missing"),
        ('{"text": "a"}', "chat", "dataset.format", "not of format chat"),
        ('{"messages": [{"role": "bot", "content": "x"}]}', "auto", "dataset.format", "role 'bot'"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "auto", "dataset.path", "no assistant message"),
        ('{"messages": ["x"]}', "auto", "dataset.format", "messages[0]"),
        ('{"conversations": ["x"]}', "auto", "dataset.format", "conversations[0]"),
        ('["x"]', "auto", "dataset.format", "expected an object"),
        ("", "auto", "dataset.path", "holds no document"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_line_and_field(
    tmp_path: Path, content: str, format: str, field: str, words: str
) -> None:
    (tmp_path / "data.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DatasetRefused) as refused:
        read(tmp_path / "data.jsonl", Form(format), "data.jsonl")
    assert refused.value.field == field
    assert words in str(refused.value)


def test_a_folder_is_read_in_the_order_of_its_names_and_other_files_in_it_are_let_be(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}')
    (tmp_path / "README.md").write_text("no data")
    (tmp_path / ".hidden.txt").write_text("no data")
    assert [document.text for document in read(tmp_path, Form(), "folder")] == ["one", "two"]


def test_the_digest_of_a_file_is_what_sha256sum_prints_and_of_a_folder_covers_names_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    file_digest, size = path_digest(folder / "a.txt", "a.txt")
    assert (file_digest, size) == ("sha256:" + hashlib.sha256(b"one").hexdigest(), 3)
    before = path_digest(folder, "folder")[0]
    (folder / "a.txt").rename(folder / "b.txt")
    renamed = path_digest(folder, "folder")[0]
    (folder / "b.txt").write_text("two")
    assert len({before, renamed, path_digest(folder, "folder")[0]}) == 3


def test_another_version_of_the_data_is_refused_by_size_and_by_digest(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("one\n\ntwo")
    digest = path_digest(tmp_path / "d.txt", "d.txt")[0]
    assert checked_digest(manifest(path="d.txt", sha256=digest, size_bytes=8), tmp_path) == digest
    for wrong, field in (({"size_bytes": 9}, "dataset.size_bytes"), ({"sha256": "0" * 64}, "dataset.sha256")):
        with pytest.raises(DatasetRefused) as refused:
            checked_digest(manifest(path="d.txt", **wrong), tmp_path)
        assert refused.value.field == field
    with pytest.raises(DatasetRefused, match="does not exist"):
        checked_digest(manifest(path="e.txt"), tmp_path)


def test_held_out_documents_of_a_file_of_their_own_may_not_be_training_documents(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("one\n\ntwo")
    (tmp_path / "held.txt").write_text("three")
    asked = manifest(path="train.txt", splits={"validation_path": "held.txt"})
    documents = load_documents(asked, tmp_path)
    assert [d.text for d in documents.validation] == ["three"]
    assert documents.digest != path_digest(tmp_path / "train.txt", "")[0]
    (tmp_path / "held.txt").write_text("Two ")
    with pytest.raises(DatasetRefused, match="judge memory"):
        load_documents(asked, tmp_path)


TEXTS = st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=40)


@given(TEXTS, st.floats(0, 0.9), st.integers())
def test_a_split_depends_on_texts_only_and_never_parts_duplicates(texts: list[str], share: float, seed: int) -> None:
    documents = [Document(text, "here") for text in texts]
    shuffled = random.Random(seed).sample(documents, len(documents))
    try:
        train, held = split(documents, share)
    except DatasetRefused:
        with pytest.raises(DatasetRefused):
            split(shuffled, share)
        return
    again, held_again = split(shuffled, share)
    assert {d.hash for d in train}.isdisjoint(d.hash for d in held)
    assert ({d.hash for d in train}, {d.hash for d in held}) == ({d.hash for d in again}, {d.hash for d in held_again})
    assert len(train) + len(held) == len(documents)
    assert bool(held) or share == 0


def test_the_share_of_held_out_documents_is_about_what_was_asked_for() -> None:
    documents = [Document(f"text number {i}", "here") for i in range(5000)]
    assert len(split(documents, 0.1)[1]) == pytest.approx(500, abs=90)


def test_spelling_and_white_space_do_not_make_another_document() -> None:
    assert Document("The  Gate\n", "a").hash == Document("the gate", "b").hash


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("excel.csv", "text,label\r\nM\xfcller,a\r\n".encode("latin-1"), "line 2: byte 0xfc"),
        ("excel.csv", "text,label\r\nM\xfcller,a\r\n".encode("latin-1"), "iconv -f WINDOWS-1252 -t UTF-8 excel.csv"),
        ("wide.csv", "text,label\r\na,b\r\n".encode("utf-16"), "iconv -f UTF-16 -t UTF-8 wide.csv > wide-utf8.csv"),
        ("a.json", b'[{"text": "a"},\n{"text": "b"},\n]', "line 3, column 1: remove the comma before this ]"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b",}\n', "a.jsonl:2 is not JSON: Expecting property name, column 14"),
        ("a.jsonl", b"{\"text\": \"a\"}\n{'text': 'b'}\n", "was a Python dict printed? Write it with json.dumps"),
        ("a.json", b'{"data": [{"text": "a"}]}', "the records seem to be the list in 'data': keep only that list"),
        ("a.csv", b"id,Ticket Text,Label \n1,Why is it late?,x\n", "say `text_field: Ticket Text` in dataset"),
        ("a.jsonl", b'{"messages": [{"role": "human", "content": "x"}]}', "'human' is 'user' here"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": null}]}', "messages[0]: the content is null"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": [{"text": "x"}]}]}', "is a list of parts"),
        ("a.jsonl", b"", "a.jsonl is an empty file"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b", "n": ' + b"9" * 5000 + b"}\n", "a.jsonl:2 is not JSON: Exceeds"),
        ("my file.csv", b"text\nM\xfcller\n", "iconv -f WINDOWS-1252 -t UTF-8 'my file.csv' > 'my file-utf8.csv'"),
    ],
)
def test_the_usual_mistakes_are_told_with_what_mends_them(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetRefused) as refused:
        read(tmp_path / name, Form(), name)
    assert words in str(refused.value)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_is_read_as_spreadsheets_write_it(tmp_path: Path, mark: str) -> None:
    rows = [["text", "label "], ["late, again; why?", "a"], ["", ""], ["two \U0001f600", "b"], [" ", ""]]
    out = io.StringIO()
    csv.writer(out, delimiter=mark, lineterminator="\r\n").writerows(rows)
    (tmp_path / "a.csv").write_text(f"\ufeff{out.getvalue()}\r\n", encoding="utf-8", newline="")
    found = read(tmp_path / "a.csv", Form("classification"), "a.csv")
    assert [(document.text, document.label) for document in found] == [
        ("late, again; why?", "a"),
        ("two \U0001f600", "b"),
    ]
