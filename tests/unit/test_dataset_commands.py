"""`tollgate dataset` as a person runs it: what it says, which files it leaves, and its exit codes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tollgate.manifest.loader import load_file
from tollgate_cli.main import main
from tollgate_trainer.data import load_documents
from tollgate_trainer.data.documents import Document, Form, Message, read
from tollgate_trainer.data.tokens import tokenise
from tollgate_trainer.models import tokenizer as tokenizers
from trainer_fixtures import manifest, write_chat, write_conversations

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dataset(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`tollgate dataset ...` -> (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["dataset", *map(str, arguments)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


def answer(said: tuple[int, str, str]) -> dict[str, Any]:
    assert said[2] == ""
    found: dict[str, Any] = json.loads(said[1])
    return found


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def chat(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


def write_manifest(folder: Path, data: Path, **changes: Any) -> Path:
    document = manifest(**changes)
    document["dataset"] = {"path": data.name, **changes.get("dataset", {})}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder / "manifest.yaml"


def plain(path: Path) -> list[Document]:
    return read(path, Form(), path.name)


# --- analyze ----------------------------------------------------------------------------------------------------------


def test_tokens_are_those_that_the_run_will_train_on(tmp_path: Path, dataset: Command) -> None:
    path = write_manifest(tmp_path, write_chat(tmp_path / "data.jsonl"))
    found = answer(dataset("analyze", path, "-o", "json"))
    loaded = load_file(path).manifest
    documents = load_documents(loaded, tmp_path)
    tokenizer = tokenizers.from_json(tokenizers.train(documents.train, 600))
    for name, part in (("train", documents.train), ("validation", documents.validation)):
        assert found["parts"][name]["lengths"]["total"] == sum(tokenise(part, tokenizer, 10_000).lengths)
    assert (found["unit"], found["maxSeqLength"]) == ("tokens", 48)
    assert "trained on these documents" in found["counted"]


def test_a_bare_file_is_counted_whole_and_words_need_no_tokenizer(tmp_path: Path, dataset: Command) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"text": "one two"}, {"text": "One  TWO"}, {"text": "three"})
    found = answer(dataset("analyze", path, "--words", "-o", "json"))
    assert found["parts"]["data"]["lengths"] | {"mean": 0} == {
        "count": 3, "least": 1, "mean": 0, "p50": 2, "p95": 2, "most": 2, "total": 5,
    }  # fmt: skip
    assert found["parts"]["data"]["duplicates"]["normalised"] == 1
    code, said, _ = dataset("analyze", path, "--words")
    assert code == 0
    assert "Words between white space are counted, not tokens." in said


def test_a_preview_of_targets_can_be_read_by_a_script(tmp_path: Path, dataset: Command) -> None:
    (tmp_path / "d.csv").write_text("text,label\na,x\nb,x\nc,y\n", encoding="utf-8")
    taught = answer(dataset("preview", tmp_path / "d.csv", "-n", 3, "-o", "json"))["documents"]
    assert [(one["text"], one["label"]) for one in taught] == [("a", "x"), ("b", "x"), ("c", "y")]
    asked = jsonl(tmp_path / "s.jsonl", {"text": "It is red.", "question": "Which?", "answer": "red"})
    taught = answer(dataset("preview", asked, "-o", "json"))["documents"]
    assert taught[0]["answers"] == [{"text": "red", "start": 6}]
    assert taught[0]["question"] == "Which?"


def test_a_table_with_labels_is_seen_as_one(tmp_path: Path, dataset: Command) -> None:
    (tmp_path / "d.csv").write_text("text,label\na,x\nb,x\nc,y\n", encoding="utf-8")
    assert answer(dataset("analyze", tmp_path / "d.csv", "--words", "-o", "json"))["parts"]["data"]["labels"] == {
        "x": 2,
        "y": 1,
    }


def test_a_given_tokenizer_is_the_one_that_counts(tmp_path: Path, dataset: Command) -> None:
    path = write_conversations(tmp_path / "data.json")
    tokenizer = tokenizers.from_json(tokenizers.train([Document("abc", "x")], 600))
    tokenizer.save_pretrained(tmp_path / "tok")
    found = answer(dataset("analyze", path, "--tokenizer", tmp_path / "tok", "-o", "json"))
    wanted = sum(len(tokenizer(d.text)["input_ids"]) + 1 for d in plain(path))
    assert found["parts"]["data"]["lengths"]["total"] == wanted
    assert str(tmp_path / "tok") in found["counted"]


@pytest.mark.parametrize("width", ["60", "80", "120"])
def test_no_line_is_wider_than_the_terminal(
    width: str, tmp_path: Path, dataset: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    path = write_chat(tmp_path / "data.jsonl")
    for command in (("analyze", path, "--words"), ("validate", path)):
        _, said, _ = dataset(*command)
        assert max(map(len, said.splitlines())) <= int(width)


# --- preview ----------------------------------------------------------------------------------------------------------


def test_preview_shows_which_documents_share_a_row_as_the_training_will_have_them(
    dataset: Command, tmp_path: Path
) -> None:
    data = jsonl(tmp_path / "data.jsonl", *({"text": f"{n} gate " + "toll " * (n % 7)} for n in range(60)))
    steps = {"packing": "auto", "max_seq_length": 32, "per_device_train_batch_size": 2}
    path = write_manifest(tmp_path, data, hyperparameters=steps)
    found = answer(dataset("preview", path, "-o", "json"))["packing"]
    assert found["rowTokens"] == 32
    assert found["rows"] < found["documents"]
    assert found["fill"] > 0.9
    assert len(found["first"]) == 2, "a batch has two rows"
    assert all(sum(place["tokens"] for place in row) <= 32 for row in found["first"])
    _, said, _ = dataset("preview", path)
    assert f"packed: {found['documents']} documents in {found['rows']} rows" in said
    assert found["first"][0][0]["origin"] in said
    assert "packing" not in answer(dataset("preview", data, "-o", "json"))


def test_only_the_answers_are_marked_as_trained(tmp_path: Path, dataset: Command) -> None:
    path = jsonl(tmp_path / "d.jsonl", *(chat(("user", "the gate?"), ("assistant", "is open")) for _ in range(5)))
    code, said, _ = dataset("preview", path, "-n", 1)
    assert code == 0
    assert "[[is open<|end|>]]" in said
    assert "the gate?<|end|>" in said
    assert "WARNING" not in said


def test_the_share_of_trained_tokens_is_the_trainers_own(tmp_path: Path, dataset: Command) -> None:
    path = write_manifest(tmp_path, write_chat(tmp_path / "data.jsonl"), hyperparameters={"max_seq_length": 25})
    found = answer(dataset("preview", path, "-o", "json", "-n", 30))
    documents = load_documents(load_file(path).manifest, tmp_path)
    tokenizer = tokenizers.from_json(tokenizers.train(documents.train, 600))
    figures = tokenise(documents.train, tokenizer, 25).statistics
    assert found["sums"]["trained"] == figures.loss_tokens
    assert found["sums"]["untaught"] == figures.dropped_samples
    assert found["sums"]["cutTokens"] == figures.truncated_tokens
    kinds = {segment["part"] for document in found["documents"] for segment in document["segments"]}
    assert kinds == {"read", "trained", "cut"}


def test_a_limit_that_leaves_nothing_to_learn_is_told_aloud(tmp_path: Path, dataset: Command) -> None:
    path = write_chat(tmp_path / "d.jsonl")
    _, said, _ = dataset("preview", path, "--max-length", 8)
    assert "WARNING: No token carries loss" in said


# --- validate ---------------------------------------------------------------------------------------------------------


def test_all_records_that_cannot_be_read_are_told_at_once(tmp_path: Path, dataset: Command) -> None:
    path = jsonl(
        tmp_path / "d.jsonl",
        chat(("user", "a"), ("assistant", "b")),
        chat(("bot", "a"), ("assistant", "b")),
        chat(("user", "a")),
        chat(("user", "c"), ("assistant", "d")),
    )
    code, said, _ = dataset("validate", path)
    assert code == 1
    assert "d.jsonl:2.messages[0]: role 'bot'" in said
    assert "d.jsonl:3: no assistant message" in said
    assert "data 2 documents" in said
    assert "2 errors" in said


def test_every_empty_entry_of_a_list_is_told_by_its_own_number(tmp_path: Path, dataset: Command) -> None:
    (tmp_path / "d.json").write_text(json.dumps({"conversations": [{"text": ""}, {"text": "a"}, {"text": " "}]}))
    code, said, _ = dataset("validate", tmp_path / "d.json")
    assert code == 1
    assert "d.json.conversations[0]: the text field 'text' is empty" in said
    assert "d.json.conversations[2]: the text field 'text' is empty" in said


def test_a_held_out_file_that_is_trained_on_fails_and_a_nearly_equal_one_warns(
    tmp_path: Path, dataset: Command
) -> None:
    long = "the driver took a ticket at the gate and crossed the bridge over the river late at night before it closed"
    train = jsonl(tmp_path / "train.jsonl", {"text": long}, {"text": "a road"}, {"text": "a lane"})
    same = jsonl(tmp_path / "same.jsonl", {"text": "A  road"})
    close = jsonl(tmp_path / "close.jsonl", {"text": f"{long} again"})
    other = jsonl(tmp_path / "other.jsonl", {"text": "nothing like it"})
    assert dataset("validate", train, "--against", same)[0] == 1
    found = answer(dataset("validate", train, "--against", close, "-o", "json"))
    assert (found["passed"], [one["check"] for one in found["findings"]]) == (True, ["leakage"])
    assert found["findings"][0]["count"] == 1
    assert dataset("validate", train, "--against", close, "--strict")[0] == 1
    assert dataset("validate", train, "--against", other, "--strict")[0] == 0
    held_out = write_manifest(tmp_path, train, dataset={"splits": {"validation_path": "same.jsonl"}})
    code, said, _ = dataset("validate", held_out)
    assert code == 1
    assert "same.jsonl is train.jsonl:2" in said


def test_lengths_personal_data_and_another_version_of_the_file_are_found(tmp_path: Path, dataset: Command) -> None:
    words = " ".join(f"word{number}" for number in range(200))
    records = [{"text": f"{words} {number}"} for number in range(20)] + [{"text": "write to ann.lee@example.com"}]
    path = write_manifest(
        tmp_path,
        jsonl(tmp_path / "d.jsonl", *records),
        dataset={"sha256": "0" * 64, "splits": {"validation": 0.0}},
    )
    found = answer(dataset("validate", path, "-o", "json"))
    severities = {one["check"]: one["severity"] for one in found["findings"]}
    assert severities["digest"] == "error"
    assert severities["length"] == severities["personal data"] == "warning"
    (private,) = [one for one in found["findings"] if one["check"] == "personal data"]
    assert "ann" not in json.dumps(private)


# --- sample, split, convert -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt"])
def test_a_sample_is_a_file_of_the_same_kind_and_the_same_each_time(
    suffix: str, tmp_path: Path, dataset: Command
) -> None:
    source = jsonl(tmp_path / "lines.jsonl", *({"text": f"text {number}", "id": number} for number in range(40)))
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".jsonl":
        whole = source
    else:
        assert dataset("convert", source, whole)[0] == 0
    assert len(plain(whole)) == 40
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    for path in (first, second):
        assert dataset("sample", whole, "-n", 10, "--to", path)[0] == 0
    assert first.read_bytes() == second.read_bytes()
    assert len(plain(first)) == 10
    assert {d.text for d in plain(first)} <= {d.text for d in plain(source)}
    assert dataset("sample", whole, "-n", 10, "--to", first)[0] == 64, "a file was written over"


def test_a_split_writes_what_the_manifest_can_check(tmp_path: Path, dataset: Command) -> None:
    source = jsonl(
        tmp_path / "d.jsonl", *({"text": f"text {number}", "patient": f"p{number % 15}"} for number in range(60))
    )
    code, said, _ = dataset("split", source, "--group-field", "patient", "--test", 0.2, "--into", tmp_path / "parts")
    assert code == 0
    files = [tmp_path / "parts" / f"d-{name}.jsonl" for name in ("train", "validation", "test")]
    groups = [{json.loads(line)["patient"] for line in path.read_text().splitlines()} for path in files]
    assert sum(map(len, groups)) == 15
    printed = yaml.safe_load(said[said.index("dataset:") :])
    pasted = tmp_path / "parts" / "manifest.yaml"
    pasted.write_text(yaml.safe_dump({**manifest(), **printed}))
    documents = load_documents(load_file(pasted).manifest, pasted.parent)
    assert len(documents.train) == len(plain(files[0]))
    assert dataset("split", files[0], "--group-field", "patient", "--check", files[1], "--check", files[2])[0] == 0
    moved = jsonl(tmp_path / "moved.jsonl", {"text": "quite another text", "patient": sorted(groups[0])[0]})
    code, said, _ = dataset("split", files[0], "--group-field", "patient", "--check", moved)
    assert code == 1
    assert "group 'p" in said


SHAREGPT = {"id": 7, "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}
TALK = (Message("user", "hi"), Message("assistant", "hello"))


def test_what_other_tools_write_becomes_chat(tmp_path: Path, dataset: Command) -> None:
    shared = tmp_path / "shared.json"
    shared.write_text(json.dumps([SHAREGPT]))
    alpaca = tmp_path / "alpaca.json"
    alpaca.write_text(json.dumps([{"instruction": "Say", "input": "this", "output": "this", "text": "all of it"}]))
    assert dataset("convert", shared, tmp_path / "a.jsonl")[0] == 0
    assert dataset("convert", alpaca, tmp_path / "b.jsonl")[0] == 0
    (one,) = plain(tmp_path / "a.jsonl")
    assert one.messages == TALK
    assert json.loads((tmp_path / "a.jsonl").read_text())["id"] == 7
    (other,) = plain(tmp_path / "b.jsonl")
    assert other.messages == (Message("user", "Say\n\nthis"), Message("assistant", "this"))


def test_what_does_not_fit_is_counted_and_nothing_is_written_unless_it_may_be_dropped(
    tmp_path: Path, dataset: Command
) -> None:
    source = jsonl(
        tmp_path / "d.jsonl",
        chat(("user", "a"), ("assistant", "b")),
        chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
    )
    to = tmp_path / "out.csv"
    code, _, error = dataset("convert", source, to, "--shape", "prompt_completion")
    assert code == 64
    assert "1 of 2 documents" in error
    assert "d.jsonl:2: it has the turns user, assistant, user, assistant" in error
    assert list(tmp_path.iterdir()) == [source]
    found = answer(dataset("convert", source, to, "--shape", "prompt_completion", "--drop", "-o", "json"))
    assert (found["read"], found["written"], len(found["leftOut"])) == (2, 1, 1)
    assert list(csv.DictReader(to.open())) == [{"prompt": "a", "completion": "b"}]


@pytest.mark.parametrize(
    ("text", "to", "words"),
    [
        ("one\n\ntwo", "out.txt", "blank line"),
        ("one\r\ntwo", "out.csv", "would not read back"),
        ("one", "out.jsonl", "exists"),
        ("one", "out.xml", "the suffix says the file type"),
    ],
)
def test_a_file_that_would_not_hold_the_same_is_not_written(
    text: str, to: str, words: str, tmp_path: Path, dataset: Command
) -> None:
    source = jsonl(tmp_path / "d.jsonl", {"text": text})
    (tmp_path / "out.jsonl").write_text("precious")
    code, _, error = dataset("convert", source, tmp_path / to)
    assert code == 64
    assert words in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.jsonl", "out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "precious"


def test_tables_go_from_type_to_type_and_back(tmp_path: Path, dataset: Command) -> None:
    record = {"context": "The gate is blue.", "question": "Which?", "answers": {"text": ["blue"], "answer_start": [12]}}
    path = jsonl(tmp_path / "a.jsonl", record, {**record, "answers": {"text": [], "answer_start": []}})
    for suffix in (".parquet", ".csv", ".tsv", ".json"):
        to = tmp_path / f"b{suffix}"
        assert dataset("convert", path, to)[0] == 0
        path = to
    one, other = read(path, Form(format="span"), path.name)
    assert one.answers is not None
    assert [(a.text, a.start) for a in one.answers] == [("blue", 12)]
    assert other.answers == ()


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("analyze", "d.jsonl", "--set", "name=m"), "--set and --overlay go with a manifest"),
        (("analyze", "manifest.yaml", "--set", "nmae=m"), "there is no such field"),
        (("analyze", "manifest.yaml", "--format", "chat"), "--format cannot be combined with a manifest"),
        (("analyze", "broken.jsonl"), "broken.jsonl:2 is not JSON"),
        (("analyze", "d.jsonl", "--words", "--tokenizer", "."), "keep one"),
        (("analyze", "d.jsonl", "--tokenizer", "absent"), "is no folder"),
        (("preview", "d.jsonl", "--format", "chat"), "d.jsonl:1: the keys ['text'] are not of format chat"),
        (("validate", "manifest.yaml", "--against", "d.jsonl"), "--against goes with a data file"),
        (("sample", ".", "-n", 1, "--to", "x.jsonl"), "is a folder"),
        (("sample", "d.jsonl", "-n", 1, "--to", "x.csv"), "another type"),
        (("split", "d.jsonl", "--validation", 0.9, "--test", 0.9), "together must lie between 0 and 1"),
        (("split", "d.jsonl", "--group-field", "who"), "the group field 'who' is missing"),
        (("convert", "d.jsonl", "d.jsonl"), "is the file that is read"),
        (("convert", "d.jsonl", "c.jsonl", "--shape", "chat"), "a text does not say which part is the question"),
        (("convert", "odd.jsonl", "c.jsonl"), "of no known shape"),
        (("analyze", "shared.json"), "make chat of it: tollgate dataset convert shared.json chat.jsonl"),
        (("validate", "shared.json"), "make chat of it: tollgate dataset convert shared.json chat.jsonl"),
    ],
)
def test_bad_input_is_one_line_with_the_fix(
    arguments: tuple[object, ...], words: str, tmp_path: Path, dataset: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = jsonl(tmp_path / "d.jsonl", {"text": "one"}, {"text": "two"})
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    jsonl(tmp_path / "odd.jsonl", {"sentence": "a"}, {"sentence": "b"})
    (tmp_path / "shared.json").write_text(json.dumps([SHAREGPT]))
    write_manifest(tmp_path, data)
    before = sorted(path.name for path in tmp_path.iterdir())
    code, said, error = dataset(*arguments)
    assert (code, said) == (64, "")
    assert words in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before
