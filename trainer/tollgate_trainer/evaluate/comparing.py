"""Two models on the same prompts: the paired difference of each metric, as a metric `<name>_delta`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tollgate.contract import Metric
from tollgate_trainer.evaluate import intervals
from tollgate_trainer.evaluate.samples import Measured, Rate


@dataclass(frozen=True, slots=True)
class Pairing:
    """What the baseline gave for a metric: its value, McNemar's p-value for rates, and the difference where it can be
    had.
    """

    value: float
    mcnemar: float | None
    delta: Metric | None


def paired(
    ours: Sequence[Measured], theirs: Sequence[Measured], confidence: float, seeds: Mapping[str, int], same_tokens: bool
) -> tuple[dict[str, Pairing], list[str]]:
    """(metric -> what the baseline gave, why others could not be compared).

    Only metrics of the same prompts, scorer and decoding are compared. seeds: of each metric. same_tokens: whether both
    models have the same tokens; perplexities of different ones say nothing about each other.
    """
    others = {measured.metric: measured for measured in theirs}
    found: dict[str, Pairing] = {}
    notes = []
    for one in ours:
        other = others.get(one.metric)
        if other is None or _asked(one) != _asked(other):
            notes.append(f"{one.metric} is not compared: the baseline was not asked the same prompts in the same way")
            continue
        value = intervals.metric(other, confidence, seeds[one.metric]).value
        mcnemar = None
        if isinstance(one.samples, Rate) and isinstance(other.samples, Rate) and one.samples.outcomes:
            mcnemar = intervals.mcnemar(one.samples, other.samples)
        found[one.metric] = Pairing(value, mcnemar, _delta(one, other, confidence, seeds[one.metric], same_tokens))
    return found, notes


def _delta(one: Measured, other: Measured, confidence: float, seed: int, same_tokens: bool) -> Metric | None:
    difference = intervals.difference(one.samples, other.samples, confidence, seed)
    name = f"{one.metric}_delta"
    if difference is None or len(name) > 63:  # a policy can't name it
        return None
    advisory = one.advisory
    if one.metric == "perplexity" and not same_tokens:
        advisory = "the two models have other tokens, so their perplexities can't be compared; look at bits_per_byte"
    return Metric(
        name=name,
        value=difference.value,
        lower=difference.lower,
        upper=difference.upper,
        confidence=confidence,
        samples=intervals.size(one.samples),
        advisory=advisory,
    )


def _asked(measured: Measured) -> tuple[object, ...]:
    return (
        measured.prompts_digest,
        measured.units,
        measured.scorer,
        measured.scorer_version,
        measured.facts.digest,
        measured.decoding,
    )
