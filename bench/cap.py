"""`python -m bench cap`: how far over its cap a run gets, by the layer that is there to stop it. Real pods, real torch.

Writes every run's figures to bench/results/cap-TIME.json and their table to docs/design/cap-measured.md. It needs root
(it brings a node of its own), two cores and some four minutes a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
RESULTS = CHECKOUT / "bench/results"
PAGE = CHECKOUT / "docs/design/cap-measured.md"
COMMAND = "python -m bench cap"
CENT = Decimal("0.01")
COLUMNS = (
    "who can stop the run",
    "runs",
    "overshoot by the ledger, USD: median (most)",
    "by the pods, USD: median (most)",
    "allowed, USD",
    "held",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep the raw figures, write the page; returns the exit code (1: promise 1 was broken)."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each layer (default 3)")
    parser.add_argument("--page", type=Path, help="only write the page again, from this file of figures")
    options = parser.parse_args(arguments)
    if options.page is not None:
        report = json.loads(options.page.read_text())
    else:
        report = measure(options.rounds)
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"cap-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
        print(path.relative_to(CHECKOUT))
    PAGE.write_text(page(report))
    print(PAGE.relative_to(CHECKOUT))
    return 0 if all(holds(run) for run in report["runs"]) else 1


def measure(rounds: int) -> dict[str, Any]:
    """The figures of `rounds` runs of each layer, on a cluster that exists for this only."""
    sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "tests/e2e")]
    import caps
    import runs as installation

    from tollgate_local.cluster import NodeShape, down, up
    from tollgate_local.progress import to_stderr

    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder:
        shape = NodeShape(
            state=Path(folder, "state"),
            bridge="tgbench",
            cgroup="tollgate-bench",
            # beside a cluster that somebody has up
            net="10.245.7",
            services="10.110",
            pods="10.230",
        )
        try:
            tollgate = installation.install_for_tests(up(shape), Path(folder, "volumes"), to_stderr)
            caps.prepare(tollgate)
            figures: list[dict[str, Any]] = []
            for number in range(rounds):
                for layers in ((caps.ALL, caps.OPERATOR), (caps.LAUNCHER, caps.KUBELET)):
                    for found in caps.measure(tollgate, layers, suffix=f"-{number}").values():
                        figures.append(figure(found))
                        print(json.dumps(figures[-1]), file=sys.stderr, flush=True)
            price = installation.PER_HOUR
        finally:
            down(shape, purge=True)
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=CHECKOUT)
    return {
        "command": f"{COMMAND} --rounds {rounds}",
        "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "revision": revision.stdout.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "usd_per_hour": str(price),
        "poll_seconds": caps.POLL,
        "runs": figures,
    }


def figure(found: Any) -> dict[str, Any]:
    """One run of tests/e2e/caps.py as JSON; money in USD."""
    return {
        "layer": found.layer.name,
        "cap": str(found.cap),
        "grace_seconds": found.grace,
        "allowed": f"{found.allowed:.6f}",
        "ledger": str(found.ledger),
        "witnessed": f"{found.witnessed:.6f}",
        "witnessed_at_most": f"{found.witnessed_most:.6f}",
        "checkpoint_step": found.checkpoint,
        "stop_reason": found.run["status"]["attempts"][-1]["stopReason"],
        "operator_asked": found.stopped_by_operator,
        "kubelet_ended": found.stopped_by_kubelet,
    }


def holds(run: dict[str, Any]) -> bool:
    """Promise 1 for one run, by both ways of counting."""
    allowed = Decimal(run["allowed"])
    return Decimal(run["ledger"]) <= allowed and Decimal(run["witnessed"]) <= allowed


def page(report: dict[str, Any]) -> str:
    """The page of the docs."""
    per_second = Decimal(report["usd_per_hour"]) / 3600
    layers = list(dict.fromkeys(run["layer"] for run in report["runs"]))
    rows = [_row([run for run in report["runs"] if run["layer"] == layer], layer, per_second) for layer in layers]
    return f"""# The cap, measured

What a run spends beyond its cap, with each layer of the stop alone (the layers: [limits](limits.md)). Made by

    {report["command"]}

on {report["time"][:10]} at revision {report["revision"]} ({report["machine"]}). The price is
{report["usd_per_hour"]} USD an hour, so a cent is {CENT / per_second:.1f} s, and a cap of 0.75 USD is 45 s. Each run is
brought to a checkpoint, stopped by lowering its cap to what is spent, and then given 0.75 USD more: the table is about
the attempt that this buys. Overshoot is spend minus cap, so a negative figure was left over. Spend is counted twice: by
the ledger in the status, and by a watch of the pods that knows only the price (from `PodScheduled` to the container's
`finishedAt`).

| {" | ".join(COLUMNS)} |
|{"---|" * len(COLUMNS)}
{chr(10).join(rows)}

*Allowed* is rate x (poll + grace), with a poll of {report["poll_seconds"]} s and the attempt's own grace. "Launcher
alone" and "operator alone" ran without the kubelet's deadline (an admission policy of the bench takes it off the
pods), "operator alone" and "kubelet alone" with the launcher's timer off (a test hook), "launcher alone" and "kubelet
alone" without an operator in the cluster. Whichever it was, the run says `Stopped`, `BudgetExceeded`, and has its
checkpoint; an operator that comes back later books the same amount.

The layers begin to count at different moments: the operator at the binding of the pod, the kubelet when it has seen
the pod, the launcher at the mtime of the manifest's mount. What the last two may add to a cap is the time from binding
to there, a second or two on a quiet node.
"""


def _row(found: list[dict[str, Any]], layer: str, per_second: Decimal) -> str:
    def over(name: str) -> str:
        values = [Decimal(run[name]) - Decimal(run["cap"]) for run in found]
        return f"{median(values):+.3f} ({max(values):+.3f})"

    allowed = min(Decimal(run["allowed"]) - Decimal(run["cap"]) for run in found)
    held = sum(holds(run) for run in found)
    return (
        f"| {layer} | {len(found)} | {over('ledger')} | {over('witnessed')} | {allowed:.3f} | {held} of {len(found)} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
