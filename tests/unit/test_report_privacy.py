"""A report without quotes: text of documents stands nowhere in it, also after a refresh or in a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tollgate.contract import Files
from tollgate_trainer.report import privacy, write
from tollgate_trainer.report.commands import report

CANARY = "zanzibar nightjar"
WRONG = {"label": "x", "predicted": "y", "probability_of_label": 0.1, "text": CANARY}
CLASSES = {
    "documents": 2,
    "labels": ["x", "y"],
    "confusion": [[1, 1], [0, 0]],
    "classes": [],
    "worst": [{"origin": "data.jsonl:7", **WRONG}],
}
SPAN = {"origin": "data.jsonl:9", "question": f"{CANARY}?", "text": CANARY, "right": [CANARY], "given": CANARY}
SPANS = {"documents": 2, "without_answer": 0, "threshold": None, "worst": [{**SPAN, "token_f1": 0.0}]}
REFUSED = {
    "schema": 1,
    "outcome": "failed",
    "reason": "DatasetRefused",
    "error": {"message": f"data.jsonl:3: it's {CANARY!r} and \"an 'old' {CANARY}\", not a label"},
}


def put(root: Path, name: str, content: Any) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def run(root: Path, **manifest: Any) -> Path:
    """An output folder in which everything that can quote does."""
    events = [
        {"event": "step", "attempt": 1, "step": 1, "loss": 1.0},
        {"event": "samples", "step": 1, "samples": [{"prompt": f"{CANARY} asks", "text": f"{CANARY} says"}]},
        {"event": "warning", "attempt": 1, "message": f"1 answer is lost: data.jsonl:4, {CANARY!r} is not there"},
    ]
    put(root, Files.EVENTS, "\n".join(map(json.dumps, events)))
    put(root, "evaluation/joint.json", {"classification": CLASSES, "span": SPANS})
    put(root, "outcomes/attempt-1/manifest.json", {"name": "private", **manifest})
    put(root, "outcomes/attempt-1/launcher-0.json", REFUSED)
    put(root, Files.RESULT, REFUSED)
    return root


def page(root: Path) -> str:
    return write(root).read_text()


def tollgate(*arguments: object) -> Result:
    return CliRunner().invoke(report, list(map(str, arguments)))


def written(root: Path) -> str:
    return "".join(path.read_text() for path in sorted((root / "report").iterdir()))


def test_with_quotes_all_of_it_stands_in_the_page(tmp_path: Path) -> None:
    assert page(run(tmp_path)).count(CANARY) >= 8, "or the other tests prove nothing"
    assert "It quotes documents" in page(tmp_path)


@pytest.mark.parametrize("how", ["flag", "manifest"])
def test_without_quotes_the_text_stands_nowhere_in_the_report(tmp_path: Path, how: str) -> None:
    root = run(tmp_path / "a", **({"report": {"quotes": False}} if how == "manifest" else {}))
    done = tollgate(root, *(["--no-quotes"] if how == "flag" else []))
    assert done.exit_code == 0, done.output
    text = written(root)
    assert "zanzibar" not in text
    assert "nightjar" not in text
    assert "It quotes no documents" in text
    assert "What the model wrote" not in text, "an empty section is no section"
    assert "data.jsonl:7" in text, "which documents they are is no text of theirs"
    assert "data.jsonl:9" in text
    assert "not a label" in text, "what went wrong is still told"


def test_a_refresh_does_not_bring_the_text_back_until_somebody_asks_for_it(tmp_path: Path) -> None:
    root = run(tmp_path)
    assert tollgate(root, "--no-quotes").exit_code == 0
    assert CANARY not in page(root), "as an evaluation, a gate or the end of a pod refreshes it"
    assert tollgate(root).exit_code == 0
    assert CANARY not in written(root)
    assert tollgate(root, "--quotes").exit_code == 0
    assert CANARY in written(root)


def test_a_comparison_quotes_nothing(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", report={"quotes": False}), run(tmp_path / "b", report={"quotes": False})
    done = tollgate("compare", a, b, "-o", "json")
    assert done.exit_code == 0, done.output
    assert "zanzibar" not in done.output + written(b)


def test_a_folder_that_holds_no_run_is_left_as_it_was(tmp_path: Path) -> None:
    done = tollgate(tmp_path, "--no-quotes")
    assert "holds no run" in str(done.exception) + done.output
    assert list(tmp_path.iterdir()) == []


def test_what_the_manifest_forbids_can_not_be_asked_for(tmp_path: Path) -> None:
    done = tollgate(run(tmp_path, report={"quotes": False}), "--quotes")
    assert done.exit_code != 0
    assert "report.quotes: false" in str(done.exception) + done.output
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"quotes": false}'])
def test_a_note_that_can_not_be_read_is_taken_for_a_no(tmp_path: Path, content: str) -> None:
    root = run(tmp_path)
    put(root, privacy.SETTINGS, content)
    assert not privacy.may_quote(root)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (f"the role {CANARY!r} is unknown", "the role '...' is unknown"),
        ('it holds "it\'s mine" here', "it holds '...' here"),
        ("the model's folder doesn't exist", "the model's folder doesn't exist"),
        (f"a: 'x\\'{CANARY}', b: 'y'", "a: '...', b: '...'"),
    ],
)
def test_what_a_message_quotes_is_masked_and_apostrophes_are_not(message: str, shown: str) -> None:
    assert privacy.masked(message) == shown
