"""How many API calls a run costs, by kind of life, counted from the API server's audit log."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from bench import rig

import crash_drives  # isort: skip
import installed  # isort: skip
from lifecycle import Life, life, run_document  # isort: skip
from metrics_page import metrics_page  # isort: skip


def plain(lived: Life) -> None:
    """Trained to the end, not evaluated."""
    lived.hold("train")
    lived.apply(run_document(judged=False))
    lived.until_phase("Running")
    lived.release("train")
    lived.until_phase("Succeeded")


def gang(lived: Life) -> None:
    """Two pods."""
    lived.hold("train")
    lived.apply(run_document(judged=False, compute={"profile": "crash-cpu", "nodes": 2}))
    lived.until_phase("Running")
    lived.release("train")
    lived.until_phase("Succeeded")


LIVES: dict[str, Callable[[Life], None]] = {
    "one attempt, no evaluation": plain,
    "one attempt of two pods, no evaluation": gang,
    "one attempt, evaluated, judged and promoted": crash_drives.judged,
    "stopped by a lowered cap, raised, evaluated and promoted": crash_drives.capped,
    "its Job deleted, trained again, evaluated and promoted": crash_drives.job_deleted("Foreground", away=False),
}


def count(lived: Life) -> Counter[str]:
    """Requests of the operator in this namespace, by what they are for."""
    found: Counter[str] = Counter()
    for line in lived.cluster.audit_log.read_text().splitlines():
        event = json.loads(line)
        reference: dict[str, Any] = event.get("objectRef", {})
        if event["stage"] != "ResponseComplete" or event["user"].get("username") != installed.USER:
            continue
        if reference.get("namespace") != lived.namespace:
            continue
        found[_kind(event["verb"], str(reference.get("resource")), str(reference.get("subresource", "")))] += 1
    return found


def _kind(verb: str, resource: str, subresource: str) -> str:
    if resource == "leases":
        return "lease"
    if verb == "watch":
        return "watches"
    if verb in ("get", "list"):
        return "reads"
    if resource == "events":
        return "Events"
    if subresource == "status":
        return f"status of {resource}"
    return {"create": "creates", "delete": "deletes"}.get(verb, f"{verb} of {resource}")


def main() -> int:
    """Lives each life once and counts."""
    counts: dict[str, Counter[str]] = {}
    with rig.chart() as (cluster, root), metrics_page() as address:
        for number, (name, drive) in enumerate(LIVES.items()):
            with life(cluster, root / str(number), pod_ip=address) as lived:
                lived.operator.ready()
                before = count(lived)
                drive(lived)
                counts[name] = count(lived) - before
    print(rig.keep("api-calls", {"lives": counts}))
    columns = [
        "creates", "status of trainingruns", "patch of jobs", "deletes", "Events", "status of promotionpolicies",
        "patch of configmaps", "reads",
    ]  # fmt: skip
    rows = [[name, *(counted.get(column, 0) for column in columns)] for name, counted in counts.items()]
    text = rig.table(["life", *columns], rows)
    rig.put(rig.CHECKOUT / "docs/design/crashes.md", "api-calls", text)
    print(text)
    return 0
