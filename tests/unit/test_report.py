"""The report: made from files only, complete with little, safe with anything, and right about what it shows."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.contract import Files
from tollgate.gates import evidence
from tollgate.manifest import canonical
from tollgate_trainer.report import build, charts, write
from tollgate_trainer.report.format import number, size
from tollgate_trainer.report.page import flatten, loss_chart
from tollgate_trainer.report.record import read

D = "sha256:" + "0" * 64


class Page(HTMLParser):
    """Text of a page, its tags, and every address in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def put(root: Path, name: str, content: Any) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def step(number: int, loss: float | str, attempt: int = 1) -> dict[str, Any]:
    time = datetime(2026, 11, 20, 12, attempt, number % 60, tzinfo=UTC).isoformat()
    return {"time": time, "event": "step", "attempt": attempt, "step": number, "total_steps": 40, "loss": loss,
            "learning_rate": 1e-3, "grad_norm": 1.5, "tokens": number * 100, "tokens_per_second": 2000.0}  # fmt: skip


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run that was restarted once, evaluated and judged, as its files tell it."""
    root = tmp_path / "out"
    events = [
        {"time": "2026-11-20T12:00:00+00:00", "event": "start", "attempt": 1},
        {"time": "2026-11-20T12:00:01+00:00", "event": "data", "attempt": 1, "digest": D,
         "train": {"documents": 90, "tokens": 9000}, "validation": {"documents": 10, "tokens": 1000}},
        {"time": "2026-11-20T12:00:02+00:00", "event": "plan", "attempt": 1, "total_steps": 40, "parameters": 1000},
        *(step(n, 5 - n / 20) for n in range(1, 26)),
        {"time": "2026-11-20T12:01:59+00:00", "event": "start", "attempt": 2},
        {"time": "2026-11-20T12:01:59+00:00", "event": "restore", "attempt": 2, "step": 20},
        *(step(n, 9 - n / 20, 2) for n in range(21, 41)),
        {"time": "2026-11-20T12:02:30+00:00", "event": "eval", "attempt": 2, "step": 40, "eval_loss": 3.25},
        {"time": "2026-11-20T12:02:31+00:00", "event": "warning", "attempt": 2, "message": "checkpoint 24 is not used"},
    ]  # fmt: skip
    put(root, Files.EVENTS, "\n".join(json.dumps(event) for event in events) + '\n{"time": "cut off')
    manifest = {"name": "counsel <b>", "dataset": {"path": "d"}, "hyperparameters": {"learning_rate": 0.001}}
    data = canonical.serialise(manifest)
    put(root, "outcomes/attempt-2/manifest.json", data.decode())
    put(
        root,
        "outcomes/attempt-1/launcher-0.json",
        {"schema": 1, "outcome": "failed", "reason": "Killed", "step": 25, "error": {"message": "killed by signal 9"}},
    )
    last = {"schema": 1, "outcome": "completed", "reason": "Completed", "step": 40, "totalSteps": 40,
            "goodputSeconds": {"step": 80.0, "import": 15.0, "lost": 5.0}, "resumedFromStep": 20}  # fmt: skip
    put(root, "outcomes/attempt-2/launcher-0.json", last)
    put(root, Files.RESULT, last)
    put(root, "model/model_info.json",
        {"digest": D, "manifest_digest": canonical.digest(data), "dataset_digest": D,
         "files": [{"path": "model.safetensors", "size": 4_500_000, "sha256": "ab" * 32}]})  # fmt: skip
    facts = evidence.Evaluated(
        run="counsel", uid="u", model_path="model", model_digest=D, manifest_digest=D, dataset_digest=D,
        suites=["standard"], suite_digest=D, code_version="1", seeds={"standard": 1},
        scorers=[evidence.Scorer(name="perplexity", version="1")],
        metrics=[
            evidence.Measured(name="perplexity", value=41.5, lower=38.25, upper=44.75, confidence=0.95, samples=300)
        ],
        evaluated_at=datetime(2026, 11, 20, 12, 5, tzinfo=UTC),
    )  # fmt: skip
    (root / "evaluation").mkdir()
    (root / Files.EVIDENCE).write_bytes(evidence.statement_bytes(facts))
    check = {"metric": "perplexity", "op": "<=", "threshold": 40, "bound": "upper", "verdict": "Inconclusive",
             "reason": "the interval straddles 40"}  # fmt: skip
    put(
        root,
        "evaluation/gates.json",
        {
            "policy": "care",
            "stages": [{"stage": "staging", "verdict": "Inconclusive", "policyDigest": D, "checks": [check]}],
        },
    )
    put(
        root,
        Files.SECONDS_USED,
        {"segments": [{"uid": "u", "attempt": 1, "pod": "p", "started": 0.0, "until": 3600.0, "closed": True}]},
    )
    put(root, "logs/price.json", {"usdPerHour": "2.50"})
    return root


def test_the_report_says_how_it_ended_what_was_measured_and_what_was_demanded(finished: Path) -> None:
    text = Page(build(finished)).text
    for words in (
        "Completed", "40 of 40", "2.50 USD", "1h", "staging: Inconclusive", "by care", "41.5", "38.25", "44.75", "300",
        "staging: upper bound <= 40", "the interval straddles 40", "failed (Killed) at step 25", "killed by signal 9",
        "step 20", "80% of the time went into training steps", "lost (done again after a restart)", "learning_rate",
        "model.safetensors", "4.5 MB", D, "checkpoint 24 is not used", "9,000",
    ):  # fmt: skip
        assert words in text, words


def test_the_report_needs_nothing_but_itself(finished: Path) -> None:
    html = build(finished)
    page = Page(html)
    assert page.addresses == []
    assert "script" not in page.tags
    assert not re.search(r"url\(|@import|https?://", html)


def test_what_people_wrote_is_shown_as_text_never_as_markup(finished: Path) -> None:
    html = build(finished)
    assert "counsel &lt;b&gt;" in html
    assert "counsel <b>" not in html


def test_steps_that_were_done_again_are_shown_as_they_were_done_last_and_the_restart_is_marked(finished: Path) -> None:
    record = read(finished)
    assert [point.step for point in record.steps] == list(range(1, 41))
    assert record.steps[21].loss == pytest.approx(9 - 22 / 20)
    chart = loss_chart(record)
    assert chart is not None
    assert "went on from step 20" in chart.wide


def test_a_folder_with_nothing_in_it_gives_a_report_that_says_so(tmp_path: Path) -> None:
    text = Page(build(tmp_path)).text
    assert "Not finished" in text
    assert "Evaluation" not in text


@pytest.mark.parametrize(
    "name", [Files.RESULT, Files.EVENTS, Files.EVIDENCE, "evaluation/gates.json", Files.SECONDS_USED]
)
@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"a": 1}'])
def test_a_file_that_is_missing_or_broken_leaves_its_part_out(finished: Path, name: str, content: str | None) -> None:
    path = finished / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert "Files and digests" in Page(build(finished)).text


def test_evidence_that_was_edited_is_named_and_not_shown(finished: Path) -> None:
    path = finished / Files.EVIDENCE
    path.write_bytes(path.read_bytes().replace(b"41.5", b"13.25"))
    assert "13.25" in Page(build(finished)).text, "canonical bytes with another number are another statement"
    path.write_bytes(path.read_bytes() + b"\n")
    text = Page(build(finished)).text
    assert "not in canonical form" in text
    assert "13.25" not in text


def test_a_loss_that_is_not_a_number_leaves_a_gap_in_the_chart(finished: Path) -> None:
    with (finished / Files.EVENTS).open("a") as file:
        file.write("\n" + json.dumps(step(41, "nan", 2)) + "\n")
    record = read(finished)
    assert record.steps[-1].loss is None
    assert "nan" not in build(finished)


def test_writing_it_again_refreshes_it(finished: Path) -> None:
    path = write(finished)
    assert path == finished / Files.REPORT
    put(finished, Files.RESULT, {"schema": 1, "outcome": "stopped", "reason": "BudgetExceeded"})
    write(finished)
    assert "Stopped: BudgetExceeded" in Page(path.read_text()).text


@given(low=st.floats(-1e9, 1e9), span=st.floats(0, 1e9), count=st.integers(2, 9))
def test_the_ticks_of_an_axis_hold_its_values_and_are_not_too_many(low: float, span: float, count: int) -> None:
    high = low + span
    found = charts.ticks(low, high, count)
    slack = (found[-1] - found[0]) * 1e-6
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert 2 <= len(found) <= 2 * count + 3
    assert found == sorted(set(found))


POINTS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=900).map(
    lambda points: sorted(dict(points).items())
)


@given(points=POINTS)
def test_thinning_keeps_the_ends_and_every_extreme(points: list[tuple[float, float]]) -> None:
    kept = charts.thin(points, 100)
    assert len(kept) <= 110
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert min(y for _, y in kept) == min(y for _, y in points)
    assert max(y for _, y in kept) == max(y for _, y in points)
    assert kept == sorted(kept)


@given(points=POINTS)
def test_no_chart_holds_a_coordinate_outside_of_its_frame(points: list[tuple[float, float]]) -> None:
    drawn = charts.line_chart("Loss", [charts.Series("loss", points), charts.Series("s", charts.smooth(points, 9))])
    for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", " ".join(re.findall(r'points="([^"]*)"', drawn))):
        assert -0.1 <= float(x) <= charts.WIDE.width + 0.1
        assert -0.1 <= float(y) <= charts.WIDE.height + 0.1


def test_a_chart_of_nothing_is_no_chart() -> None:
    assert charts.line_chart("Loss", [charts.Series("loss", [])]) == ""
    assert charts.stacked_bar([("step", 0.0, "s1")]) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.000123456, "0.0001235"), (12345, "12,345"), (12345.0, "12,345"), (3.14159, "3.142"), ("x", "x")],
)
def test_numbers_are_short_and_the_unknown_is_a_dash(value: object, text: str) -> None:
    assert number(value) == text


def test_sizes_and_nested_settings_are_readable() -> None:
    assert (size(999), size(1500), size(4_500_000), size(None)) == ("999 B", "1.5 kB", "4.5 MB", "-")
    assert flatten({"a": {"b": [1, True]}, "c": False}) == [("a.b", "1, true"), ("c", "false")]
