"""Tables: classes and answers from CSV, JSON and Parquet, in the shapes that people have, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data import load_documents
from tollgate_trainer.data.document import Answer, Document
from tollgate_trainer.data.documents import Form, read
from tollgate_trainer.refusal import DatasetRefused

TEXT = "The gate is blue. The bridge is red."
SPAN = Form("span")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format that the suffix says."""
    if path.suffix == ".parquet":
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        parquet.write_table(arrow.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def seen(document: Document) -> tuple[Any, ...]:
    return document.text, document.label, document.question, document.answers


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_the_same_table_is_the_same_documents_in_every_file_type(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"text": TEXT, "label": "true", "question": "Which colour has the gate?", "answer": "blue", "answer_start": 12},
        {"text": 'He said "no",\nand left.', "label": "0", "question": "Who?", "answer": "", "answer_start": None},
    ]
    path = write(tmp_path / f"data{suffix}", rows)
    assert [seen(document) for document in read(path, Form("joint"), "data")] == [
        (TEXT, "true", "Which colour has the gate?", (Answer("blue", 12),)),
        ('He said "no",\nand left.', "0", "Who?", ()),
    ]


@pytest.mark.parametrize("label", [3, 3.0, "3", " 3 "])
def test_a_label_is_the_same_class_however_a_file_type_writes_its_number(tmp_path: Path, label: object) -> None:
    path = write(tmp_path / "data.jsonl", [{"text": TEXT, "label": label}])
    assert read(path, Form("classification"), "data")[0].label == "3"


@pytest.mark.parametrize(
    ("given_answer", "found"),
    [
        ({"answer": "blue"}, ((12, "blue"),)),
        ({"answer": "blue", "answer_start": 12}, ((12, "blue"),)),
        ({"answer": "blue", "answer_start": 3}, ((12, "blue"),)),  # once in the text, so it can only be there
        ({"answer": "is", "answer_start": 29}, ((29, "is"),)),  # twice in the text, the offset says which
        ({"answer": " blue ", "answer_start": 12}, ((12, "blue"),)),
        ({"answer_start": 12, "answer_end": 16}, ((12, "blue"),)),
        ({"answer": ["blue", "red"], "answer_start": [12, 32]}, ((12, "blue"), (32, "red"))),
        ({"answers": {"text": ["blue"], "answer_start": [12]}}, ((12, "blue"),)),
        ({"answers": [{"text": "blue", "answer_start": 12}, {"text": "red"}]}, ((12, "blue"), (32, "red"))),
        ({"answers": {"text": [], "answer_start": []}}, ()),
        ({"answer": None, "answer_start": None}, ()),
        ({"answer": "", "answer_start": -1}, ()),
        ({"answer": "blue", "is_impossible": True}, ()),
    ],
)
def test_an_answer_is_read_in_each_shape_and_put_where_it_stands(
    tmp_path: Path, given_answer: dict[str, Any], found: tuple[tuple[int, str], ...]
) -> None:
    path = write(tmp_path / "data.jsonl", [{"context": TEXT, "criterion": "colours", **given_answer}])
    (document,) = read(path, SPAN, "data")
    assert document.question == "colours"
    assert document.answers == tuple(Answer(text, start) for start, text in found)


def answers(count: int, astray: int) -> list[dict[str, Any]]:
    rows = [{"text": f"{TEXT} {i}", "question": "gate?", "answer": "blue"} for i in range(count)]
    return rows + [{"text": f"{TEXT} {i}", "question": "gate?", "answer": "green"} for i in range(astray)]


def test_one_answer_in_a_hundred_may_be_astray_and_is_counted_and_left_out(tmp_path: Path) -> None:
    write(tmp_path / "data.jsonl", answers(99, 1))
    asked = TrainingManifest.model_validate({"name": "t", "task": "span", "dataset": {"path": "data.jsonl"}})
    documents = load_documents(asked, tmp_path)
    assert len(documents.train) + len(documents.validation) == 99
    assert documents.reading["answers"] == {"given": 100, "realigned": 0, "unaligned": 1}


def test_more_answers_astray_than_one_in_a_hundred_are_refused_with_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", answers(98, 2))
    with pytest.raises(DatasetRefused, match=r"2 of 100 answers \(2.0%\).*data:99, 'green'") as refused:
        read(path, SPAN, "data")
    assert refused.value.field == "dataset.answer_field"


def test_an_answer_that_occurs_twice_and_has_no_offset_is_astray(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [{"text": TEXT, "question": "q", "answer": "The"}])
    with pytest.raises(DatasetRefused, match="an answer without one must occur exactly once"):
        read(path, SPAN, "data")


