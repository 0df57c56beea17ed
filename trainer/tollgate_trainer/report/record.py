"""What the files of an output folder say about a run. A missing file leaves its part out; nothing is guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tollgate.api.training_run import GateStatus
from tollgate.contract import Files, LastWords
from tollgate.gates.evidence import Evaluated, EvidenceError, evidence_digest, parse_statement
from tollgate.manifest.canonical import digest as digest_of
from tollgate_trainer import stopwatch
from tollgate_trainer.report import privacy, told

GATES = "evaluation/gates.json"
PRICE = "logs/price.json"
Shape = TypeVar("Shape", bound=told.Told)
Stepped = TypeVar("Stepped", told.Experts, told.Samples)
_ATTEMPT = re.compile(r"^attempt-(\d+)$")


@dataclass(frozen=True, slots=True)
class Point:
    """One logged step. A value that was not logged, or was not finite, is None."""

    step: int
    attempt: int
    loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    tokens_per_second: float | None
    tokens: int | None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt: when it began and ended, where it went on from, how it ended. `words` is None while it runs."""

    number: int
    started: datetime | None
    words: LastWords | None
    restored_from: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that a report shows."""

    root: Path
    result: LastWords | None
    attempts: tuple[AttemptRow, ...]
    steps: tuple[Point, ...]
    evaluations: tuple[Mapping[str, Any], ...]
    saves: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]
    plan: Mapping[str, Any]
    data: Mapping[str, Any]
    model: Mapping[str, Any]
    manifest: Mapping[str, Any]
    evidence: Evaluated | None
    evidence_digest: str | None
    evidence_problem: str | None
    gates: tuple[GateStatus, ...]
    policy: str | None
    seconds_used: float | None
    usd_per_hour: str | None
    preflight: tuple[told.Check, ...]
    experts: tuple[told.Experts, ...]
    samples: tuple[told.Samples, ...]
    packing: told.Packing | None
    outlook: told.Outlook | None
    compiled: told.Compiled | None
    reading: told.Reading | None
    planned: Mapping[str, Any]
    classes: told.Classes | None
    spans: told.Spans | None
    quotes: bool = True

    @property
    def name(self) -> str:
        """The run's name, else its folder's."""
        return str(self.manifest.get("name") or self.root.name)


def read(root: Path) -> Record:
    """The record of an output folder, without text of documents where they may not be quoted.

    Raises: OSError when the folder itself can't be read.
    """
    quotes = privacy.may_quote(root)
    events = list(_events(root / Files.EVENTS))
    evidence, digest, problem = _evidence(root)
    gates = _json(root / GATES)
    model = _json(root / Files.MODEL / Files.MODEL_INFO)
    return Record(
        root=root,
        result=privacy.words(_words(root / Files.RESULT), quotes),
        attempts=tuple(replace(row, words=privacy.words(row.words, quotes)) for row in _attempts(root, events)),
        steps=tuple(_steps(events)),
        evaluations=tuple(_latest(event for event in events if event["event"] == "eval")),
        saves=tuple(_latest(event for event in events if event["event"] == "save")),
        warnings=privacy.texts(_warnings(events), quotes),
        plan=next((event for event in reversed(events) if event["event"] == "plan"), {}),
        data=next((event for event in reversed(events) if event["event"] == "data"), {}),
        model=model,
        manifest=_manifest(root, model.get("manifest_digest")),
        evidence=evidence,
        evidence_digest=digest,
        evidence_problem=problem,
        gates=tuple(_gates(gates)),
        policy=gates.get("policy"),
        seconds_used=_seconds_used(root),
        usd_per_hour=_json(root / PRICE).get("usdPerHour"),
        preflight=tuple(_checks(events)),
        experts=tuple(_by_step(told.each(told.Experts, events, "experts"))),
        samples=tuple(_by_step(told.each(told.Samples, events, "samples"))) if quotes else (),
        packing=_last(told.each(told.Packing, events, "packing")),
        outlook=_outlook(events),
        compiled=_last(told.each(told.Compiled, events, "compile")),
        reading=_last(told.each(told.Reading, events, "data_loader")),
        planned=_json(root / Files.PLAN),
        classes=privacy.classes(_detail(root, told.Classes, "classification"), quotes),
        spans=privacy.spans(_detail(root, told.Spans, "span"), quotes),
        quotes=quotes,
    )


def _events(path: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a line that a kill cut off
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            yield event


def _warnings(events: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    return dict.fromkeys(str(e["message"]) for e in events if e["event"] == "warning" and "message" in e)


def _last(found: Sequence[Shape]) -> Shape | None:
    return found[-1] if found else None


def _by_step(found: Sequence[Stepped]) -> list[Stepped]:
    kept = {event.step: event for event in found}
    return [kept[step] for step in sorted(kept)]


def _checks(events: Sequence[Mapping[str, Any]]) -> list[told.Check]:
    """Preflight of the newest attempt that had one."""
    mine = [event for event in events if event["event"] == "preflight"]
    return told.each(told.Check, [event for event in mine if _attempt(event) == _attempt(mine[-1])], "preflight")


def _outlook(events: Sequence[Mapping[str, Any]]) -> told.Outlook | None:
    """What was planned and what came, of the newest attempt that ended."""
    return _last(told.each(told.Outlook, [e for e in events if e.get("source") == "end"], "forecast"))


def _detail(root: Path, shape: type[Shape], name: str) -> Shape | None:
    """A detail of its own, or its part of evaluation/joint.json."""
    folder = root / "evaluation"
    part = _json(folder / "joint.json").get(name)
    return told.one(shape, _json(folder / f"{name}.json")) or told.one(shape, part if isinstance(part, dict) else {})


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _words(path: Path) -> LastWords | None:
    try:
        return LastWords.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _attempt(event: Mapping[str, Any]) -> int:
    value = event.get("attempt")
    return value if isinstance(value, int) else 0


def _latest(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One event per step, in the order of steps: a step that was done again counts as it was done last."""
    kept = {event["step"]: event for event in events if isinstance(event.get("step"), int)}
    return [kept[step] for step in sorted(kept)]


