"""`tollgate manifest init --data`: the manifest that fits a file, loaded as the trainer loads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.manifest.loader import load_bytes, load_file
from tollgate_cli.init import (
    ASKED,
    HELD_OUT,
    LARGEST_VOCABULARY,
    LONGEST,
    MOST_HELD_OUT,
    SMALLEST_VOCABULARY,
    TOKENS_PER_BATCH,
    Figures,
    batch_for,
    held_out_of,
    length_for,
    vocabulary_for,
    written,
)
from tollgate_cli.main import main
from tollgate_trainer.data import load_documents
from trainer_fixtures import write_chat


def test_a_manifest_made_for_a_file_reads_it_and_holds_its_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_chat(tmp_path / "talk.jsonl", 120)
    path = tmp_path / "m.yaml"
    assert main(["manifest", "init", str(path), "--data", str(tmp_path / "talk.jsonl")]) == 0
    loaded = load_file(path).manifest
    assert (loaded.dataset.path, loaded.dataset.format) == ("talk.jsonl", "chat")
    documents = load_documents(loaded, tmp_path)
    assert len(documents.train) + len(documents.validation) == 120
    capsys.readouterr()
    assert main(["dataset", "validate", str(path), "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [one for one in found if one["check"] in ("length", "loss")] == []
    assert main(["manifest", "init", str(path), "--data", str(tmp_path / "talk.jsonl")]) == 64, "written over"


def test_a_table_with_names_of_its_own_is_read_by_the_manifest_that_was_made_for_it(tmp_path: Path) -> None:
    rows = "".join(f'{n},"Where is parcel {n}?",{"late" if n % 2 else "lost"}\r\n' for n in range(60))
    (tmp_path / "t.csv").write_text(f"\ufeffid,Ticket Text,Label \r\n{rows},,\r\n", encoding="utf-8", newline="")
    path = tmp_path / "m.yaml"
    fields = ["--text-field", "Ticket Text", "--label-field", "Label"]
    assert main(["manifest", "init", str(path), "--data", str(tmp_path / "t.csv"), *fields]) == 0
    loaded = load_file(path).manifest
    assert (loaded.task, loaded.dataset.format) == ("classification", "classification")
    assert {document.label for document in load_documents(loaded, tmp_path).train} == {"late", "lost"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["m.yaml", "--base", "model"], "--base goes with --data"),
        (["m.yaml", "--data", "broken.jsonl"], "broken.jsonl is not JSON"),
        (["m.yaml", "--data", "broken.jsonl"], "All problems at once: tollgate dataset validate broken.jsonl"),
        (["m.yaml", "--label-field", "Team"], "--label-field says something about --data"),
        (["m.yaml", "--data", "../outside.jsonl"], "does not lie below"),
        (["m.yaml", "--data", "broken.jsonl", "--base", "none"], "there is no folder"),
    ],
)
def test_what_cannot_be_fitted_is_told_and_nothing_is_written(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jsonl").write_text('{"text": ')
    tmp_path.with_name("outside.jsonl").touch()
    assert main(["manifest", "init", *arguments]) == 64
    assert words in capsys.readouterr().err
    assert not (tmp_path / "m.yaml").exists()


@given(st.integers(1, 20_000), st.integers(0, 20_000), st.integers(1, 1_000_000))
def test_length_and_batch_fit_each_other(p95: int, more: int, documents: int) -> None:
    length = length_for(p95, p95 + more)
    assert 32 <= length <= LONGEST
    assert length % 16 == 0
    assert length >= min(p95, LONGEST)
    micro, accumulation = batch_for(length, documents)
    assert micro * accumulation in (4, 8, 16)
    assert micro == 1 or micro * length <= TOKENS_PER_BATCH


@given(st.integers(1, 2_000_000))
def test_what_is_held_out_is_enough_for_a_gate_or_the_most_that_is_sensible(documents: int) -> None:
    share = held_out_of(documents)
    held = share * documents
    assert 0 < share <= 0.3
    # A split by hash is binomial: 2.3 standard deviations below the mean, 1 run in 100, leaves what gates ask for.
    assert share == 0.3 or held - 2.3 * (held * (1 - share)) ** 0.5 >= ASKED
    assert held <= max(HELD_OUT, min(0.05 * documents, MOST_HELD_OUT)) + documents / 1000 + 1


@given(st.integers(1, 100_000))
def test_the_vocabulary_holds_the_tokenizer_s_entries(entries: int) -> None:
    size = vocabulary_for(entries)
    assert size % 64 == 0
    assert SMALLEST_VOCABULARY <= size <= LARGEST_VOCABULARY
    assert size >= min(entries, LARGEST_VOCABULARY)


@pytest.mark.parametrize(("documents", "warned"), [(186, True), (900, False), (50_000, False)])
def test_a_manifest_says_when_too_little_can_be_held_out_for_a_gate(documents: int, warned: bool) -> None:
    text = written("d.jsonl", "m", Figures("chat", documents, 60, 80, 0, "Tokens.", 1085), None)
    assert ("stays Inconclusive" in text) is warned
    loaded = load_bytes(text.encode(), "made").manifest
    assert loaded.dataset.splits.validation == held_out_of(documents)
    assert (loaded.model.config or {})["vocab_size"] == 1088
    asked = loaded.hyperparameters
    batch = asked.per_device_train_batch_size * asked.gradient_accumulation_steps
    steps = asked.num_train_epochs * documents * (1 - loaded.dataset.splits.validation) / batch
    assert 10 <= steps / asked.logging_steps <= 60, "lines of the log"


@pytest.mark.parametrize("format", ["auto", "chat", "text", "conversations", "prompt_completion", "classification"])
@pytest.mark.parametrize("base", [None, "models/base", "no"])
def test_every_manifest_that_is_written_can_be_loaded(format: str, base: str | None) -> None:
    text = written("no", "yes", Figures(format, 70, 300, 9000, 3, "Tokens."), base)
    loaded = load_bytes(text.encode(), "made").manifest
    assert (loaded.name, loaded.dataset.path, loaded.model.base) == ("yes", "no", base)


@pytest.mark.parametrize("format", ["span", "joint"])
@pytest.mark.parametrize("longest", [8, 5000])
def test_windows_of_a_text_fit_its_length(format: str, longest: int) -> None:
    text = written("d.jsonl", "m", Figures(format, 70, longest, longest, 0, "Tokens."), None)
    loaded = load_bytes(text.encode(), "made").manifest
    assert loaded.task == format
    assert loaded.span.doc_stride < loaded.hyperparameters.max_seq_length