@pytest.mark.parametrize(
    ("name", "content", "form", "field", "words"),
    [
        ("d.csv", "text,label\na,b,c\n", "classification", "dataset.path", "d.csv:2: the row has 3 fields"),
        ("d.csv", 'text,label\n"a\nb",x\nc\n', "classification", "dataset.path", "d.csv:4: .* 1 fields.*'label'"),
        ("d.csv", 'text,label\n"a"b,c\n', "classification", "dataset.path", "d.csv:2: the row that begins here is not"),
        ("d.csv", "text,text\na,b\n", "classification", "dataset.path", "'text' twice"),
        ("d.csv", "text,label\na,\n", "classification", "dataset.label_field", "d.csv:2: .*'label' is empty"),
        ("d.csv", "text,class\na,b\n", "classification", "dataset.label_field", "missing .*'class', 'text'"),
        ("d.csv", "text,question\na,b\n", "span", "dataset.answer_field", "the answer field 'answer' is missing"),
        ("d.csv", "text,question,answer,answer_start\na,b,a,x\n", "span", "dataset.answer_start_field", "'x'"),
        ("d.csv", "text,answer\na,a\n", "span", "dataset.format", "the field 'question' is missing"),
        ("d.parquet", "no parquet", "classification", "dataset.path", "cannot be read as Parquet"),
        ("d.jsonl", '{"text": "a", "label": 0.5}', "classification", "dataset.label_field", "holds 0.5"),
        ("d.jsonl", '{"prompt": "a", "completion": ""}', "auto", "dataset.format", "'completion' is empty"),
        ("d.jsonl", '{"instruction": "a", "input": 3, "output": "b"}', "auto", "dataset.format", "'input' is int"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_row_and_field(
    tmp_path: Path, name: str, content: str, form: str, field: str, words: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DatasetRefused, match=words) as refused:
        read(tmp_path / name, Form(form), name)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("record", "text", "completion"),
    [
        ({"prompt": "a?", "completion": "b"}, "a?\nb", "b"),
        ({"prompt": "a? ", "completion": "b"}, "a? b", "b"),
        ({"instruction": "sum", "input": "1 2", "output": "3"}, "sum\n\n1 2\n3", "3"),
        ({"instruction": "sum", "input": "", "output": "3"}, "sum\n3", "3"),
    ],
)
def test_a_prompt_and_its_completion_are_one_document_that_knows_where_the_completion_begins(
    tmp_path: Path, record: dict[str, str], text: str, completion: str
) -> None:
    (document,) = read(write(tmp_path / "data.jsonl", [record]), Form(), "data")
    assert document.text == text
    assert document.text[document.completion :] == completion
    assert document.messages is not None
    assert [turn.role for turn in document.messages] == ["user", "assistant"]


def test_fields_have_the_names_that_the_manifest_gives_them(tmp_path: Path) -> None:
    row = {"body": TEXT, "kind": "x", "ask": "gate?", "reply": "blue", "at": "12", "patient": 7}
    write(tmp_path / "data.csv", [row])
    names = {"text": "body", "label": "kind", "question": "ask", "answer": "reply", "answer_start": "at"}
    dataset = {"path": "data.csv", "group_field": "patient"} | {f"{key}_field": name for key, name in names.items()}
    asked = {"name": "t", "task": "joint", "dataset": dataset | {"splits": {"validation": 0}}}
    (document,) = load_documents(TrainingManifest.model_validate(asked), tmp_path).train
    assert seen(document) == (TEXT, "x", "gate?", (Answer("blue", 12),))
    assert document.group == "7"


def grouped(path: Path, groups: list[int], **dataset: Any) -> TrainingManifest:
    write(path, [{"text": f"text {i}", "label": "x", "who": group} for i, group in enumerate(groups)])
    return TrainingManifest.model_validate(
        {"name": "t", "task": "classification", "dataset": {"path": path.name, "group_field": "who", **dataset}}
    )


@given(groups=st.lists(st.integers(0, 12), min_size=4, max_size=40).filter(lambda groups: len(set(groups)) > 2))
def test_a_group_is_never_parted(tmp_path_factory: pytest.TempPathFactory, groups: list[int]) -> None:
    folder = tmp_path_factory.mktemp("groups")
    asked = grouped(folder / "data.jsonl", groups, splits={"validation": 0.4})
    try:
        documents = load_documents(asked, folder)
    except DatasetRefused:
        with pytest.raises(DatasetRefused, match="fall into the validation share"):
            load_documents(asked, folder)
        return
    train, held = ({document.group for document in part} for part in (documents.train, documents.validation))
    assert not train & held
    assert held


def test_a_group_on_both_sides_of_given_files_is_refused(tmp_path: Path) -> None:
    asked = grouped(tmp_path / "train.jsonl", [1, 2], splits={"validation_path": "held.jsonl"})
    write(tmp_path / "held.jsonl", [{"text": "another", "label": "x", "who": 2}])
    with pytest.raises(DatasetRefused, match="the first: '2'") as refused:
        load_documents(asked, tmp_path)
    assert refused.value.field == "dataset.group_field"


def test_a_record_without_its_group_is_refused(tmp_path: Path) -> None:
    asked = grouped(tmp_path / "train.jsonl", [1])
    write(tmp_path / "train.jsonl", [{"text": "a", "label": "x"}])
    with pytest.raises(DatasetRefused, match="every record needs one"):
        load_documents(asked, tmp_path)
