"""`tollgate plan`: what a run will need, before anybody pays for it. Nothing here imports torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console

from tollgate.api.quantities import parse_duration, parse_usd
from tollgate.contract import ExitCode, Files
from tollgate.estimate import Fit, estimate, fit
from tollgate.manifest.loader import LoadedManifest
from tollgate.parallelism import LayoutError, layout
from tollgate.planning import devices, document
from tollgate.planning.choose import Choice, choose
from tollgate.planning.devices import DEVICES, Device
from tollgate.planning.document import Belongs
from tollgate.planning.facts import Facts
from tollgate_cli.helping import ending
from tollgate_cli.options import ARGUMENT, overriding_a_run
from tollgate_cli.wishes import Wishes, effective
from tollgate_trainer import durable
from tollgate_trainer.laptop import options
from tollgate_trainer.laptop.preparation import LaptopError
from tollgate_trainer.plan import hardware, showing
from tollgate_trainer.plan.arranging import arranger
from tollgate_trainer.plan.gathering import Gathered, parse
from tollgate_trainer.refusal import DatasetRefused


@click.command(
    epilog=ending(
        "tollgate plan manifest.yaml",
        "tollgate plan manifest.yaml --gpu H100 --gpus-per-node 8 --usd-per-hour 24 --window 6h",
        then="Exit codes: 0 it fits or nobody can tell, 1 it does not fit, 2 wrong usage, 64 something to mend (all of "
        "it is told at once).",
    )
)
@ARGUMENT
@overriding_a_run
@click.option(
    "--gpu",
    type=click.Choice([*DEVICES, "none"], case_sensitive=False),
    help="What each process has.  [default: this machine's CPU, which is measured]",
)
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Machines.")
@click.option("--gpus-per-node", type=click.IntRange(min=1), default=1, show_default=True, help="Processes of each.")
@click.option("--usd-per-hour", metavar="USD", help="What one node costs an hour.  [default: no price, so no costs]")
@click.option(
    "--window",
    metavar="DURATION",
    help="How long it may take, such as 6h.  [default: resources.expected_runtime_hours]",
)
@click.option("--max-cost", metavar="USD", help="What it may cost.  [default: resources.max_budget_usd]")
@click.option(
    "--dataset-root", type=options.FOLDER, help="What dataset.path is relative to.  [default: MANIFEST's folder]"
)
@click.option("--output", type=options.FOLDER, help="Where plan.json is put.  [default: it is only shown]")
@options.JSON
def plan(
    file: Path,
    wishes: Wishes,
    gpu: str | None,
    nodes: int,
    gpus_per_node: int,
    usd_per_hour: str | None,
    window: str | None,
    max_cost: str | None,
    dataset_root: Path | None,
    output: Path | None,
    form: str,
) -> int:
    """Say what a run will need: numbers, memory, time and money.

    With `optimization_priority` in MANIFEST the batch, length and so on are chosen here, and the training takes the
    same ones; a number in MANIFEST always wins. Times are assumptions until steps are measured, and are called so.
    """
    loaded = effective(file, wishes, os.environ).loaded
    device = DEVICES[gpu.upper()] if gpu is not None and gpu != "none" else None
    price, seconds, budget = _limits(loaded, usd_per_hour, window, max_cost)
    _refuse(loaded, nodes, gpus_per_node if device is not None else 0)
    found = gathered(loaded, dataset_root or file.parent, device is None)
    facts = _facts(loaded, found, device, nodes, gpus_per_node if device is not None else 1)
    try:
        choice = choose(loaded.manifest, facts)
        expected = estimate(loaded.manifest, choice.settings, facts, found.pace if device is None else None, price)
    except DatasetRefused as refused:  # at this length there is nothing to learn
        raise LaptopError(str(refused)) from refused
    limits = fit(expected, seconds, budget, choice.settings)
    belongs = Belongs(manifest_digest=loaded.digest, dataset_digest=found.dataset_digest, world=facts.world)
    written = document.document(loaded.manifest, facts, choice, expected, limits, belongs)
    written["unknown"] = found.unknown
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        durable.write(output / Files.PLAN, json.dumps(written, indent=1).encode() + b"\n")
    if form == "json":
        click.echo(json.dumps(written, indent=1))
    else:
        showing.show(Console(), loaded.manifest, facts, choice, expected, limits, found.unknown)
    return _verdict(choice, limits)


def gathered(loaded: LoadedManifest, dataset_root: Path, cpu: bool) -> Gathered:
    """Ask the process that has torch. Raises: LaptopError with its words."""
    with tempfile.TemporaryDirectory(prefix="tollgate-") as scratch:
        manifest = Path(scratch) / "manifest.json"
        manifest.write_bytes(loaded.canonical)
        command = [sys.executable, "-m", "tollgate_trainer.plan", str(manifest), str(dataset_root.absolute())]
        done = subprocess.run([*command, "cpu" if cpu else "gpu"], capture_output=True, text=True, check=False)
    if done.returncode == ExitCode.USER:
        raise LaptopError(done.stderr.strip())
    if done.returncode:
        raise LaptopError(f"the data or the model could not be looked at:\n{done.stderr.strip()[-2000:]}")
    return parse(done.stdout.strip().splitlines()[-1])


# --- parts ------------------------------------------------------------------------------------------------------------


def _limits(
    loaded: LoadedManifest, usd_per_hour: str | None, window: str | None, max_cost: str | None
) -> tuple[int | None, int | None, int | None]:
    """(price of a node's hour, seconds, budget) in micro-USD and seconds. Raises: LaptopError."""
    resources = loaded.manifest.resources
    problems: list[str] = []
    found: list[int | None] = []
    for name, text, parse_it in (
        ("--usd-per-hour", usd_per_hour, parse_usd),
        ("--window", window, parse_duration),
        ("--max-cost", max_cost, parse_usd),
    ):
        try:
            found.append(parse_it(text) if text is not None else None)
        except ValueError as error:
            problems.append(f"{name}: {error}")
            found.append(None)
    if problems:
        raise LaptopError("\n".join(problems))
    price, seconds, budget = found
    if seconds is None and resources.expected_runtime_hours is not None:
        seconds = int(resources.expected_runtime_hours * 3600)
    if budget is None and resources.max_budget_usd is not None:
        budget = int(resources.max_budget_usd)
    return price, seconds, budget


def _refuse(loaded: LoadedManifest, nodes: int, gpus_per_node: int) -> None:
    """What can't be on these nodes. Raises: LaptopError."""
    try:
        layout(loaded.manifest, nodes, gpus_per_node)
    except LayoutError as error:
        raise LaptopError(f"{loaded.source}: {error}") from error


def _facts(loaded: LoadedManifest, found: Gathered, device: Device | None, nodes: int, processes: int) -> Facts:
    own = device or devices.cpu(hardware.host_memory(), found.cpu_flops)
    arrange = arranger(found.sizes, loaded.manifest.reproducibility.seed)
    return Facts(found.lengths, found.shape, own, arrange, nodes, processes, found.labels)


def _verdict(choice: Choice, limits: Fit) -> int:
    return 1 if choice.fits is False or limits.fits is False else 0
