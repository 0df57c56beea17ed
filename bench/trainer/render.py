"""The kept results as tables. What was not measured says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bench import rig
from bench.trainer.figures import Interval, shown
from bench.trainer.options import Options

PAGE = rig.CHECKOUT / "docs/design/trainer-speed.md"
NOT_MEASURED = "Not measured yet.\n"
Kept = Mapping[str, Any]


def measured_on(kept: Kept) -> str:
    """Where, how busy that was, and by which command."""
    machine, versions = kept["machine"], kept["versions"]
    start, end = kept["load_at_start"][0], machine["load"][0]
    known = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"\n`{kept['command']}`, {kept['at'][:10]}, {kept['seconds'] / 60:.1f} min on {machine['cores']} cores of "
        f"{machine['cpu']}; load average {start:.2f} at the start and {end:.2f} at the end; {known}.\n"
    )


def overhead(kept: Kept) -> str:
    """One row a number of processes."""
    rows = []
    for one in kept["results"]:
        digits = 3 if one["ranks"] == 1 else 2
        unit = "" if one["ranks"] == 1 else " ms"
        rows.append(
            [
                one["ranks"],
                f"{one['stock_ms']:.1f} ms",
                f"{one['tollgate_ms']:.1f} ms",
                shown(Interval(**one["same"]), digits) + unit,
                shown(Interval(**one["figure"]), digits) + unit,
                f"{'equal' if one['losses_equal'] else 'differ'} ({one['steps_compared']})",
                one["blocks"],
                f"**{one['verdict']}**: {one['because']}",
            ]
        )
    header = [
        "processes",
        "stock",
        "Tollgate",
        "stock against itself",
        "speed, or added per step",
        "losses",
        "blocks",
        "verdict",
    ]
    return rig.table(header, rows) + measured_on(kept)


def packing(kept: Kept) -> str:
    """Tokens per second, then the losses."""
    sizes = (
        f"{kept['rows']} rows of {kept['row_tokens']} tokens packed, {kept['samples']} samples otherwise: "
        f"{kept['packed_tokens']:.0f} and {kept['unpacked_tokens']:.0f} real tokens per step"
    )
    rows = [
        ["padded / real, random order", f"{kept['padded_over_real']:.2f}"],
        ["packed over random", shown(Interval(**kept["over_random"]), 2)],
        ["packed over grouped by length", shown(Interval(**kept["over_grouped"]), 2)],
        ["speed", f"**{kept['verdict']}**: {kept['because']}"],
        [
            "loss",
            f"**{kept['loss_verdict']}**: {kept['loss_because']}; {kept['loss_steps']} steps at a learning rate of "
            f"{kept['learning_rate']:g} after {kept['warmup_steps']} of warm-up",
        ],
    ]
    return rig.table([sizes, "tokens per second"], rows) + measured_on(kept)


def forecast(kept: Kept) -> str:
    """How often it was right."""
    rows = [
        ["runs", len(kept["runs"])],
        ["interval held the time", kept["covered"]],
        ["median width", f"{kept['median_width']:.0%}"],
        ["median error", f"{kept['median_error']:.1%}"],
        ["verdict", f"**{kept['verdict']}**: {kept['because']}"],
    ]
    return rig.table(["forecast after 13 steps", ""], rows) + measured_on(kept)


def stop(kept: Kept) -> str:
    """Seconds, median and most."""

    def cell(arm: str, key: str) -> str:
        found = kept[arm].get(key)
        return (
            "has none" if found is None else f"{found['median']:.2f} s, at most {found['most']:.2f} ({found['count']})"
        )

    names = {
        "stop": "SIGTERM until exit, with a checkpoint",
        "save": "a save blocks the training for",
        "resume": "start until the first new step",
    }
    rows = [[said, cell("tollgate", key), cell("stock", key)] for key, said in names.items()]
    table = rig.table([f"{kept['parameters'] / 1e6:.1f} million weights", "Tollgate", "stock"], rows)
    return table + measured_on(kept)


def memory(kept: Kept) -> str:
    """MiB, median."""
    found = {arm: f"{value / 2**20:.0f} MiB" for arm, value in kept["median_bytes"].items()}
    rows = [[found["tollgate"], found["stock"], f"{kept['ratio']:.3f}", len(kept["peak_bytes"]["tollgate"])]]
    whole = rig.table(["Tollgate", "stock", "ratio", "runs"], rows)
    wide = kept["cross_entropy"]
    found = {how: f"{value / 2**20:.0f} MiB" for how, value in wide["median_bytes"].items()}
    logits = f"{wide['logits_bytes'] / 2**20:.0f} MiB"
    rows = [[found["plain"], found["chunked"], logits, len(wide["peak_bytes"]["plain"])]]
    chunks = rig.table(["`cross_entropy: plain`", "`chunked`", "logits in fp32, one copy", "runs"], rows)
    about = f"{wide['rows']} rows of {wide['tokens']} tokens over a vocabulary of {wide['vocabulary']}:"
    return f"{whole}\n{about}\n\n{chunks}" + measured_on(kept)


TABLES = {"overhead": overhead, "packing": packing, "forecast": forecast, "stop": stop, "memory": memory}


def main(options: Options) -> int:
    """Put the tables of all results into the page."""
    for name, table in TABLES.items():
        path = rig.RESULTS / f"trainer-{name}.json"
        text = table(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else NOT_MEASURED
        rig.put(PAGE, f"trainer-{name}", text)
    print(PAGE)
    return 0
