"""Every cell of the crash matrix, and the matrix as a table in docs/design/crashes.md."""

from __future__ import annotations

import dataclasses

from bench import rig

import crash_cells  # isort: skip
from metrics_page import metrics_page  # isort: skip


def main() -> int:
    """Runs all cells; answers how many are not as they must be."""
    with rig.chart() as (cluster, root), metrics_page() as address:
        results = crash_cells.run_cells(cluster, root / "cells", crash_cells.CELLS, address)
    controls = crash_cells.controls_of(results)
    wrong = {cell.key: crash_cells.verdict(cell, results[cell.key], controls) for cell in crash_cells.CELLS}
    raw = [{**dataclasses.asdict(results[cell.key]), "wrong": wrong[cell.key]} for cell in crash_cells.CELLS]
    print(rig.keep("crashes", {"cells": raw}))
    rows = []
    for cell in crash_cells.CELLS:
        found = results[cell.key]
        same = "as the control" if not wrong[cell.key] else "NOT as it must be"
        if not wrong[cell.key] and cell.control == "one more":
            same = "as the control, after one more attempt"
        jobs = f"{sum(found.jobs.values())} for {len(found.end.get('attempts', []))}"
        money = f"{found.books.get('spent')} / {found.books.get('pods')}"
        rows.append([cell.during, cell.name, found.kills, same, found.most_gangs, jobs, money])
    header = [
        "during", "what happens", "kills", "end state", "gangs at a time", "Jobs for attempts",
        "micro-USD: status / pods",
    ]  # fmt: skip
    text = rig.table(header, rows)
    rig.put(rig.CHECKOUT / "docs/design/crashes.md", "crashes", text)
    print(text)
    for key, problems in wrong.items():
        for problem in problems:
            print(f"{key}: {problem}")
    return sum(1 for problems in wrong.values() if problems)
