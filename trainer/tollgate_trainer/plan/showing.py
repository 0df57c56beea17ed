"""A plan for people, in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tollgate.api.quantities import format_cents
from tollgate.estimate import Estimate, Fit
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.choose import Choice, Facts, weights_of
from tollgate.planning.lengths import padded_width
from tollgate.planning.memory import GIB


def show(
    console: Console,
    manifest: TrainingManifest,
    facts: Facts,
    choice: Choice,
    found: Estimate,
    limits: Fit,
    unknown: str | None,
) -> None:
    """Data, model, numbers, memory, time, money, preemption, and what does not fit."""
    lines = Table.grid(padding=(0, 2))
    for name, text in _rows(manifest, facts, choice, found, unknown):
        lines.add_row(f"[bold]{name}[/bold]", text)
    console.print(lines)
    if choice.memory is not None:
        console.print()
        console.print(_memory(choice))
    for line in (*choice.changes, *limits.told):
        console.print(f"- {line}", markup=False, highlight=False)
    if choice.fits is False:
        console.print("It does not fit into memory. What would:" if choice.nearest else "It does not fit into memory.")
    if choice.fits is False and not choice.nearest:
        console.print("Nothing smaller of this model would; take a smaller model or a larger device.")
    for line in (*choice.nearest, *limits.advice):
        console.print(f"  {line}", markup=False, highlight=False)


def _rows(
    manifest: TrainingManifest, facts: Facts, choice: Choice, found: Estimate, unknown: str | None
) -> list[tuple[str, str]]:
    lengths, settings, whole = facts.lengths, choice.settings, found.work
    width = padded_width(lengths, settings.max_seq_length, settings.micro_batch)
    batch = f"{settings.micro_batch} x {settings.accumulation} x {facts.world}"
    sharing = f", {settings.strategy}" if facts.world > 1 else ""
    again = ", activations recomputed" if settings.checkpointing else ""
    return [
        (
            "data",
            f"{lengths.documents:,} documents, {lengths.tokens:,} tokens; p50 {lengths.at(50)}, p95 {lengths.at(95)}, "
            f"longest {lengths.longest}; {lengths.validation_documents:,} held out",
        ),
        ("model", _model(manifest, facts, unknown)),
        ("device", _device(facts)),
        (
            "step",
            f"{batch} = {whole.samples_per_step} samples (rows x accumulation x processes){sharing}, at most "
            f"{settings.max_seq_length} tokens, {width:.0f} with padding; {settings.precision}{again}",
        ),
        ("steps", f"{whole.steps:,} in {whole.epochs:.2g} epochs, {whole.tokens:,.0f} tokens"),
        ("work", f"{whole.flops:.2e} FLOPs" if whole.flops is not None else "unknown"),
        ("time", _time(found)),
        ("cost", _cost(found)),
        ("saves", _preemption(found)),
    ]


def _model(manifest: TrainingManifest, facts: Facts, unknown: str | None) -> str:
    if facts.shape is None:
        return f"sizes unknown: {unknown or 'not counted'}"
    weights = weights_of(manifest, facts.shape)
    how = "counted" if facts.shape.counted else "by formula"
    return f"{weights.total:,} parameters ({how}), {weights.trainable:,} of them trained"


def _device(facts: Facts) -> str:
    device = facts.device
    memory = f"{device.memory / GIB:.0f} GiB" if device.memory is not None else "memory unknown"
    peak = f", {device.flops / 1e12:.3g} TFLOP/s" if device.flops is not None else ""
    what = "peak by the datasheet" if device.gpu else "measured in a matrix product"
    count = f"{facts.nodes} x {facts.processes_per_node} " if facts.world > 1 else ""
    return f"{count}{device.name}, {memory}{peak}{f' ({what})' if peak else ''}"


def _time(found: Estimate) -> str:
    if found.hours is None:
        return f"unknown: {found.because}"
    return f"{duration(found.hours.low)} to {duration(found.hours.high)} ({found.because})"


def _cost(found: Estimate) -> str:
    if found.usd_micro is None:
        return "unknown: give --usd-per-hour" if found.hours is not None else "unknown, as the time is"
    return f"{format_cents(found.usd_micro[0])} to {format_cents(found.usd_micro[1])} USD"


def _preemption(found: Estimate) -> str:
    lost = found.preemption
    every = f"every {lost.every_minutes:g} minutes" if lost.every_minutes is not None else "every save_steps"
    if lost.minutes is None:
        return f"{every}; what a preemption loses is unknown until steps are measured"
    usd = f" = {format_cents(lost.usd_micro)} USD" if lost.usd_micro is not None else ""
    share = f", {lost.expected_share:.1%} of the time on average" if lost.expected_share is not None else ""
    return f"{every}; a preemption loses up to {lost.minutes:.3g} minutes{usd}{share} ({lost.because})"


def _memory(choice: Choice) -> Table:
    assert choice.memory is not None
    table = Table(box=None)
    table.add_column("memory of one process, estimated")
    table.add_column("GiB", justify="right")
    for name, size in choice.memory.rows():
        table.add_row(name, f"{size / GIB:.2f}")
    table.add_row("total", f"[bold]{choice.memory.total / GIB:.2f}[/bold]")
    if choice.limit is not None:
        table.add_row("may be used", f"{choice.limit / GIB:.2f}")
    return table


def duration(hours: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    seconds = hours * 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