def _steps(events: list[dict[str, Any]]) -> list[Point]:
    return [
        Point(
            step=event["step"],
            attempt=_attempt(event),
            loss=_number(event.get("loss")),
            learning_rate=_number(event.get("learning_rate")),
            grad_norm=_number(event.get("grad_norm")),
            tokens_per_second=_number(event.get("tokens_per_second")),
            tokens=event["tokens"] if isinstance(event.get("tokens"), int) else None,
        )
        for event in _latest(event for event in events if event["event"] == "step")
    ]


def _attempts(root: Path, events: list[dict[str, Any]]) -> list[AttemptRow]:
    folder = root / Files.OUTCOMES
    numbers = {int(m[1]) for path in folder.glob("attempt-*") if (m := _ATTEMPT.match(path.name))}
    numbers |= {number for event in events if (number := _attempt(event))}
    rows = []
    for number in sorted(numbers):
        own = [event for event in events if _attempt(event) == number]
        words = _words(folder / f"attempt-{number}" / "launcher-0.json")
        restored = next((event.get("step") for event in own if event["event"] == "restore"), None)
        if restored is None and words is not None:
            restored = words.resumed_from_step
        rows.append(AttemptRow(number, _time(own[0]) if own else None, words, restored))
    return rows


def _time(event: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(str(event.get("time")))
    except ValueError:
        return None


def _manifest(root: Path, digest: str | None) -> dict[str, Any]:
    """The manifest that the model was made from, else the newest attempt's."""
    found = sorted(
        (root / Files.OUTCOMES).glob("attempt-*/manifest.json"),
        key=lambda path: int(m[1]) if (m := _ATTEMPT.match(path.parent.name)) else 0,
    )
    fitting = [path for path in found if digest is None or digest_of(path.read_bytes()) == digest]
    return _json((fitting or found)[-1]) if found else {}


def _evidence(root: Path) -> tuple[Evaluated | None, str | None, str | None]:
    try:
        data = (root / Files.EVIDENCE).read_bytes()
        return parse_statement(data), evidence_digest(data), None
    except FileNotFoundError:
        return None, None, None
    except EvidenceError as error:
        return None, None, str(error)


def _gates(document: Mapping[str, Any]) -> list[GateStatus]:
    try:
        return [GateStatus.model_validate(gate) for gate in document.get("stages", [])]
    except (ValidationError, TypeError):
        return []


def _seconds_used(root: Path) -> float | None:
    try:
        names = (Files.SECONDS_USED, "evaluation/seconds-used.json")
        segments = [segment for name in names for segment in stopwatch.read(root / name)]
    except stopwatch.StopwatchError:
        return None
    return sum(segment.seconds for segment in segments) if segments else None
