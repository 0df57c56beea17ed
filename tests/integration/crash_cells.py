"""The crash matrix: at which moment the operator dies or its world goes wrong, and what has to be left in the end.

A cell drives a whole life. Its end is held against the same drive without the fault (the control), its money against
the records of its pods. tests/integration/test_crashes.py asserts it, `python -m bench crashes` prints it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import proxy as at
from crash_drives import (
    Body,
    Drive,
    broken_connections,
    capped,
    conflicts,
    doubled_events,
    ends_alone,
    errors,
    evaluation_ends_alone,
    job_deleted,
    judged,
    late_events,
    pod_deleted,
    stop_ends_alone,
    trains_on_alone,
)
from lifecycle import PRICE, Life, books, end_state, life, promoted
from proxy import Fault, Matches
from witness import Pod

from tollgate_local.cluster import Cluster


@dataclass(frozen=True)
class Cell:
    """`during`: part of the life. `drive`: the whole of it with its fault. `control`: the same without it.

    `lost`: money of pods whose end nobody could see is charged to its bound: no less than was spent, no more than until
    the time of the last write. `attempts`: of training that the control has not.
    """

    name: str
    during: str
    drive: Drive
    control: str = "judged"
    lost: bool = False
    kills: int = 1
    full: bool = False
    expected: Body = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name in the matrix."""
        return f"{self.during}: {self.name}"


@dataclass
class Result:
    """What came of a cell."""

    cell: str
    during: str
    control: str
    seconds: float = 0.0
    kills: int = 0
    end: Body = field(default_factory=dict)
    books: dict[str, int | None] = field(default_factory=dict)
    most_gangs: int = 0
    jobs: dict[str, int] = field(default_factory=dict)
    creates: int = 0
    bound: int = 0
    error: str = ""


def killed_at(name: str, during: str, matches: Matches, when: str, drive: Drive = judged, **more: Any) -> Cell:
    """SIGKILL at exactly that request: before the API server has it, or before the operator has the answer."""

    def driven(life: Life) -> None:
        fault = life.proxy.strike(Fault(matches, when, act=life.kill))  # type: ignore[arg-type]
        drive(life)
        life.until(fault.happened.is_set, "the request at which the operator should die came", 10)
        life.operator.ready()
        life.until(lambda: promoted(life), "the run is promoted")

    return Cell(name, during, driven, control=drive.__name__, **more)


def both(during: str, what: str, matches: Matches, drive: Drive = judged, **more: Any) -> list[Cell]:
    """Before and after the API server has it; of most requests the death after it is the harder one."""
    before = {"full": during != "create", **more}
    return [
        killed_at(f"{what}: before the API server has it", during, matches, "before", drive, **before),
        killed_at(f"{what}: done, the answer never read", during, matches, "after", drive, **more),
    ]


def lost_end(reason: str, class_: str = "Disruption", outcome: str = "Failed") -> Body:
    """The control's end with one more training attempt before it, which ended like that."""
    return {"outcome": outcome, "failure": (class_, reason)}


CELLS: tuple[Cell, ...] = (
    Cell("no fault", "control", judged, kills=0),
    Cell("no fault, stopped by a lowered cap and raised again", "control", capped, control="capped", kills=0),
    *both("intent", "the intent", at.writes_attempt(role="train", number=1), full=True),
    *both("create", "the Job's create", at.creates_job("train")),
    killed_at(
        "before the Job's uid is recorded", "create", at.writes_attempt(number=1, jobUID=...), "before", full=True
    ),
    killed_at("at the write of phase Running", "running", at.writes_phase("Running"), "after", full=True),
    Cell("while its pod runs", "running", trains_on_alone, full=True),
    Cell("the pod ends while no operator is there", "running", ends_alone),
    *both("stop", "the stop of the Job", at.stops_job, capped, lost=True),
    killed_at(
        "before the status says Stopping", "stop", at.writes_phase("Stopping"), "before", capped, lost=True, full=True
    ),
    Cell("the gang ends while no operator is there", "stop", stop_ends_alone, control="capped", lost=True, full=True),
    killed_at(
        "before the status says Stopped", "stop", at.writes_phase("Stopped"), "before", capped, lost=True, full=True
    ),
    *both("evaluation", "the evaluation's create", at.creates_job("evaluate")),
    *both("evaluation", "its intent", at.writes_attempt(role="evaluate", number=1), full=True),
    Cell("it ends while no operator is there", "evaluation", evaluation_ends_alone, full=True),
    *both("verdict", "the verdict", at.writes_phase("Succeeded")),
    *both("promotion", "the stage's holder", at.writes_policy),
    *both("promotion", "the ConfigMap", at.projects, full=True),
    Cell(
        "its Job is deleted, and its pods with it", "children", job_deleted("Foreground", away=False),
        control="one more", full=True, kills=0, expected=lost_end("JobDeleted", outcome="Lost"),
    ),
    Cell(
        "its Job and pods are deleted while no operator is there", "children", job_deleted("Background", away=True),
        control="one more", lost=True, expected=lost_end("JobDeleted", outcome="Lost"),
    ),
    Cell(
        "its pod is deleted", "children", pod_deleted(None, away=False),
        control="one more", full=True, kills=0, expected=lost_end("Signal"),
    ),
    Cell(
        "its pod is deleted with grace 0 while no operator is there", "children", pod_deleted(0, away=True),
        control="one more", lost=True, expected={},
    ),
    Cell("pod events come 1.5 s late", "events", late_events, kills=0),
    Cell("every event comes twice", "events", doubled_events, kills=0, full=True),
    Cell("status writes keep losing against others", "API server", conflicts, kills=0, full=True),
    Cell("every third request fails with 503", "API server", errors(503), kills=0),
    Cell("every third request fails with 500", "API server", errors(500), kills=0, full=True),
    Cell("every third request is answered 429", "API server", errors(429), kills=0, full=True),
    Cell("every fourth write loses its answer", "API server", broken_connections, kills=0, full=True),
)  # fmt: skip


