"""How much work a run is, how long that takes and what it costs: dataset statistics + model + device -> hours, USD.

Pure. What is not known is None, never zero; what is assumed says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tollgate.manifest.training_manifest import TrainingManifest
from tollgate.planning.devices import Interval, utilisation
from tollgate.planning.facts import Facts, Settings, epoch_of, is_packed, weights_of
from tollgate.planning.memory import FP16, SHARDED
from tollgate.planning.shapes import Shape

DEFAULT_SAVE_MINUTES = 10.0
EXPECTED_LOSS = 0.02
"""Of the time that a preemption may cost on average."""
BETWEEN_PREEMPTIONS_MINUTES = 240.0
"""Assumed mean time between two preemptions of a spot node; a shorter run is assumed to be hit once."""
SAVE_BYTES_PER_SECOND = Interval(100e6, 1e9)
"""Assumed speed of the output volume until a save is measured."""
STARTUP_SECONDS = Interval(10.0, 120.0)
"""Assumed time of imports, reading, loading and the end."""
LAYER_SECONDS = Interval(0.3e-3, 2e-3)
"""Assumed least time of one layer's forward and backward on a GPU, whatever its size: its operations are launched one
by one by the host."""
LINK_BYTES_PER_SECOND = Interval(10e9, 50e9)
"""Assumed speed between a GPU and its host's memory (PCIe 4 or 5, 16 lanes, shared or not)."""
HOST_UPDATE_BYTES_PER_SECOND = Interval(5e9, 50e9)
"""Assumed speed of AdamW in the host's memory, over what it reads and writes."""
ADAM_BYTES = 28
"""For each trained weight AdamW reads weight, gradient and two moments, and writes all but the gradient, in fp32."""
CHECKPOINT_BYTES = 12
"""Of a trained weight and its two moments, in fp32."""


