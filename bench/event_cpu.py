"""What an event costs the operator: CPU and memory with hundreds of runs on kwok nodes.

Figures hold for the machine that is named with them, which others may share; what can be compared is the ratio to the
baseline of the same session: parsing one pod's JSON and making its facts.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from bench import rig
from tollgate_operator.facts import PodFacts

import installed  # isort: skip
from lifecycle import Life, life, run_document  # isort: skip
from metrics_page import metrics_page  # isort: skip

TICK = os.sysconf("SC_CLK_TCK")


def usage(process: installed.Process) -> tuple[float, float]:
    """(CPU seconds so far, resident MiB) of the operator."""
    assert process.running is not None
    stat = Path(f"/proc/{process.running.pid}/stat").read_text().rsplit(")", 1)[1].split()
    pages = int(Path(f"/proc/{process.running.pid}/statm").read_text().split()[1])
    return (int(stat[11]) + int(stat[12])) / TICK, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def events(process: installed.Process) -> tuple[float, float]:
    """(pod events, all events) that the operator took in."""
    lines = process.page("/metrics")[1].splitlines()
    found = {
        line.split(" ")[0]: float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("tollgate_watch_events_total")
    }
    return sum(v for k, v in found.items() if '"pods"' in k), sum(found.values())


def baseline(lived: Life) -> float:
    """CPU milliseconds, median: one pod's JSON parsed and its facts made."""
    text = json.dumps(next(iter(lived.witness.pods.values())).body)
    took = []
    for _ in range(7):
        began = time.process_time()
        for _ in range(200):
            PodFacts.from_object(json.loads(text))
        took.append((time.process_time() - began) / 200 * 1000)
    return statistics.median(took)


def main() -> int:
    """TOLLGATE_BENCH_RUNS (500) are applied in five batches, so that a median over batches can be told."""
    batches = 5
    runs = int(os.environ.get("TOLLGATE_BENCH_RUNS", "500")) // batches * batches
    per_run: list[float] = []
    per_event: list[float] = []
    figures: dict[str, Any] = {"runs": runs, "batches": batches}
    # Room for every pod at once.
    with rig.chart(nodes=10) as (cluster, root), metrics_page() as address:  # noqa: SIM117  # the life needs both
        with life(cluster, root / "cpu", "--scrape=15", "--log-level=WARNING", pod_ip=address) as lived:
            lived.operator.ready()
            lived.hold("train")
            _, figures["rss_idle_mib"] = usage(lived.operator)
            done = 0
            for _ in range(batches):
                cpu, (pods, _) = usage(lived.operator)[0], events(lived.operator)
                for number in range(runs // batches):
                    lived.apply(run_document(f"run-{done + number}", judged=False))
                done += runs // batches
                _until(lived, "Running", done)
                spent = usage(lived.operator)[0] - cpu
                per_run.append(spent * 1000 / (runs // batches))
                per_event.append(spent * 1000 / (events(lived.operator)[0] - pods))
                print(f"{done} runs: {per_run[-1]:.1f} ms per run, {per_event[-1]:.2f} ms per pod event", flush=True)
            _, figures["rss_running_mib"] = usage(lived.operator)
            cpu, began = usage(lived.operator)[0], time.monotonic()
            time.sleep(60)
            figures["cpu_share_while_all_run"] = (usage(lived.operator)[0] - cpu) / (time.monotonic() - began)
            cpu, (pods, _) = usage(lived.operator)[0], events(lived.operator)
            lived.release("train")
            _until(lived, "Succeeded", done)
            ending = (usage(lived.operator)[0] - cpu) * 1000
            figures["cpu_ms_per_pod_event_ending"] = ending / (events(lived.operator)[0] - pods)
            _, figures["rss_finished_mib"] = usage(lived.operator)
            figures["baseline_ms"] = baseline(lived)
    figures["cpu_ms_per_run_to_running"] = per_run
    figures["cpu_ms_per_pod_event_starting"] = per_event
    print(rig.keep("event-cpu", figures))
    _write(figures, runs)
    return 0


def _write(figures: dict[str, Any], runs: int) -> None:
    starting, base = statistics.median(figures["cpu_ms_per_pod_event_starting"]), figures["baseline_ms"]
    per_run = statistics.median(figures["cpu_ms_per_run_to_running"])
    grown = (figures["rss_running_mib"] - figures["rss_idle_mib"]) * 1024 / runs
    where = rig.machine()
    rows = [
        ["CPU per pod event while runs start", f"{starting:.2f} ms", f"{starting / base:.0f}"],
        ["CPU per pod event while runs end", f"{figures['cpu_ms_per_pod_event_ending']:.2f} ms",
         f"{figures['cpu_ms_per_pod_event_ending'] / base:.0f}"],
        ["CPU per run, from apply to Running", f"{per_run:.1f} ms",
         f"{per_run / base:.0f}"],
        [f"share of one core while {runs} runs are scraped", f"{figures['cpu_share_while_all_run']:.1%}", ""],
        ["memory, idle", f"{figures['rss_idle_mib']:.0f} MiB", ""],
        [f"memory with {runs} running runs", f"{figures['rss_running_mib']:.0f} MiB", f"{grown:.0f} KiB a run"],
        [f"memory when all {runs} have ended", f"{figures['rss_finished_mib']:.0f} MiB", ""],
    ]  # fmt: skip
    text = rig.table(["what", "median", f"x baseline ({base:.3f} ms: a pod's JSON parsed)"], rows)
    text += f"\nMeasured on {where['cpu']}, {where['cores']} cores shared with other work (load {where['load'][0]}).\n"
    rig.put(rig.CHECKOUT / "docs/design/crashes.md", "event-cpu", text)
    print(text)


def _until(lived: Life, phase: str, wanted: int) -> None:
    def there() -> bool:
        items = lived.cluster.api.get(lived.runs)["items"]
        return sum(1 for item in items if item.get("status", {}).get("phase") == phase) >= wanted

    deadline = time.monotonic() + 600
    while not there():
        if time.monotonic() > deadline:
            raise SystemExit(f"not all {wanted} runs are {phase} within 600 s; see {lived.operator.log}")
        time.sleep(3)
