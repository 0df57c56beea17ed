"""What Prometheus reads from the operator. docs/reference/metrics.md lists every series.

The registry is passed in. Series of runs and stages are made from the store when they are read, so they vanish with the
run; what is not known is absent, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import tollgate
from tollgate.api.quantities import MICRO
from tollgate.api.training_run import Cost, Progress
from tollgate_operator.facts import ProgressFacts, RunFacts
from tollgate_operator.store import Store

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of the operator itself: the observer of API client, queue, workers, watches and scrapes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=_SECONDS)

        self._reconciles = counter("tollgate_reconcile_total", "Reconciliations of one object.", "kind", "result")
        self._reconcile_seconds = histogram(
            "tollgate_reconcile_duration_seconds", "Time that one reconciliation took.", "kind"
        )
        self._adds = counter("tollgate_workqueue_adds_total", "Keys that were added to the work queue.")
        self._retries = counter("tollgate_workqueue_retries_total", "Keys that failed and were put back.")
        self._waits = histogram("tollgate_workqueue_queue_duration_seconds", "Time that a due key waited for a worker.")
        self._requests = counter(
            "tollgate_api_requests_total",
            "Requests to the Kubernetes API; code `error`: no answer.",
            "verb",
            "resource",
            "code",
        )
        self._request_seconds = histogram(
            "tollgate_api_request_duration_seconds",
            "Time until a Kubernetes API request was answered.",
            "verb",
            "resource",
        )
        self._events = counter("tollgate_watch_events_total", "Watch events that were taken in.", "resource")
        self._event_errors = counter(
            "tollgate_watch_errors_total", "Watch events that were lost by an error.", "resource"
        )
        self._scrapes = counter("tollgate_scrape_total", "Reads of a trainer's metrics.", "result")
        self._leader = Gauge("tollgate_leader", "1 while this process holds the Lease.", registry=registry)
        build = Gauge("tollgate_build_info", "Version of the operator.", ["version"], registry=registry)
        build.labels(tollgate.__version__).set(1)

    def observe(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """One request to the API server."""
        self._requests.labels(verb, resource, code).inc()
        self._request_seconds.labels(verb, resource).observe(seconds)

    def added(self) -> None:
        """A key was added to the queue."""
        self._adds.inc()

    def taken(self, waited: float) -> None:
        """A worker took a key."""
        self._waits.observe(waited)

    def retried(self) -> None:
        """A key failed and was put back."""
        self._retries.inc()

    def reconciled(self, key: str, result: str, seconds: float) -> None:
        """One reconciliation; the kind is the key's first part."""
        kind = key.partition("/")[0]
        self._reconciles.labels(kind, result).inc()
        self._reconcile_seconds.labels(kind).observe(seconds)

    def watched(self, resource: str) -> None:
        """An event was taken in."""
        self._events.labels(resource).inc()

    def watch_failed(self, resource: str) -> None:
        """An event was lost by an error of ours."""
        self._event_errors.labels(resource).inc()

    def scraped(self, result: str) -> None:
        """One read of a trainer's metrics."""
        self._scrapes.labels(result).inc()

    def leading(self, yes: bool) -> None:
        """Whether this process holds the Lease."""
        self._leader.set(1 if yes else 0)


class QueueCollector(Collector):
    """How much waits, read when Prometheus asks."""

    def __init__(
        self, depth: Callable[[], int], oldest: Callable[[], float], longest_running: Callable[[], float]
    ) -> None:
        self._depth = depth
        self._oldest = oldest
        self._longest_running = longest_running

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The queue's gauges."""
        yield GaugeMetricFamily("tollgate_workqueue_depth", "Keys that are due and wait.", value=self._depth())
        yield GaugeMetricFamily(
            "tollgate_workqueue_oldest_seconds",
            "How long the key that waits longest has been due.",
            value=self._oldest(),
        )
        yield GaugeMetricFamily(
            "tollgate_workqueue_longest_running_seconds",
            "How long the longest of the present reconciliations has been going on.",
            value=self._longest_running(),
        )


_RUN: Final = ("namespace", "run")


def _is_newer(told: Progress | None, scraped: ProgressFacts) -> bool:
    """Whether the status is newer than the last good scrape; without a time it is not known to be."""
    if told is None or told.updated_at is None:
        return False
    if scraped.ok:
        return told.updated_at > scraped.scraped_at
    return not scraped.seen or told.updated_at > scraped.seen[-1].at


