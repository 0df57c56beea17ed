"""Data as people bring it: what is told about it, and what is left when the broken part is dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tollgate_trainer.data.document import Document
from tollgate_trainer.data.documents import Form
from tollgate_trainer.dataset import checks, making
from tollgate_trainer.dataset.converting import convert, refuse_unfit
from tollgate_trainer.dataset.inspection import inspect
from tollgate_trainer.refusal import DatasetRefused

TALK = {"messages": [{"role": "user", "content": "toll?"}, {"role": "assistant", "content": "two"}]}
STRANGE = {"messages": [{"role": "human", "content": "toll?"}, {"role": "gpt", "content": "two"}]}


def broken(folder: Path) -> Path:
    """Lines 1 and 5 are good, 2 to 4 are each wrong in a way of its own."""
    cut = json.dumps(TALK)[:-1] + ",}"
    path = folder / "d.jsonl"
    path.write_text(
        "\n".join([json.dumps(TALK), cut, json.dumps(STRANGE), json.dumps({"messages": []}), json.dumps(TALK)])
    )
    return path


def test_a_line_that_is_no_json_hides_none_of_the_problems_behind_it(tmp_path: Path) -> None:
    found = inspect(broken(tmp_path), Form(), "d.jsonl")
    assert len(found.documents) == 2
    assert [str(problem.args[0]).split(" ")[0].rstrip(":") for problem in found.problems] == [
        "d.jsonl:2",
        "d.jsonl:3.messages[0]",
        "d.jsonl:4",
    ]
    assert found.stopped == ()


def test_a_row_with_too_many_fields_hides_none_of_the_rows_behind_it(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("text,label\na,x\nb,c,x\nd,y\n")
    found = inspect(tmp_path / "d.csv", Form("classification"), "d.csv")
    assert [document.text for document in found.documents] == ["a", "d"]
    assert "d.csv:3: the row has 3 fields" in str(found.problems[0])


def test_what_cannot_be_read_stops_a_conversion_and_is_left_out_when_it_may_be(tmp_path: Path) -> None:
    found = convert(broken(tmp_path), "d.jsonl", Form(), None, tmp_path / "e.jsonl")
    assert (found.read, found.written) == (5, 2)
    assert [where for where, _ in found.unfit] == ["d.jsonl:2", "d.jsonl:3.messages[0]", "d.jsonl:4"]
    with pytest.raises(DatasetRefused, match="3 of 5 documents"):
        refuse_unfit(found, "d.jsonl")


@pytest.mark.parametrize(
    "text", ["I didn\u00e2\u20ac\u2122t", "Th\u00c3\u00a9 gate", "\u00f0\u0178\u02dc\u20ac", "a\ufffdb"]
)
def test_text_that_was_read_with_a_wrong_encoding_is_noticed(text: str) -> None:
    (found,) = checks.miscoded(
        "train", [Document("fine: \u00e9\u00fc\u00e2 \u201cx\u201d \U0001f600", "d:1"), Document(text, "d:2")]
    )
    assert found.count == 1
    assert found.examples[0].startswith("d:2: ")


def test_labels_that_differ_in_case_alone_are_named() -> None:
    documents = [Document(f"t{n}", f"d:{n}", label=label) for n, label in enumerate(["Praise", "praise", "Other"])]
    found = [one for one in checks.labels([("train", documents)], least=1) if "case alone" in one.message]
    assert [one.examples for one in found] == [("'Praise' and 'praise'",)]


def test_the_lines_for_a_manifest_name_the_files_from_its_folder(tmp_path: Path) -> None:
    found = {
        "train": (tmp_path / "splits" / "d-train.jsonl", 2, "sha256:aa", 10),
        "validation": (tmp_path / "splits" / "d-validation.jsonl", 1, "sha256:bb", 5),
    }
    said = making.manifest_lines(found, tmp_path)
    assert "path: splits/d-train.jsonl" in said
    assert "validation_path: splits/d-validation.jsonl" in said
