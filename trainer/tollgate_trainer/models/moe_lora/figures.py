"""How tokens spread over experts: the figures of one layer from its sums, and when they deserve a warning. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

IN_A_ROW = 5
LEAST_SHARE = 0.01
LEAST_LOAD_ENTROPY = 0.5
SHOWN_LAYERS = 4


@dataclass(frozen=True, slots=True)
class LayerSums:
    """Sums over the non-pad tokens of all processes.

    mass: of the gates, per expert; assigned: tokens that had the expert among their k; entropy: of the router's full
    softmax, nats; tokens: their number, at least 1.
    """

    mass: tuple[float, ...]
    assigned: tuple[float, ...]
    entropy: float
    tokens: float

    def figures(self, top_k: int) -> LayerFigures:
        """The means. Raises: ValueError without a token."""
        if self.tokens <= 0:
            raise ValueError("a layer that saw no token has no figures")
        experts = len(self.mass)
        shares = tuple(count / sum(self.assigned) for count in self.assigned)
        nats = self.entropy / self.tokens
        return LayerFigures(
            usage=tuple(mass / self.tokens for mass in self.mass),
            shares=shares,
            routing_entropy=nats / math.log(experts),
            routing_entropy_nats=nats,
            load_entropy=load_entropy(shares, top_k),
        )


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """usage: mean gate mass per expert, sums to 1; shares: of the assignments, sums to 1.

    routing_entropy: mean over tokens of H(softmax) / ln E, in [0, 1]; the same in nats (at most ln E); load_entropy:
    None where it is undefined.
    """

    usage: tuple[float, ...]
    shares: tuple[float, ...]
    routing_entropy: float
    routing_entropy_nats: float
    load_entropy: float | None


def load_entropy(shares: Sequence[float], top_k: int) -> float | None:
    """(H - ln k) / (ln E - ln k) of the shares of assignments, in [0, 1]: 0 when the same k experts serve every token.

    None at k = E, where every share is 1/E whatever the router does.
    """
    experts = len(shares)
    if top_k >= experts:
        return None
    h = -sum(share * math.log(share) for share in shares if share > 0)
    value = (h - math.log(top_k)) / (math.log(experts) - math.log(top_k))
    return min(max(value, 0.0), 1.0)  # rounding of the logarithms alone can leave the interval


def complaints(figures: LayerFigures) -> list[str]:
    """What is uneven in one layer at one log, as stable keys with their words after a colon; [] when it is fine."""
    experts = len(figures.usage)
    found = []
    most = max(figures.usage)
    if most > 2 / experts:
        found.append(f"overused: expert {figures.usage.index(most)} takes {most:.0%} of the gate mass")
    least = min(figures.shares)
    if least < LEAST_SHARE:
        found.append(f"idle: expert {figures.shares.index(least)} serves {least:.1%} of the assignments")
    if figures.load_entropy is not None and figures.load_entropy < LEAST_LOAD_ENTROPY:
        found.append(f"uneven: load entropy is {figures.load_entropy:.2f}")
    return found


@dataclass(slots=True)
class Watch:
    """Warns once when a layer is uneven IN_A_ROW logs in a row, and again only after it was even in between."""

    rows: dict[tuple[str, str], int] = field(default_factory=dict)

    def warnings(self, layers: Mapping[str, LayerFigures]) -> list[str]:
        """Take in the figures of one log; answers what has become true with it, one message per kind."""
        present: dict[tuple[str, str], int] = {}
        due: dict[str, list[str]] = {}
        for layer, figures in layers.items():
            for complaint in complaints(figures):
                kind, _, words = complaint.partition(": ")
                rows = self.rows.get((layer, kind), 0) + 1
                present[layer, kind] = rows
                if rows == IN_A_ROW:
                    due.setdefault(kind, []).append(f"{layer}: {words}")
        self.rows = present
        return [_message(kind, places) for kind, places in due.items()]


_WHAT = {
    "overused": "an expert is used more than twice its even part",
    "idle": "an expert serves less than 1 % of the assignments",
    "uneven": "few experts serve most tokens",
}


def _message(kind: str, places: Sequence[str]) -> str:
    more = f" and {len(places) - SHOWN_LAYERS} more layers" if len(places) > SHOWN_LAYERS else ""
    return (
        f"experts: {_WHAT[kind]}, {IN_A_ROW} logs in a row ({'; '.join(places[:SHOWN_LAYERS])}{more}). Raise "
        "adapter.balance, lower hyperparameters.learning_rate, or use fewer adapter.experts"
    )
