"""What may be concluded from interleaved measurements: ratios with intervals, and verdicts that can be inconclusive.

Pure. Several arms take turns in blocks of steps; a *stretch* is one turn of each, and the next stretch has them in the
opposite order (ABBA), so that a machine that gets slower meets all of them alike. Stretches are what is resampled.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

CONFIDENCE = 0.95
REPEATS = 2000
SAME = 0.03
"""How far the interval of an arm against itself may reach from 1.0."""
LEAST_STEP_MS = 200.0
LEAST_BLOCKS = 30
OVERHEAD_BAR = 0.95
ADDED_BAR_MS = 2.0
ADDED_SAME_MS = 1.0
TOKENS_APART = 0.02
"""How far real tokens per optimiser step may be apart."""
PACKING_BAR = 0.85
LOSS_APART = 0.01
COVERED_BAR, FORECASTS, WIDTH_BAR = 16, 20, 0.30

Stretch = Mapping[str, Sequence[float]]
"""By arm: seconds of the measured steps, or whatever the statistic takes."""
Statistic = Callable[[Sequence[Stretch]], float]


class State(StrEnum):
    """Inconclusive is neither: the machine, or the sample, was not good enough to say."""

    PASSED = "passed"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Verdict:
    """because: why, in words, with the figures."""

    state: State
    because: str


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the ends of its interval at CONFIDENCE."""

    value: float
    low: float
    high: float


def interval(stretches: Sequence[Stretch], statistic: Statistic, seed: int = 1) -> Interval:
    """The statistic of all stretches and its percentile bootstrap interval over stretches.

    Raises: ValueError for fewer than two stretches, which have no spread.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
    """
    if len(stretches) < 2:
        raise ValueError(f"{len(stretches)} stretches have no spread; measure at least two")
    chance = random.Random(seed)
    drawn = sorted(statistic(chance.choices(stretches, k=len(stretches))) for _ in range(REPEATS))
    tail = (1 - CONFIDENCE) / 2
    return Interval(
        statistic(stretches), drawn[int(tail * (REPEATS - 1))], drawn[int((1 - tail) * (REPEATS - 1) + 0.5)]
    )


def median(stretches: Sequence[Stretch], arm: str) -> float:
    """Of all measured steps of an arm."""
    return statistics.median(value for stretch in stretches for value in stretch[arm])


def ratio(over: str, under: str) -> Statistic:
    """Median step time of one arm over that of another."""
    return lambda stretches: median(stretches, over) / median(stretches, under)


def difference(left: str, right: str) -> Statistic:
    """Median step time of one arm minus that of another."""
    return lambda stretches: median(stretches, left) - median(stretches, right)


def rate_ratio(over: str, under: str) -> Statistic:
    """Tokens per second of one arm over those of another; each arm's values are (tokens, seconds, tokens, ...)."""

    def rate(stretches: Sequence[Stretch], arm: str) -> float:
        tokens = sum(sum(stretch[arm][0::2]) for stretch in stretches)
        return tokens / sum(sum(stretch[arm][1::2]) for stretch in stretches)

    return lambda stretches: rate(stretches, over) / rate(stretches, under)


def overhead(same: Interval, speed: Interval, step_ms: float, blocks: int, losses_equal: bool) -> Verdict:
    """Stock's median step time over ours, at one process.

    Args: same: stock over stock; speed: stock over ours; step_ms: stock's median; blocks: of stock and ours.
    """
    doubts = []
    if not same.low <= 1.0 <= same.high:
        doubts.append(f"stock against itself is {shown(same)}, which does not contain 1.0")
    if same.low < 1 - SAME or same.high > 1 + SAME:
        doubts.append(f"stock against itself is {shown(same)}, wider than {SAME:.0%} around 1.0")
    if step_ms < LEAST_STEP_MS:
        doubts.append(f"a step took {step_ms:.0f} ms, less than {LEAST_STEP_MS:.0f}")
    if blocks < LEAST_BLOCKS:
        doubts.append(f"{blocks} blocks, fewer than {LEAST_BLOCKS}")
    if not losses_equal:  # no noise of a machine makes losses differ
        return Verdict(State.MISSED, "the losses are not equal bit for bit, so it is not the same training")
    if doubts:
        return Verdict(State.INCONCLUSIVE, "; ".join(doubts))
    return _against(speed, OVERHEAD_BAR)


