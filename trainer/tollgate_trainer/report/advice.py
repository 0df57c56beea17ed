"""What follows from the numbers of a run: sentences with the number and the setting; nothing where nothing follows.

A pure function of the record. Each rule looks at numbers that the run has told, and is silent when they are unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document
from tollgate_trainer.report.format import number, share
from tollgate_trainer.report.record import Record

PADDING = 0.25
"""Share of computed tokens from which packing is worth a sentence; the other shares are of time or of documents."""
TRUNCATED, SAVING, LOST, READING, EVALUATING = 0.01, 0.05, 0.03, 0.1, 0.2
RISING = 3
FALLING = 0.01
FEW_HELD_OUT = 100
IDLE_EXPERT = 0.2
"""Of an equal share."""
MOST_NEEDED = 1_000_000


def recommendations(record: Record) -> list[str]:
    """In the order in which they would be taken up: data, course, time, evaluation."""
    rules = (_truncation, _held_out, _padding, _course, _experts, _time, _gates)
    return [sentence for rule in rules for sentence in rule(record)]


def _truncation(record: Record) -> Iterator[str]:
    train = _mapping(record.data.get("train"))
    cut, of = _count(train.get("truncated_samples")), _count(train.get("samples"))
    if cut and of and cut / of > TRUNCATED:
        yield (
            f"{share(cut / of)} of the training samples ({number(cut)} of {number(of)}) were cut at max_seq_length: "
            "raise hyperparameters.max_seq_length, or split long documents."
        )
    dropped = _count(train.get("dropped_samples"))
    if dropped and of and dropped / (dropped + of) > TRUNCATED:
        yield (
            f"{number(dropped)} training samples were dropped, because nothing to learn was left of them: look at them "
            "with tollgate dataset show."
        )


def _held_out(record: Record) -> Iterator[str]:
    count = _count(_mapping(record.data.get("validation")).get("documents"))
    if count is not None and 0 < count < FEW_HELD_OUT:
        yield (
            f"Only {count} documents were held out, so intervals are wide: raise dataset.splits.validation, or name a "
            "file with dataset.splits.validation_path."
        )


def _padding(record: Record) -> Iterator[str]:
    if record.packing is not None and record.packing.on:
        return
    work = _mapping(record.planned.get("work"))
    tokens, computed = _amount(work.get("tokens")), _amount(work.get("computed"))
    if tokens is None or not computed:
        return
    padding = 1 - tokens / computed
    if padding > PADDING and _packs(record.manifest):
        yield f"About {share(padding, 0)} of the computed tokens were padding: set hyperparameters.packing: auto."


def _packs(manifest: Mapping[str, Any]) -> bool:
    """Whether this manifest would also be taken with packing: the rules that refuse it are the loader's."""
    try:
        load_document(
            {**manifest, "hyperparameters": {**_mapping(manifest.get("hyperparameters")), "packing": True}}, ""
        )
    except ManifestError:
        return False
    return True


def _course(record: Record) -> Iterator[str]:
    losses = [
        (event["step"], value)
        for event in record.evaluations
        if (value := _amount(event.get("eval_loss"))) is not None and math.isfinite(value)
    ]
    values = [value for _, value in losses]
    stopping = record.manifest.get("early_stopping")
    if len(values) > RISING and all(a < b for a, b in zip(values[-RISING - 1 :], values[-RISING:], strict=False)):
        best_step, best = min(losses, key=lambda one: one[1])
        what = "" if stopping else ": set early_stopping, or train less"
        yield (
            f"The held-out loss rose at each of the last {RISING} evaluations, from {number(best)} at step "
            f"{number(best_step)} to {number(values[-1])}{what}."
        )
    finished = record.outlook is None or record.outlook.finished
    if finished and len(values) >= 2 and values[-1] == min(values):
        before = min(values[:-1])
        gain = (before - values[-1]) / before if before > 0 else 0.0
        if gain > FALLING:
            yield (
                f"The held-out loss was still falling at the end, by {share(gain)} since the evaluation before: more "
                "steps (hyperparameters.num_train_epochs) would lower it further."
            )


def _experts(record: Record) -> Iterator[str]:
    if not record.experts:
        return
    idle = [
        (layer, index, part, len(shares))
        for layer, shares in record.experts[-1].usage.items()
        for index, part in enumerate(shares)
        if part < IDLE_EXPERT / len(shares)
    ]
    if idle:
        layer, index, part, count = min(idle, key=lambda one: one[2] * one[3])
        yield (
            f"{number(len(idle))} expert{'s' if len(idle) > 1 else ''} hardly took part at the end; expert {index} of "
            f"{layer} got {share(part)} of the choices where an equal share is {share(1 / count)}: raise "
            "adapter.balance, or use fewer adapter.experts."
        )


def _time(record: Record) -> Iterator[str]:
    seconds = record.result.goodput_seconds if record.result else None
    total = sum(seconds.values()) if seconds else 0.0
    if not seconds or total < 60:  # in a short run the start is most of it, and nothing follows from that
        return
    for state, bound, words in (
        ("save", SAVING, "saving: save less often (hyperparameters.save_steps, checkpoint.every_minutes)"),
        ("lost", LOST, "steps that a restart did again: save more often (checkpoint.every_minutes)"),
        ("data", READING, "reading data: keep the cache (TOLLGATE_CACHE) where the next start finds it"),
        ("evaluate", EVALUATING, "evaluating on held-out documents: set a larger hyperparameters.eval_steps"),
    ):
        part = seconds.get(state, 0.0) / total
        if part > bound:
            yield f"{share(part, 0)} of the time went into {words}."


def _gates(record: Record) -> Iterator[str]:
    told: set[str] = set()
    for gate in record.gates:
        for check in gate.checks:
            ends = (check.value, check.bound_value, check.samples)
            straddles = check.verdict == "Inconclusive" and "cannot tell" in check.reason
            if not straddles or check.metric in told or None in ends:
                continue
            needed = samples_needed(check.value, check.bound_value, check.threshold, check.samples)
            if needed is not None and check.samples is not None and needed > check.samples:
                told.add(check.metric)
                yield (
                    f"{check.metric} can't be told from {check.threshold:g} with {number(check.samples)} samples: "
                    f"about {number(needed - check.samples)} more would decide it (evaluation.max_samples, or more "
                    "held-out documents)."
                )


def samples_needed(value: float | None, bound: float | None, threshold: float, samples: int | None) -> int | None:
    """Samples with which a bound would lie on the value's side of the threshold, if the value stays what it is.

    An interval shrinks with the square root of the samples. None when unknown, or more than a million.
    """
    if value is None or bound is None or not samples or value == threshold:
        return None
    ratio = (bound - value) / (threshold - value)
    needed = math.ceil(samples * ratio * ratio)
    return needed if needed <= MOST_NEEDED else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _amount(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