# --- running it -------------------------------------------------------------------------------------------------------


def run_cell(cluster: Cluster, folder: Path, cell: Cell, pod_ip: str) -> Result:
    """One life, and what was left of it."""
    result = Result(cell.name, cell.during, cell.control)
    began = time.monotonic()
    try:
        with life(cluster, folder, pod_ip=pod_ip) as lived:
            try:
                cell.drive(lived)
                time.sleep(0.5)  # what is written after the end shows a mistake too
                result.end, result.books = end_state(lived), books(lived)
                result.bound = _until_now(lived)
            finally:
                result.kills = lived.kills
                result.most_gangs = lived.witness.most_gangs
                result.jobs = {f"{role} {n}": len(uids) for (role, n), uids in lived.witness.jobs_of("counsel").items()}
                created = [
                    e for e in lived.proxy.log if e.request.method == "POST" and e.request.path.endswith("/jobs")
                ]
                result.creates = sum(1 for e in created if e.code == 201)
            if lived.witness.problems:
                result.error = "; ".join(lived.witness.problems[:3])
    except Exception as error:  # a cell that fails must not hide the others; the test of this cell says it
        result.error = f"{type(error).__name__}: {error}"
    result.seconds = time.monotonic() - began
    return result


def _until_now(life: Life) -> int:
    """Micro-USD if every pod had lived until its attempt's end was written."""
    status = life.run()["status"]
    ends = {(a["role"], a["number"]): a.get("endTime") for a in status["attempts"]}
    total = 0
    for pod in life.witness.of("counsel"):
        total += _at_most(pod, ends.get((pod.role, pod.attempt)))
    return total


def _at_most(pod: Pod, until: str | None) -> int:
    if pod.bound_at is None or until is None:
        return 0
    seconds = (datetime.fromisoformat(until) - pod.bound_at).total_seconds() + 1
    return max(-(-PRICE * int(seconds + 1) // 3600), pod.micro_usd(PRICE) or 0)


def run_cells(
    cluster: Cluster, folder: Path, cells: Sequence[Cell], pod_ip: str, side_by_side: int = 3
) -> dict[str, Result]:
    """All cells, some at the same time: each has its own namespace, operator and Lease."""
    with ThreadPoolExecutor(side_by_side) as pool:
        runs = {
            cell.key: pool.submit(run_cell, cluster, folder / f"cell-{number}", cell, pod_ip)
            for number, cell in enumerate(cells)
        }
        return {name: run.result() for name, run in runs.items()}


def selected(keys: Collection[str]) -> list[Cell]:
    """The cells of these names, and the controls that every cell is held against."""
    return [cell for cell in CELLS if cell.during == "control" or cell.key in keys]


def controls_of(results: Mapping[str, Result]) -> dict[str, Body]:
    """Drive -> the end of its undisturbed life."""
    found: dict[str, Body] = {}
    for cell in CELLS:
        if cell.during == "control":
            if results[cell.key].error:
                raise AssertionError(f"the control {cell.key!r} failed: {results[cell.key].error}")
            found[cell.control] = results[cell.key].end
    return found


def expected_end(cell: Cell, controls: Mapping[str, Body]) -> Body:
    """The end that the cell must have."""
    if cell.control != "one more":
        return controls[cell.control]
    control = controls["judged"]
    train, evaluate = control["attempts"]
    first = {**train, **cell.expected}
    return {**control, "attempts": [first, {**train, "number": 2}, evaluate]}


def verdict(cell: Cell, result: Result, controls: Mapping[str, Body]) -> list[str]:
    """What is wrong with a cell; empty when it is as it must be."""
    if result.error:
        return [result.error]
    wrong = [*_wrong_end(cell, result, controls), *_wrong_money(cell, result)]
    if result.most_gangs > 1:
        wrong.append(f"{result.most_gangs} training gangs lived at the same time")
    if any(count != 1 for count in result.jobs.values()):
        wrong.append(f"more than one Job for an attempt: {result.jobs}")
    if len(result.jobs) != len(result.end["attempts"]):
        wrong.append(f"Jobs {sorted(result.jobs)} for {len(result.end['attempts'])} attempts")
    if result.kills < cell.kills:
        wrong.append(f"the operator was killed {result.kills} times, not {cell.kills}")
    return wrong


def _wrong_end(cell: Cell, result: Result, controls: Mapping[str, Body]) -> list[str]:
    if cell.control == "one more" and not cell.expected:
        actual = [(a["role"], a["number"], a["outcome"]) for a in result.end["attempts"]]
        return [] if actual[1:] == [("train", 2, "Completed"), ("evaluate", 1, "Completed")] else [f"attempts {actual}"]
    expected = expected_end(cell, controls)
    return [] if result.end == expected else [f"the end is {result.end}, and must be {expected}"]


def _wrong_money(cell: Cell, result: Result) -> list[str]:
    spent, truth = result.books["spent"], result.books["pods"]
    if spent is None:
        return ["spent is unknown"]
    wrong = [
        f"{name} sum to {result.books[name]}, spent is {spent} micro-USD"
        for name in ("attempts", "categories")
        if result.books[name] != spent
    ]
    if cell.lost and not (truth or 0) <= spent <= result.bound:
        wrong.append(f"spent {spent}, not between {truth} and {result.bound}")
    if not cell.lost and spent != truth:
        wrong.append(f"spent {spent}, the pods' records say {truth} micro-USD")
    return wrong
