"""A plan for people, in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tollgate.api.quantities import format_cents
from tollgate.estimate import BETWEEN_PREEMPTIONS_MINUTES, STARTUP_SECONDS, Estimate, Fit, Work
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.choose import Choice
from tollgate.planning.facts import Facts, epoch_of, weights_of
from tollgate.planning.memory import GIB, SHARDED
from tollgate_trainer.data.sources import weights_of_sources


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
    lengths, whole = facts.lengths, found.work
    windows = "windows of texts" if manifest.task in ("span", "joint") else "documents"
    return [
        (
            "data",
            f"{lengths.documents:,} {windows}, {lengths.tokens:,} tokens; half of them have at most {lengths.at(50)} "
            f"tokens, 95 % at most {lengths.at(95)}, the longest {lengths.longest}; "
            f"{lengths.validation_documents:,} more are held out",
        ),
        ("model", _model(manifest, facts, unknown)),
        ("device", _device(facts)),
        ("step", _step(manifest, facts, choice, whole)),
        ("steps", _steps(manifest, facts, choice, whole)),
        ("work", f"{whole.flops:.2e} floating-point operations" if whole.flops is not None else "unknown"),
        ("time", _time(manifest, facts, found)),
        ("cost", _cost(found)),
        ("saves", _preemption(found, manifest.hyperparameters.save_steps)),
    ]


def _step(manifest: TrainingManifest, facts: Facts, choice: Choice, whole: Work) -> str:
    settings, asked = choice.settings, manifest.hyperparameters
    wanted = settings.micro_batch * settings.accumulation * facts.world
    passes = plural(settings.accumulation, "pass", "es")
    batch = f"{plural(settings.micro_batch, 'row')} x {passes} x {plural(facts.world, 'process', 'es')}"
    what = (
        f"{wanted} rows"
        if wanted == whole.rows_per_step
        else f"{wanted} rows, of which there are {whole.rows_per_step}"
    )
    parts = [f"{batch} = {what}"]
    if whole.row_tokens is not None:
        tried = " if the model passes the trial" if asked.packing == "auto" else ""
        parts.append(
            f"packed{tried}: about {whole.samples_per_step:,.0f} documents share the {whole.rows_per_step} rows of "
            f"{whole.row_tokens} tokens"
        )
    else:
        one = "a window of a text" if manifest.task in ("span", "joint") else "a document"
        parts.append(f"{one} in each, of at most {settings.max_seq_length} tokens")
        if asked.packing is not False:
            parts.append(f"not packed, which {settings.strategy} does not allow")
    if asked.group_by_length:
        parts.append("of similar length")
    padding = epoch_of(manifest, facts, settings).padding
    parts.append(f"{whole.tokens_per_step:,.0f} tokens, and padding that is {padding:.0%} of what is computed")
    if facts.world > 1 or settings.strategy in SHARDED:
        moved = " offloaded to the host" if manifest.parallelism_options.offload == "cpu" else ""
        parts.append(f"{settings.strategy}{moved}")
    parts.append(settings.precision)
    if settings.checkpointing:
        parts.append("activations recomputed")
    return "; ".join(parts)


def _steps(manifest: TrainingManifest, facts: Facts, choice: Choice, whole: Work) -> str:
    text = f"{whole.steps:,}: {whole.epochs:.3g} epochs of {whole.steps_per_epoch:,} steps, {whole.tokens:,.0f} tokens"
    epoch = epoch_of(manifest, facts, choice.settings)
    if epoch.samples != facts.lengths.documents and all(
        weight == 1 for weight in weights_of_sources(manifest).values()
    ):
        left = facts.lengths.documents - epoch.samples
        text += f"; {left:,} documents have nothing to learn from before they are cut, and are left out"
    elif epoch.samples != facts.lengths.documents:
        text += f"; {epoch.samples:,} documents an epoch by the weights of the sources"
    return text + ("; early stopping may end it before" if manifest.early_stopping is not None else "")


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
    what = "peak in 16 bit by the datasheet" if device.gpu else "measured in a matrix product"
    unit = plural(facts.processes_per_node, "GPU") if device.gpu else plural(facts.processes_per_node, "process", "es")
    count = f"{plural(facts.nodes, 'node')} with {unit} each: "
    return f"{count if facts.world > 1 else ''}{device.name}, {memory}{peak}{f' ({what})' if peak else ''}"


def _time(manifest: TrainingManifest, facts: Facts, found: Estimate) -> str:
    if found.hours is None:
        return f"unknown: {found.because}"
    fixed = between(STARTUP_SECONDS.low / 3600, STARTUP_SECONDS.high / 3600)
    parts = [found.because, f"{fixed} of it for start and end"]
    if manifest.evaluation.enabled and facts.lengths.validation_documents:
        parts.append("the evaluation after the training is not in it")
    return f"{between(found.hours.low, found.hours.high)} ({'; '.join(parts)})"


def _cost(found: Estimate) -> str:
    if found.usd_micro is None:
        return "unknown: give --usd-per-hour" if found.hours is not None else "unknown, as the time is"
    return f"{format_cents(found.usd_micro[0])} to {format_cents(found.usd_micro[1])} USD"


def _preemption(found: Estimate, steps: int | None) -> str:
    lost = found.preemption
    ways = [f"every {lost.every_minutes:g} minutes"] if lost.every_minutes is not None else []
    ways += [f"every {steps:,} steps"] if steps is not None else []
    size = found.work.checkpoint_bytes
    each = f", about {amount(size)} each" if size is not None else ""
    every = f"{', '.join(ways)} and at the end{each}"
    if lost.minutes is None:
        return f"{every}; what a preemption loses is unknown until steps are measured"
    if found.hours is not None and lost.minutes >= 60 * found.hours.high:
        return f"{every}; the run may end before its first save, so a preemption would lose all of it"
    usd = f" = {format_cents(lost.usd_micro)} USD" if lost.usd_micro is not None else ""
    share = ""
    if lost.expected_share is not None and found.hours is not None:
        once = 60 * found.hours.high < BETWEEN_PREEMPTIONS_MINUTES
        often = "if there is one" if once else f"if there is one every {BETWEEN_PREEMPTIONS_MINUTES / 60:g} h (assumed)"
        share = f", on average {lost.expected_share:.1%} of the time {often}"
    return f"{every}; a preemption loses up to {duration(lost.minutes / 60)}{usd}{share}"


def _memory(choice: Choice) -> Table:
    assert choice.memory is not None
    table = Table(box=None)
    table.add_column("memory of one process, estimated")
    table.add_column("", justify="right")
    for name, size in choice.memory.rows():
        table.add_row(name, amount(size))
    table.add_row("total", f"[bold]{amount(choice.memory.total)}[/bold]")
    if choice.limit is not None:
        table.add_row("may be used", amount(choice.limit))
    if choice.memory.host:
        table.add_row("and in the host's memory, by offload", amount(choice.memory.host))
    return table


def amount(size: int) -> str:
    """Bytes as `7.5 MiB` or `14.96 GiB`."""
    if size < GIB / 10:
        return f"{size / 2**20:.1f} MiB" if size >= 2**20 / 20 else "below 0.1 MiB" if size else "none"
    return f"{size / GIB:.2f} GiB"


def plural(count: int, one: str, ending: str = "s") -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {one}{'' if count == 1 else ending}"


def between(low: float, high: float) -> str:
    """Two durations in hours: `10 s to 2 min`, or one where both read the same."""
    ends = duration(low), duration(high)
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def duration(hours: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    seconds = hours * 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
