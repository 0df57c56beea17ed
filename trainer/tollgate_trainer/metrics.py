"""What rank 0 tells Prometheus: the series of contract.TrainMetric, made from one snapshot at each scrape."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tollgate.contract import TrainMetric


@dataclass(slots=True)
class Progress:
    """Where the training is. Numbers that are not known yet are None and have no series; instants are epoch seconds.

    remaining: seconds until training is done: expected, and the ends of a 90 % interval.
    """

    total_steps: int | None = None
    step: int | None = None
    epoch: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens: int | None = None
    samples: int | None = None
    checkpoint_step: int | None = None
    checkpoint_at: float | None = None
    remaining: tuple[float, float, float] | None = None
    completion_at: float | None = None
    last_progress_at: float = field(default_factory=time.time)
    routing_entropy: float | None = None
    expert_usage: dict[str, tuple[float, ...]] | None = None

    def touch(self) -> None:
        """Something moved: a step, a batch of an evaluation, a save, a load."""
        self.last_progress_at = time.time()


class TrainingCollector(Collector):
    """Reads progress and goodput when asked."""

    def __init__(self, progress: Progress, goodput: Callable[[], dict[str, float]]) -> None:
        self._progress = progress
        self._goodput = goodput

    def collect(self) -> Iterator[Metric]:
        """The series that have a value."""
        p = self._progress
        gauges: list[tuple[TrainMetric, str, float | None]] = [
            (TrainMetric.STEP, "Optimiser steps done.", p.step),
            (TrainMetric.STEPS, "Optimiser steps of the whole run.", p.total_steps),
            (TrainMetric.LOSS, "Training loss since the last log, mean over processes.", p.loss),
            (TrainMetric.EVAL_LOSS, "Loss on the held-out documents, nats per token.", p.eval_loss),
            (TrainMetric.LEARNING_RATE, "Learning rate.", p.learning_rate),
            (TrainMetric.GRAD_NORM, "Gradient norm before clipping.", p.grad_norm),
            (TrainMetric.EPOCH, "Epochs done.", p.epoch),
            (TrainMetric.CHECKPOINT_STEP, "Step of the newest committed checkpoint.", p.checkpoint_step),
            (TrainMetric.CHECKPOINT_TIME, "When it was committed.", p.checkpoint_at),
            (TrainMetric.COMPLETION, "When training is expected to be done.", p.completion_at),
            (TrainMetric.LAST_PROGRESS, "When anything last moved.", p.last_progress_at),
            (TrainMetric.ROUTING_ENTROPY, "Entropy of the routers over ln E, mean over layers.", p.routing_entropy),
        ]
        for name, text, value in gauges:
            if value is not None and not math.isnan(value):
                yield GaugeMetricFamily(name, text, value=value)
        if p.expert_usage is not None:
            usage = GaugeMetricFamily(
                TrainMetric.EXPERT_USAGE,
                "Mean gate mass of an expert; sums to 1 in a layer.",
                labels=["layer", "expert"],
            )
            for layer, masses in p.expert_usage.items():
                for expert, mass in enumerate(masses):
                    usage.add_metric([layer, str(expert)], mass)
            yield usage
        for counter, text, count in (
            (TrainMetric.TOKENS, "Tokens trained on, without padding, over all attempts.", p.tokens),
            (TrainMetric.SAMPLES, "Samples trained on, over all attempts.", p.samples),
        ):
            if count is not None:
                yield CounterMetricFamily(counter, text, value=count)
        yield from _remaining(p.remaining)
        family = CounterMetricFamily(TrainMetric.GOODPUT, "Seconds of this attempt by state.", labels=["category"])
        for state, seconds in self._goodput().items():
            family.add_metric([str(state)], seconds)
        yield family


def _remaining(seconds: tuple[float, float, float] | None) -> Iterator[Metric]:
    if seconds is None:
        return
    left = GaugeMetricFamily(TrainMetric.REMAINING, "Seconds until training is expected to be done.", labels=["bound"])
    for bound, value in zip(("expected", "low", "high"), seconds, strict=True):
        left.add_metric([bound], value)
    yield left


def serve(collector: TrainingCollector, address: tuple[str, int]) -> Callable[[], None]:
    """Answer scrapes at (host, port) from a thread; returns what ends it. Raises: OSError when the port is taken."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    host, port = address
    server: Any
    server, thread = start_http_server(port, addr=host, registry=registry)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return close