class RunCollector(Collector):
    """One set of series per run, from the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All series of runs and stages."""
        families = _RunFamilies()
        for run in sorted(self._store.all_runs(), key=lambda r: r.key):
            families.add(run)
            self._add_progress(families, run)
        yield from families.all()
        yield from self._stages()

    def _add_progress(self, families: _RunFamilies, run: RunFacts) -> None:
        """The newer of the last scrape and the status: while a run goes on the status is written at most once a minute,
        and at its end it holds the last words, which no scrape saw.
        """
        scraped, told = self._store.progress(run.uid), run.status.progress
        labels = (run.key.namespace, run.key.name)
        if scraped is not None and scraped.step is not None and not _is_newer(told, scraped):
            families.add_progress(labels, scraped.step, scraped.total_steps, scraped.loss)
        elif told is not None:
            families.add_progress(labels, told.step, told.total_steps, told.loss)

    def _stages(self) -> Iterator[GaugeMetricFamily]:
        holder = GaugeMetricFamily(
            "tollgate_stage_info", "1 for the run that holds a stage.", labels=("namespace", "policy", "stage", "run")
        )
        since = GaugeMetricFamily(
            "tollgate_stage_since_timestamp_seconds",
            "When the run that holds a stage came to it.",
            labels=("namespace", "policy", "stage"),
        )
        for state in sorted(self._store.policy_states(), key=lambda s: s.key):
            for stage in state.status.stages:
                if stage.holder is not None:
                    where = (state.policy.namespace, state.policy.name, stage.name)
                    holder.add_metric((*where, stage.holder.run), 1)
                    since.add_metric(where, stage.holder.since.timestamp())
        yield holder
        yield since


class _RunFamilies:
    """The families of run series while they are filled."""

    def __init__(self) -> None:
        def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(name, text, labels=(*_RUN, *labels))

        self.info = gauge("tollgate_run_info", "1 for each run.", "profile", "policy", "manifest_digest")
        self.phase = gauge("tollgate_run_phase", "1 for the phase that the run is in.", "phase")
        self.attempt = gauge("tollgate_run_attempt", "Number of the present attempt.")
        self.cost = gauge("tollgate_run_cost_usd", "Allocated cost so far, by category.", "category")
        self.spent = gauge("tollgate_run_spent_usd", "Allocated cost so far.")
        self.limit = gauge("tollgate_run_budget_limit_usd", "What the run may spend.")
        self.reserved = gauge("tollgate_run_reserved_usd", "What the present attempt may spend offline.")
        self.rate = gauge("tollgate_run_rate_usd_per_hour", "What the run's pods cost in an hour.")
        self.step = gauge("tollgate_run_step", "Optimizer steps done.")
        self.steps = gauge("tollgate_run_steps", "Optimizer steps planned.")
        self.loss = gauge("tollgate_run_loss", "Training loss at the last logged step.")
        self.gate = gauge("tollgate_run_gate_verdict", "1 for the verdict of a stage's gate.", "stage", "verdict")

    def all(self) -> tuple[GaugeMetricFamily, ...]:
        """Every family, in the order of the docs."""
        return (
            self.info,
            self.phase,
            self.attempt,
            self.cost,
            self.spent,
            self.limit,
            self.reserved,
            self.rate,
            self.step,
            self.steps,
            self.loss,
            self.gate,
        )

    def add(self, run: RunFacts) -> None:
        """Everything that the run's own object says."""
        labels, status, spec = (run.key.namespace, run.key.name), run.status, run.spec
        profile = spec.compute.profile if spec is not None and spec.compute is not None else ""
        policy = spec.policy_ref.name if spec is not None and spec.policy_ref is not None else ""
        self.info.add_metric((*labels, profile, policy, status.manifest_digest or ""), 1)
        if status.phase is not None:
            self.phase.add_metric((*labels, status.phase.value), 1)
        if status.attempt:
            self.attempt.add_metric(labels, status.attempt)
        if status.cost is not None:
            self._add_cost(labels, status.cost)
        for gate in status.gates:
            self.gate.add_metric((*labels, gate.stage, gate.verdict), 1)

    def add_progress(self, labels: tuple[str, str], step: int, steps: int | None, loss: float | None) -> None:
        """Where the training is; what is not known is left out."""
        self.step.add_metric(labels, step)
        if steps is not None:
            self.steps.add_metric(labels, steps)
        if loss is not None:
            self.loss.add_metric(labels, loss)

    def _add_cost(self, labels: tuple[str, str], cost: Cost) -> None:
        if cost.limit_usd is not None:
            self.limit.add_metric(labels, cost.limit_usd / MICRO)
        if cost.reserved_usd is not None:
            self.reserved.add_metric(labels, cost.reserved_usd / MICRO)
        if cost.rate_per_hour_usd is not None:
            self.rate.add_metric(labels, cost.rate_per_hour_usd / MICRO)
        if cost.spent_usd == 0 and (cost.price is None or cost.price.source == "unknown"):
            return  # nothing was charged because nobody knows the price: that is not 0 USD
        self.spent.add_metric(labels, cost.spent_usd / MICRO)
        for category, amount in sorted((cost.by_category or {}).items()):
            self.cost.add_metric((*labels, category), amount / MICRO)
