"""What trackers are told, and what is refused before the training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tollgate.manifest import trackers
from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document
from tollgate_trainer.refusal import ManifestRefused
from tollgate_trainer.track import choose, notes
from tollgate_trainer.track.choose import wanted
from tollgate_trainer.track.notes import Note
from tollgate_trainer.track.protocol import Beginning, Dataset, Point, Rejected, Status
from tollgate_trainer.track.telling import Subject, Telling, goodput_points
from tollgate_trainer.track.translate import Ended, Parameters, Steps, flat, translate

WHEN = "2026-01-02T03:04:05.000+00:00"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CANARY = "canary-0123456789"


def event(name: str, **values: Any) -> dict[str, Any]:
    return {"time": WHEN, "event": name, "attempt": 1, **values}


# --- events -> calls --------------------------------------------------------------------------------------------------

MEANINGS: list[tuple[dict[str, Any], Any]] = [
    (event("step", step=3, total_steps=9, loss=1.5, grad_norm=None), Point(3, AT, {"loss": 1.5})),
    (event("step", step=3, loss="nan", learning_rate=0.1), Point(3, AT, {"learning_rate": 0.1})),
    (event("eval", step=3, eval_loss=2.0, seconds=0.5), Point(3, AT, {"eval_loss": 2.0, "eval_seconds": 0.5})),
    (event("experts", step=3, usage=[0.25, 0.75]), Point(3, AT, {"experts.usage.0": 0.25, "experts.usage.1": 0.75})),
    (event("data", digest="sha256:a", train={"documents": 4}), Dataset("sha256:a", "d", {"train.documents": 4.0})),
    (
        event("plan", total_steps=9, deterministic=True),
        Parameters({"plan.total_steps": "9", "plan.deterministic": "true"}),
    ),
    (event("end", model="sha256:b"), Ended(Status.FINISHED)),
    (event("end", error="CUDA"), Ended(Status.FAILED)),
    (event("stop", reason="Signal"), Ended(Status.KILLED)),
    (event("save", step=3), None),
    (event("warning", message="x"), None),
]


@pytest.mark.parametrize(("said", "meant"), MEANINGS)
def test_what_an_event_means_for_a_tracker(said: dict[str, Any], meant: Any) -> None:
    assert translate(said, "d", Steps())[0] == meant


def told_steps(events: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    steps, found = Steps(), []
    for one in events:
        told, steps = translate(one, "d", steps)
        if isinstance(told, Point):
            found.append((told.step, told.values["loss"]))
    return found


@pytest.mark.parametrize(
    ("equality", "expected"),
    [("bit-equal", [(1, 1.0), (2, 2.0), (3, 3.0)]), ("statistical", [(1, 1.0), (2, 2.0), (2, 2.5), (3, 3.0)])],
)
def test_steps_done_again_are_told_once_unless_they_differ(equality: str, expected: list[tuple[int, float]]) -> None:
    first = [event("start"), event("step", step=1, loss=1.0), event("step", step=2, loss=2.0)]
    again = 2.0 if equality == "bit-equal" else 2.5
    second = [event("start"), event("restore", step=1, equality=equality)]
    second += [event("step", step=2, loss=again), event("step", step=3, loss=3.0)]
    assert told_steps(first + second) == expected


def test_parameters_are_the_leaves_of_the_manifest() -> None:
    document = {"a": {"b": 1, "c": None, "d": [], "on": False}, "l": ["x", 2], "s": [{"p": "q"}]}
    assert flat(document) == {"a.b": "1", "a.on": "false", "l": "x, 2", "s.0.p": "q"}


def test_goodput_is_told_in_seconds_by_state_and_as_the_ratio_of_steps() -> None:
    (point,) = goodput_points({"goodput_seconds": {"step": 30, "save": 10}, "finished_at": WHEN, "step": 7})
    assert (point.step, point.values["goodput.ratio"]) == (7, 0.75)
    assert goodput_points({"step": 7}) == []


# --- telling ----------------------------------------------------------------------------------------------------------


@dataclass
class Ledger:
    """A tracker that keeps what it is told in memory, and is away when it is told to be."""

    away: bool = False
    picky: bool = False
    said: list[Any] = field(default_factory=list)

    def _note(self, *what: Any) -> None:
        if self.away:
            raise ConnectionError(f"no route; password {CANARY}")
        self.said.append(what)

    def open(self, known: str | None, beginning: Beginning) -> str:
        self._note("open", known)
        return known or "id-1"

    def parameters(self, values: Any) -> None:
        self._note("parameters", dict(values))
        if self.picky:
            raise Rejected("too long")

    def metrics(self, points: Sequence[Point]) -> None:
        self._note("metrics", [point.step for point in points])

    def artifact(self, path: Path, folder: str) -> None:
        self._note("artifact", path.name)

    def dataset(self, dataset: Dataset) -> None:
        self._note("dataset", dataset.digest)

    def register_model(self, model: Any) -> None:
        self._note("model", model.digest)

    def finish(self, status: Status) -> None:
        self._note("finish", status)


def telling(root: Path, ledger: Ledger, note: Note | None = None) -> Telling:
    subject = Subject(root, Beginning("r", "n", "ns", "u", "sha256:m"), {"name": "n", "tags": [CANARY]}, [CANARY])
    one = wanted(load_document(document({"mlflow": {}}), "t").manifest, {})[0]
    return Telling(one, subject, note or Note(), lambda: ledger)


def document(tracking: dict[str, Any]) -> dict[str, Any]:
    return {"name": "n", "dataset": {"path": "d"}, "model": {"base": "b"}, "tracking": tracking}


def write(root: Path, *events: dict[str, Any]) -> None:
    (root / "logs").mkdir(exist_ok=True)
    with (root / "logs" / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in events)


def test_what_was_written_while_a_tracker_was_away_is_told_when_it_is_back(tmp_path: Path) -> None:
    ledger = Ledger(away=True)
    one = telling(tmp_path, ledger)
    write(tmp_path, event("start"), event("data", digest="sha256:a"), event("step", step=1, loss=1.0))
    assert not one.catch_up()
    assert not one.catch_up()
    assert (one.note.failures, one.note.offset, one.note.told) == (2, 0, 0)
    ledger.away = False
    write(tmp_path, event("step", step=2, loss=1.0))
    assert one.catch_up()
    assert [what for what in ledger.said if what[0] == "metrics"] == [("metrics", [1, 2])]


def test_the_next_attempt_goes_on_with_the_same_tracking_run_after_the_last_byte_that_was_told(tmp_path: Path) -> None:
    ledger = Ledger()
    write(tmp_path, event("start"), event("step", step=1, loss=1.0), event("stop"))
    first = telling(tmp_path, ledger)
    assert first.catch_up()
    notes.write(tmp_path, {"mlflow": first.note})
    write(tmp_path, event("start"), event("restore", equality="bit-equal"), event("step", step=2, loss=1.0))
    ledger.said.clear()
    second = telling(tmp_path, ledger, notes.read(tmp_path)["mlflow"])
    assert second.catch_up()
    assert ledger.said[0] == ("open", "id-1")
    assert ledger.said[-1] == ("metrics", [2])


def test_a_checkpoint_knows_the_tracking_run_where_the_notes_are_lost(tmp_path: Path) -> None:
    ledger = Ledger()
    write(tmp_path, event("start"), event("restore", trackers={"mlflow": "id-7"}), event("step", step=5, loss=1.0))
    assert telling(tmp_path, ledger).catch_up()
    assert ledger.said[0] == ("open", "id-7")


def test_a_start_that_is_refused_begins_no_tracking_run(tmp_path: Path) -> None:
    ledger = Ledger()
    write(tmp_path, event("start"), event("warning", message="x"))
    assert telling(tmp_path, ledger).catch_up()
    assert ledger.said == []


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    ledger = Ledger()
    line = json.dumps(event("step", step=1, loss=1.0)) + "\n"
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "events.jsonl"
    path.write_text(line + line[:20])
    one = telling(tmp_path, ledger)
    assert one.catch_up()
    assert one.note.offset == len(line)
    path.write_text(line + line.replace('"step": 1', '"step": 2'))
    assert one.catch_up()
    assert ledger.said[-1] == ("metrics", [2])


def test_what_a_tracker_never_takes_is_counted_and_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    ledger = Ledger(picky=True)
    write(tmp_path, event("step", step=1, loss=1.0))
    one = telling(tmp_path, ledger)
    assert one.catch_up()
    assert (one.note.rejected, one.note.failures, ledger.said[-1]) == (1, 0, ("metrics", [1]))


def test_no_secret_reaches_a_tracker_or_the_notes(tmp_path: Path) -> None:
    ledger = Ledger()
    write(tmp_path, event("plan", path=f"x-{CANARY}"), event("step", step=1, loss=1.0))
    one = telling(tmp_path, ledger)
    assert one.catch_up()
    ledger.away = True
    write(tmp_path, event("step", step=2, loss=1.0))
    assert not one.catch_up()
    assert one.note.problem is not None
    assert "no route" in one.note.problem
    assert CANARY not in f"{ledger.said} {one.note}"


def test_notes_of_the_evaluation_beat_older_ones_of_the_training() -> None:
    old, new = {"mlflow": Note(id="a", offset=10)}, {"mlflow": Note(offset=20), "wandb": Note(id="w")}
    assert notes.newest(old, new) == {"mlflow": Note(id="a", offset=20), "wandb": Note(id="w")}
    assert notes.newest(new, old)["mlflow"] == Note(id="a", offset=20)


# --- refused before training ------------------------------------------------------------------------------------------

URIS: list[tuple[str, str | None]] = [
    ("sqlite:///tracking/mlflow.db", None),
    ("https://tracking.example.org/x", None),
    ("./mlruns", "folder of files"),
    ("file:///runs", "folder of files"),
    ("sqlite:///", "no database file"),
    ("https://", "no host"),
    ("https://me:secret@tracking.example.org", "credentials"),
    ("postgresql://db/x", "kind postgresql"),
    ("http://[::1", "not an address"),
]


@pytest.mark.parametrize(("uri", "problem"), URIS)
def test_tracking_addresses(uri: str, problem: str | None) -> None:
    if problem is None:
        load_document(document({"mlflow": {"tracking_uri": uri}}), "t")
        return
    with pytest.raises(ManifestError, match=problem) as caught:
        load_document(document({"mlflow": {"tracking_uri": uri}}), "t")
    assert caught.value.problems[0].field == "tracking.mlflow.tracking_uri"
    assert "secret@" not in str(caught.value)
    with pytest.raises(ManifestRefused, match=problem):
        wanted(load_document(document({"mlflow": {}}), "t").manifest, {choose.MLFLOW_URI: uri})


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ({"mlflow": {"alias": "a"}}, "tracking.mlflow.alias"),
        ({"mlflow": {"experimnt": "a"}}, "tracking.mlflow.experimnt"),
        ({"wandb": {"mode": "sometimes"}}, "tracking.wandb.mode"),
    ],
)
def test_sections_that_are_refused_when_they_are_read(section: dict[str, Any], field: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_document(document(section), "t")
    assert caught.value.problems[0].field == field


def test_the_manifest_beats_the_environment_which_beats_the_file_in_the_output_folder() -> None:
    environ = {choose.MLFLOW_URI: "https://a.example.org"}

    def uri(section: dict[str, Any], around: dict[str, str]) -> Any:
        return wanted(load_document(document({"mlflow": section}), "t").manifest, around)[0].settings.tracking_uri  # type: ignore[union-attr]

    assert uri({"tracking_uri": "https://b.example.org"}, environ) == "https://b.example.org"
    assert uri({}, environ) == "https://a.example.org"
    assert uri({}, {}) == choose.DEFAULT_URI == f"{trackers.SQLITE}tracking/mlflow.db"


def test_wandb_without_credentials_is_refused_and_offline_and_disabled_need_none(tmp_path: Path) -> None:
    around = {"HOME": str(tmp_path)}

    def names(section: dict[str, Any], **more: str) -> list[str]:
        return [one.name for one in wanted(load_document(document({"wandb": section}), "t").manifest, around | more)]

    with pytest.raises(ManifestRefused, match="WANDB_API_KEY"):
        names({})
    assert names({}, WANDB_API_KEY=CANARY) == ["wandb"]
    assert names({"mode": "offline"}) == names({}, WANDB_MODE="offline") == ["wandb"]
    assert names({"mode": "disabled"}) == []
    with pytest.raises(ManifestRefused, match="WANDB_MODE=maybe"):
        names({}, WANDB_MODE="maybe")


def test_a_library_that_is_not_there_is_refused_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"mlflow": replace(choose.KINDS["mlflow"], library="no_such_library_here")}
    monkeypatch.setattr(choose, "KINDS", absent)
    with pytest.raises(ManifestRefused, match=r"install tollgate\[mlflow\]") as caught:
        wanted(load_document(document({"mlflow": {}}), "t").manifest, {})
    assert caught.value.field == "tracking.mlflow"


def test_every_kind_of_the_table_is_a_section_of_the_manifest() -> None:
    from tollgate.manifest.sections import Tracking

    assert set(choose.KINDS) <= set(Tracking.model_fields)