NOTHING = Interval(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds per padded token of one process, forward and backward, and per optimizer update; measured or assumed."""

    per_token: Interval
    per_update: Interval = NOTHING
    measured: bool = False
    because: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """tokens: without padding, of all steps; computed: with padding, of all processes; flops: None when unknown.

    rows_per_step: over all processes, in a whole step; samples_per_step: documents in it, which are more where rows are
    packed; row_tokens: of a packed row, None without packing; saves: those that are known before steps are measured (at
    save_steps and at the end).
    """

    steps: int
    steps_per_epoch: int
    rows_per_step: int
    samples_per_step: float
    tokens_per_step: float
    row_tokens: int | None
    epochs: float
    tokens: float
    computed: float
    flops: float | None
    evaluations: int
    held_out_tokens: int
    saves: int
    checkpoint_bytes: int | None


@dataclass(frozen=True, slots=True)
class Preemption:
    """What one preemption loses at most: minutes since the last checkpoint, and their price."""

    every_minutes: float | None
    minutes: float | None
    usd_micro: int | None
    expected_share: float | None
    because: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """hours and usd_micro: None when unknown. because: where the pace comes from."""

    work: Work
    hours: Interval | None
    usd_micro: tuple[int, int] | None
    preemption: Preemption
    because: str


# --- FLOPs ------------------------------------------------------------------------------------------------------------


def flops_per_token(shape: Shape, adapter: bool, width: float, checkpointing: bool) -> float:
    """FLOPs of forward and backward for one token in a row of `width` tokens.

    A matrix product of N weights costs 2N forward, 2N for the gradient of its input and 2N for that of its weights;
    frozen weights have no last part: 6N for full training, 4N for LoRA. Attention adds 12 x layers x (heads x head
    size) x width. Recomputing activations adds one more forward.
    Source: Kaplan et al. 2020, section 2.1; Chowdhery et al. 2022 (PaLM), appendix B.
    """
    products = (4.0 if adapter else 6.0) * shape.products
    attention = 12.0 * shape.layers * shape.attention * width
    again = 2.0 * shape.products + 4.0 * shape.layers * shape.attention * width if checkpointing else 0.0
    return products + attention + again


def assumed_pace(manifest: TrainingManifest, settings: Settings, facts: Facts) -> Pace | None:
    """The pace by the device's peak and the assumed utilisation; None for an unknown device or model."""
    device, shape = facts.device, facts.shape
    peak = device.peak(settings.precision, manifest.tf32)
    if peak is None or shape is None:
        return None
    adapter = manifest.adapter.type != "none"
    epoch = epoch_of(manifest, facts, settings)
    share = utilisation(device.gpu, shape.parameters, adapter, facts.nodes)
    flops = flops_per_token(shape, adapter, epoch.width, settings.checkpointing)
    pace = Interval(flops / (peak * share.high), flops / (peak * share.low))
    because = f"assumed: {share.low:.0%} to {share.high:.0%} of {peak / 1e12:.3g} TFLOP/s ({device.name}"
    because += f", {settings.precision})" if device.gpu else ")"
    if device.gpu:
        each = min(settings.micro_batch, epoch.rows) * epoch.width  # tokens of a pass
        least = Interval(LAYER_SECONDS.low * shape.layers / each, LAYER_SECONDS.high * shape.layers / each)
        if least.low > pace.low:
            because = (
                f"assumed: so small a pass takes {1e3 * LAYER_SECONDS.low * shape.layers:.2g} to "
                f"{1e3 * LAYER_SECONDS.high * shape.layers:.2g} ms on any GPU"
            )
        pace = Interval(max(pace.low, least.low), max(pace.high, least.high))
    if manifest.parallelism_options.offload == "cpu" and device.gpu:
        because += ", and weights and gradients that travel to the host's memory"
    update = update_seconds(manifest, settings, facts, shape)
    return Pace(pace, update, False, f"{because}, until steps are measured")


def update_seconds(manifest: TrainingManifest, settings: Settings, facts: Facts, shape: Shape) -> Interval:
    """Seconds of one optimizer update, with what an offloaded one sends over the link for each step.

    Each process updates its shard. Offloaded, the gradients go to the host and the weights come back, in 16 bit; with
    zero3 and fsdp2 the whole weights travel for each forward, backward and recomputation of each pass.
    Source: Ren et al. 2021, ZeRO-Offload, section 4.1; Rajbhandari et al. 2021, ZeRO-Infinity, section 4.
    """
    if facts.device.bandwidth is None:
        return NOTHING
    weights, strategy = weights_of(manifest, shape), settings.strategy
    trained = weights.trainable / (facts.world if strategy in SHARDED else 1)
    if manifest.parallelism_options.offload != "cpu" or strategy not in SHARDED:
        seconds = ADAM_BYTES * trained / facts.device.bandwidth
        return Interval(seconds, 2 * seconds)
    travels = 2 * FP16 * trained
    if strategy in ("zero3", "fsdp2"):
        times = (3 if settings.checkpointing else 2) * settings.accumulation
        travels += FP16 * weights.total / facts.world * times
    low = ADAM_BYTES * trained / HOST_UPDATE_BYTES_PER_SECOND.high + travels / LINK_BYTES_PER_SECOND.high
    high = ADAM_BYTES * trained / HOST_UPDATE_BYTES_PER_SECOND.low + travels / LINK_BYTES_PER_SECOND.low
    return Interval(low, high)


# --- work, time, money ------------------------------------------------------------------------------------------------


def work(manifest: TrainingManifest, settings: Settings, facts: Facts) -> Work:
    """Steps, tokens and FLOPs of the whole run. Each epoch is taken to be as much work as the first."""
    lengths, asked = facts.lengths, manifest.hyperparameters
    epoch = epoch_of(manifest, facts, settings)
    rows = min(facts.world * settings.micro_batch * settings.accumulation, epoch.rows)
    steps = settings.max_steps or math.ceil((settings.epochs or 0.0) * epoch.steps)
    epochs = steps / epoch.steps
    computed = epochs * epoch.computed
    adapter = manifest.adapter.type != "none"
    flops = size = None
    if facts.shape is not None:
        flops = computed * flops_per_token(facts.shape, adapter, epoch.width, settings.checkpointing)
        size = CHECKPOINT_BYTES * weights_of(manifest, facts.shape).trainable
    every = asked.eval_steps or epoch.steps
    evaluations = math.ceil(steps / every) if lengths.validation_documents else 0
    saves = steps // asked.save_steps if asked.save_steps else 0
    return Work(
        steps=steps,
        steps_per_epoch=epoch.steps,
        rows_per_step=rows,
        samples_per_step=rows * epoch.samples / epoch.rows,
        tokens_per_step=rows * epoch.tokens / epoch.rows,
        row_tokens=settings.max_seq_length if is_packed(manifest, facts, settings.strategy) else None,
        epochs=epochs,
        tokens=epochs * epoch.tokens,
        computed=computed,
        flops=flops,
        evaluations=evaluations,
        held_out_tokens=epoch.held_out,
        saves=saves + 1,
        checkpoint_bytes=size,
    )


def estimate(
    manifest: TrainingManifest,
    settings: Settings,
    facts: Facts,
    pace: Pace | None,
    usd_per_node_hour: int | None,
    save_speed: Interval = SAVE_BYTES_PER_SECOND,
) -> Estimate:
    """Hours and price of the run.

    Args: pace: measured or assumed, None when unknown; usd_per_node_hour: micro-USD, None when nobody said; save_speed:
    bytes/s at which checkpoints are written, assumed until the volume was measured.
    """
    pace = pace or assumed_pace(manifest, settings, facts)
    whole = work(manifest, settings, facts)
    hours = _hours(manifest, facts, whole, pace, save_speed) if pace is not None else None
    rate = usd_per_node_hour * facts.nodes if usd_per_node_hour is not None else None
    usd = None
    if hours is not None and rate is not None:
        usd = (math.ceil(rate * hours.low), math.ceil(rate * hours.high))
    because = pace.because if pace is not None else _unknown(facts)
    return Estimate(whole, hours, usd, preemption(manifest, hours, whole, rate), because)


def _unknown(facts: Facts) -> str:
    what = "the model's sizes are" if facts.shape is None else f"the speed of {facts.device.name} is"
    return f"{what} unknown, so the time is too until steps are measured"


def _hours(manifest: TrainingManifest, facts: Facts, whole: Work, pace: Pace, save_speed: Interval) -> Interval:
    """With every save: those at save_steps, the last one, and those by the clock, of which a slower run has more."""
    per_process = whole.computed / facts.world
    # A held-out token costs the forward part of a training token: 2N of 6N, or of 4N with an adapter.
    forward = 1 / 2 if manifest.adapter.type != "none" else 1 / 3
    held_out = whole.evaluations * whole.held_out_tokens / facts.world * forward
    size = whole.checkpoint_bytes or 0
    quick, slow = size / save_speed.high, size / save_speed.low
    low = (per_process + held_out) * pace.per_token.low + whole.steps * pace.per_update.low
    high = (per_process + held_out) * pace.per_token.high + whole.steps * pace.per_update.high
    low += whole.saves * quick
    high += whole.saves * slow
    every = save_minutes(manifest, Interval(low / 3600, high / 3600), whole.checkpoint_bytes)
    if every is not None:
        low += int(low / (60 * every)) * quick
        high += int(high / (60 * every)) * slow
    return Interval((low + STARTUP_SECONDS.low) / 3600, (high + STARTUP_SECONDS.high) / 3600)


# --- preemption -------------------------------------------------------------------------------------------------------


def save_minutes(manifest: TrainingManifest, hours: Interval | None, checkpoint_bytes: int | None) -> float | None:
    """How often to save so that a preemption costs at most 2 % on average; the user's own number wins.

    Work since the last checkpoint is lost, half an interval on average: interval / 2 <= 2 % of the time between
    preemptions (assumed 4 h, or the run when it is shorter). Saving itself may take 2 % as well; where both cannot
    hold, the interval is Young's optimum sqrt(2 x save x between). Source: Young 1974, CACM 17(9).
    None when only save_steps counts.
    """
    asked = manifest.checkpoint.every_minutes
    if asked is not None:
        return asked
    if manifest.hyperparameters.save_steps is not None:
        return None
    if manifest.optimization_priority == "none" or hours is None:
        return DEFAULT_SAVE_MINUTES
    between = min(BETWEEN_PREEMPTIONS_MINUTES, 60 * hours.high)
    longest = 2 * EXPECTED_LOSS * between
    save = (checkpoint_bytes or 0) / SAVE_BYTES_PER_SECOND.low / 60
    shortest = save / EXPECTED_LOSS
    if shortest > longest:
        longest = math.sqrt(2 * save * between)
    return max(1.0, round(longest, 1))


def preemption(manifest: TrainingManifest, hours: Interval | None, whole: Work, rate: int | None) -> Preemption:
    """What one preemption loses. rate: micro-USD an hour of all nodes."""
    minutes = every = save_minutes(manifest, hours, whole.checkpoint_bytes)
    steps = manifest.hyperparameters.save_steps
    if steps is not None and hours is not None and whole.steps:
        by_steps = min(steps, whole.steps) / whole.steps * hours.high * 60
        minutes = by_steps if minutes is None else min(minutes, by_steps)
    if hours is not None and minutes is not None:
        minutes = min(minutes, 60 * hours.high)  # a short run has no more to lose than itself
    share = None
    if minutes is not None and hours is not None:
        between = min(BETWEEN_PREEMPTIONS_MINUTES, 60 * hours.high)
        share = minutes / 2 / between
    usd = math.ceil(rate * minutes / 60) if rate is not None and minutes is not None else None
    because = f"one every {BETWEEN_PREEMPTIONS_MINUTES / 60:g} h, or one a run when it is shorter (assumed)"
    return Preemption(every, minutes, usd, share, because)


# --- limits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a run fits into a window and a budget. fits: None when it is not known; advice: what would."""

    fits: bool | None
    told: tuple[str, ...]
    advice: tuple[str, ...]


def fit(found: Estimate, window_seconds: int | None, max_cost: int | None, settings: Settings) -> Fit:
    """Compare the upper end of the estimate with what there is.

    Args: window_seconds: of wall time; max_cost: micro-USD. None: no such limit.
    """
    told: list[str] = []
    verdicts: list[bool | None] = []
    ratio = 1.0
    if window_seconds is not None:
        if found.hours is None:
            told.append("whether it fits the window is unknown")
            verdicts.append(None)
        else:
            share = window_seconds / 3600 / found.hours.high
            ratio = min(ratio, share)
            verdicts.append(share >= 1)
            told.append(
                f"window of {window_seconds / 3600:.2g} h: "
                + ("fits" if share >= 1 else f"up to {found.hours.high:.2g} h are expected")
            )
    if max_cost is not None:
        if found.usd_micro is None:
            told.append("whether it fits the budget is unknown: no price or no time is known")
            verdicts.append(None)
        else:
            share = max_cost / max(found.usd_micro[1], 1)
            ratio = min(ratio, share)
            verdicts.append(share >= 1)
            told.append("budget: " + ("fits" if share >= 1 else "more than it is expected in the worst case"))
    if not verdicts:
        return Fit(True, (), ())
    if all(verdict is True for verdict in verdicts):
        return Fit(True, tuple(told), ())
    if any(verdict is False for verdict in verdicts):
        return Fit(False, tuple(told), _shorter(found, settings, ratio))
    return Fit(None, tuple(told), ())


def _shorter(found: Estimate, settings: Settings, ratio: float) -> tuple[str, ...]:
    """What makes the run short enough: fewer steps first, as nothing else is sure to."""
    assert found.hours is not None
    fixed = STARTUP_SECONDS.high / 3600
    target = ratio * found.hours.high
    if target <= fixed:
        return (f"nothing can: {target:.2g} h do not even cover the start (up to {STARTUP_SECONDS.high:g} s)",)
    share = (target - fixed) / max(found.hours.high - fixed, 1e-12)
    steps = int(found.work.steps * share)
    if steps < 1:
        return ("nothing can: not one step fits; take a faster device or more of them",)
    if settings.max_steps is not None:
        return (f"hyperparameters.max_steps: {steps} would fit",)
    epochs = math.floor(100 * steps / found.work.steps_per_epoch) / 100
    if epochs <= 0:
        return (f"hyperparameters.max_steps: {steps} would fit (a part of one epoch)",)
    return (f"hyperparameters.num_train_epochs: {epochs:g} would fit",)
