"""What the benches share: a loopback cluster with the chart, the machine's description, raw results, tables in docs."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
RESULTS = CHECKOUT / "bench/results"
sys.path[:0] = [str(CHECKOUT / "tests/integration"), str(CHECKOUT / "tests")]

import installed  # noqa: E402  # the rig of the integration tests: the same operator process, with the chart's rights
import lifecycle  # noqa: E402

from tollgate_local.cluster import Cluster, LoopbackShape, down, up  # noqa: E402


@contextmanager
def chart(nodes: int = 3) -> Iterator[tuple[Cluster, Path]]:
    """A fresh loopback cluster with the chart on it, and a folder; both go at the end."""
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder:
        root = Path(folder)
        settings = LoopbackShape(state=root / "cluster", fresh=True, audit=True, stages="scripted", nodes=nodes)
        try:
            cluster = up(settings)
            installed.install(cluster)
            lifecycle.prepare(cluster)
            yield cluster, root
        finally:
            down(settings, purge=True)


def machine() -> dict[str, Any]:
    """Where it was measured, and how busy that was."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def keep(name: str, figures: Any) -> Path:
    """The raw results, as bench/results/NAME.json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"bench": name, "at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), **figures}
    text = json.dumps(document, indent=1)
    # A list of plain values is one line: thousands of figures are read by programs, and a diff shows what else changed.
    text = re.sub(r"\[[^][{}]+\]", lambda found: " ".join(found[0].split()), text)
    path.write_text(text + "\n")
    return path


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def put(path: Path, name: str, text: str) -> None:
    """Replaces what stands between the marks of that name; only that part of a page is generated."""
    begin, end = f"<!-- bench:{name} -->\n", f"<!-- /bench:{name} -->\n"
    page = path.read_text()
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{path}: the marks {begin.strip()} and {end.strip()} are not there; put them back")
    path.write_text(f"{head}{begin}{text}{end}{tail}")
