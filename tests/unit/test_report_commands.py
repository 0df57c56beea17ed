"""`tollgate report`: a run without naming a subcommand, the PDF of a browser, and two runs side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tollgate.contract import Files
from tollgate_trainer.report import pdf
from tollgate_trainer.report.commands import report


def put(root: Path, name: str, content: Any) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def trained(root: Path, loss: float, rate: float, digest: str = "sha256:1") -> Path:
    put(root, "outcomes/attempt-1/manifest.json", {"name": "n", "hyperparameters": {"learning_rate": rate}})
    events = [{"event": "data", "attempt": 1, "digest": digest}] + [
        {"event": "step", "attempt": 1, "step": n, "loss": loss + 1 / n, "tokens": 10 * n} for n in range(1, 20)
    ]
    put(root, Files.EVENTS, "\n".join(map(json.dumps, events)))
    return root


def tollgate(*arguments: object) -> Result:
    return CliRunner().invoke(report, [str(argument) for argument in arguments])


def program(folder: Path, text: str) -> str:
    """A browser that is a script: what it does with --print-to-pdf is up to the text."""
    path = folder / "browser"
    path.write_text(f"#!{sys.executable}\nimport sys\n{text}\n")
    path.chmod(0o755)
    return str(path)


PRINTS = """
target = next(a.split("=", 1)[1] for a in sys.argv if a.startswith("--print-to-pdf="))
open(target, "wb").write(b"%PDF-1.4 " + sys.argv[-1].encode())
"""


def test_a_folder_needs_no_subcommand(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", 2.0, 0.1)
    for arguments in ((run,), ("show", run)):
        done = tollgate(*arguments)
        assert done.exit_code == 0, done.output
        assert done.stdout.strip() == str(run / Files.REPORT)


def test_a_page_is_printed_whole_by_the_browser(tmp_path: Path) -> None:
    page = trained(tmp_path, 2.0, 0.1) / "page.html"
    page.write_text("<p>")
    made = pdf.write(page, tmp_path / "new" / "a.pdf", program(tmp_path, PRINTS))
    assert made.read_bytes() == b"%PDF-1.4 " + page.as_uri().encode()
    assert [path.name for path in made.parent.iterdir()] == ["a.pdf"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("print('no display'); sys.exit(1)", "made no PDF (no display)"),
        (PRINTS.replace("%PDF", "oops"), "made no PDF"),
        ("import time; time.sleep(60)", "did not print within 2 s"),
    ],
)
def test_a_browser_that_fails_leaves_nothing_and_says_what_to_install(tmp_path: Path, text: str, words: str) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>")
    with pytest.raises(pdf.PdfError) as refused:
        pdf.write(page, tmp_path / "a.pdf", program(tmp_path, text), seconds=2)
    assert words in str(refused.value)
    assert "install Chromium" in str(refused.value)
    assert not (tmp_path / "a.pdf").exists()


def test_without_a_browser_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(pdf, "BROWSERS", tuple(name for name in pdf.BROWSERS if not name.startswith("/")))
    run = trained(tmp_path / "run", 2.0, 0.1)
    done = tollgate(run, "--pdf")
    assert done.exit_code != 0
    assert "install Chromium" in done.output
    assert (run / Files.REPORT).is_file(), "the page is there all the same"


def test_the_sandbox_is_left_out_for_root_only(tmp_path: Path) -> None:
    for root in (True, False):
        arguments = pdf.command("chromium", tmp_path / "p.html", tmp_path / "p.pdf", tmp_path, root)
        assert ("--no-sandbox" in arguments) == root


def test_two_runs_are_compared_by_what_differs(tmp_path: Path) -> None:
    a, b = trained(tmp_path / "a", 2.0, 0.1), trained(tmp_path / "b", 1.5, 0.2)
    done = tollgate("compare", a, b, "-o", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["settings"] == [{"field": "hyperparameters.learning_rate", "a": "0.1", "b": "0.2"}]
    amounts = {row["name"]: (row["a"], row["b"]) for row in found["amounts"]}
    assert amounts["Training loss"] == pytest.approx((2 + 1 / 19, 1.5 + 1 / 19))
    assert "Cost" not in amounts, "what neither run knows is no row"
    assert found["notes"] == []
    page = Path(found["page"])
    assert page == b / "report" / "compare.html"
    html = page.read_text()
    assert html.count("<polyline") >= 4, "the losses of both, for wide and for narrow screens"
    assert "<script" not in html


def test_a_comparison_says_when_the_two_can_not_be_held_against_each_other(tmp_path: Path) -> None:
    a, b = trained(tmp_path / "a", 2.0, 0.1), trained(tmp_path / "b", 2.0, 0.1, "sha256:2")
    done = tollgate("compare", a, b, "--out", tmp_path / "c.html")
    assert done.exit_code == 0, done.output
    assert "different data" in done.output
    assert "no setting differs" in done.output
    assert (tmp_path / "c.html").is_file()


def test_runs_of_which_nothing_is_known_are_compared_without_numbers(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    done = tollgate("compare", tmp_path / "a", tmp_path / "b", "-o", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["amounts"] == []