def added(same_ms: Interval, extra_ms: Interval, blocks: int, losses_equal: bool) -> Verdict:
    """Milliseconds that ours adds to a step of two processes; same_ms: stock minus stock."""
    if not losses_equal:
        return Verdict(State.MISSED, "the losses are not equal bit for bit, so it is not the same training")
    if not same_ms.low <= 0.0 <= same_ms.high or max(-same_ms.low, same_ms.high) > ADDED_SAME_MS:
        because = f"stock minus itself is {shown(same_ms)} ms; it has to contain 0 within {ADDED_SAME_MS:g} ms"
        return Verdict(State.INCONCLUSIVE, because)
    if blocks < LEAST_BLOCKS:
        return Verdict(State.INCONCLUSIVE, f"{blocks} blocks, fewer than {LEAST_BLOCKS}")
    if extra_ms.high <= ADDED_BAR_MS:
        return Verdict(State.PASSED, f"adds {shown(extra_ms)} ms, at most {ADDED_BAR_MS:g}")
    if extra_ms.low > ADDED_BAR_MS:
        return Verdict(State.MISSED, f"adds {shown(extra_ms)} ms, more than {ADDED_BAR_MS:g}")
    return Verdict(State.INCONCLUSIVE, f"adds {shown(extra_ms)} ms, and {ADDED_BAR_MS:g} lies within")


def packing(padded_over_real: float, over_random: Interval, over_grouped: Interval, tokens_apart: float) -> Verdict:
    """Tokens per second of packed over random and over grouped, against the bars for a CPU."""
    if tokens_apart > TOKENS_APART:
        because = f"real tokens per step are {tokens_apart:.1%} apart, more than {TOKENS_APART:.0%}"
        return Verdict(State.INCONCLUSIVE, because)
    bar = PACKING_BAR * padded_over_real
    return worst(
        [
            _against(over_random, bar, "against random order: "),
            _against(over_grouped, PACKING_BAR, "against grouping by length: "),
        ]
    )


def held_out(packed: Sequence[float], unpacked: Sequence[float]) -> Verdict:
    """Losses by seed at equal real tokens: the mean of the quotients within LOSS_APART of 1.

    The seeds' spread decides whether that can be said (a t interval over them at 90 % is told, and no bar).
    """
    quotients = [p / u for p, u in zip(packed, unpacked, strict=True)]
    if len(quotients) < 3:
        return Verdict(State.INCONCLUSIVE, f"{len(quotients)} seeds, fewer than 3")
    mean = statistics.mean(quotients) - 1
    told = f"{mean:+.2%} over {len(quotients)} seeds ({', '.join(f'{q - 1:+.2%}' for q in quotients)})"
    return Verdict(State.PASSED if abs(mean) <= LOSS_APART else State.MISSED, f"held-out loss {told}")


def forecasts(covered: Sequence[bool], widths: Sequence[float]) -> Verdict:
    """covered: whether the first interval held the time that it took; widths: high minus low, over the forecast."""
    if len(covered) < FORECASTS:
        return Verdict(State.INCONCLUSIVE, f"{len(covered)} runs, fewer than {FORECASTS}")
    need, width = COVERED_BAR * len(covered) / FORECASTS, statistics.median(widths)
    told = f"{sum(covered)} of {len(covered)} covered, median width {width:.0%}"
    return Verdict(State.PASSED if sum(covered) >= need and width <= WIDTH_BAR else State.MISSED, told)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Missed beats inconclusive beats passed; all reasons."""
    order = [State.MISSED, State.INCONCLUSIVE, State.PASSED]
    state = min((verdict.state for verdict in verdicts), key=order.index)
    return Verdict(state, "; ".join(verdict.because for verdict in verdicts))


def shown(found: Interval, digits: int = 3) -> str:
    """1.002 [0.996, 1.009]."""
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _against(found: Interval, bar: float, what: str = "") -> Verdict:
    """Passed when the lower end reaches the bar, missed when the upper end does not."""
    told = f"{what}{shown(found)}, bar {bar:.3g}"
    if found.low >= bar:
        return Verdict(State.PASSED, told)
    return Verdict(State.MISSED if found.high < bar else State.INCONCLUSIVE, told)
