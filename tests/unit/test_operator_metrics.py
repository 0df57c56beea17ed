"""What Prometheus reads: the whole text, so that a renamed series or an invented zero is seen."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tollgate.contract import TrainMetric
from tollgate.limits.forecast import StepSeen
from tollgate_operator.facts import ProgressFacts, RunFacts
from tollgate_operator.health import ECHO_LIMIT, HealthServer, Vitals, sickness, unready
from tollgate_operator.metrics import Metrics, QueueCollector, RunCollector
from tollgate_operator.promotion.facts import PolicyState
from tollgate_operator.store import Store

SPEC = {
    "manifest": {"name": "m", "dataset": {"path": "d"}},
    "compute": {"profile": "h100-8x"},
    "storage": {"dataset": {"claimName": "d"}, "output": {"claimName": "o"}},
    "policyRef": {"name": "care"},
}


def run(name: str, status: dict[str, Any]) -> RunFacts:
    meta = {"name": name, "namespace": "ns", "uid": f"u-{name}", "resourceVersion": "1"}
    return RunFacts.from_object({"metadata": meta, "spec": SPEC, "status": status})


PRICED = {
    "manifestDigest": "sha256:m",
    "phase": "Running",
    "attempt": 2,
    "progress": {"step": 10, "totalSteps": 500, "loss": 3.0},
    "cost": {
        "spentUSD": "41.23",
        "limitUSD": "180",
        "reservedUSD": "120.5",
        "ratePerHourUSD": "98.32",
        "byCategory": {"startup": "1.23", "productive": "40"},
        "price": {"perNodeHourUSD": "98.32", "source": "node", "asOf": "2026-01-01T00:00:00Z"},
    },
    "gates": [{"stage": "staging", "verdict": "Inconclusive", "policyDigest": "sha256:p"}],
}

GOLDEN = """\
# HELP tollgate_run_info 1 for each run.
# TYPE tollgate_run_info gauge
tollgate_run_info{manifest_digest="sha256:m",namespace="ns",policy="care",profile="h100-8x",run="priced"} 1.0
tollgate_run_info{manifest_digest="",namespace="ns",policy="care",profile="h100-8x",run="unknown"} 1.0
# HELP tollgate_run_phase 1 for the phase that the run is in.
# TYPE tollgate_run_phase gauge
tollgate_run_phase{namespace="ns",phase="Running",run="priced"} 1.0
tollgate_run_phase{namespace="ns",phase="Starting",run="unknown"} 1.0
# HELP tollgate_run_attempt Number of the present attempt.
# TYPE tollgate_run_attempt gauge
tollgate_run_attempt{namespace="ns",run="priced"} 2.0
# HELP tollgate_run_cost_usd Allocated cost so far, by category.
# TYPE tollgate_run_cost_usd gauge
tollgate_run_cost_usd{category="productive",namespace="ns",run="priced"} 40.0
tollgate_run_cost_usd{category="startup",namespace="ns",run="priced"} 1.23
# HELP tollgate_run_spent_usd Allocated cost so far.
# TYPE tollgate_run_spent_usd gauge
tollgate_run_spent_usd{namespace="ns",run="priced"} 41.23
# HELP tollgate_run_budget_limit_usd What the run may spend.
# TYPE tollgate_run_budget_limit_usd gauge
tollgate_run_budget_limit_usd{namespace="ns",run="priced"} 180.0
tollgate_run_budget_limit_usd{namespace="ns",run="unknown"} 5.0
# HELP tollgate_run_reserved_usd What the present attempt may spend offline.
# TYPE tollgate_run_reserved_usd gauge
tollgate_run_reserved_usd{namespace="ns",run="priced"} 120.5
# HELP tollgate_run_rate_usd_per_hour What the run's pods cost in an hour.
# TYPE tollgate_run_rate_usd_per_hour gauge
tollgate_run_rate_usd_per_hour{namespace="ns",run="priced"} 98.32
# HELP tollgate_run_step Optimizer steps done.
# TYPE tollgate_run_step gauge
tollgate_run_step{namespace="ns",run="priced"} 12.0
# HELP tollgate_run_steps Optimizer steps planned.
# TYPE tollgate_run_steps gauge
tollgate_run_steps{namespace="ns",run="priced"} 500.0
# HELP tollgate_run_loss Training loss at the last logged step.
# TYPE tollgate_run_loss gauge
tollgate_run_loss{namespace="ns",run="priced"} 2.5
# HELP tollgate_run_gate_verdict 1 for the verdict of a stage's gate.
# TYPE tollgate_run_gate_verdict gauge
tollgate_run_gate_verdict{namespace="ns",run="priced",stage="staging",verdict="Inconclusive"} 1.0
# HELP tollgate_stage_info 1 for the run that holds a stage.
# TYPE tollgate_stage_info gauge
tollgate_stage_info{namespace="ns",policy="care",run="priced",stage="staging"} 1.0
# HELP tollgate_stage_since_timestamp_seconds When the run that holds a stage came to it.
# TYPE tollgate_stage_since_timestamp_seconds gauge
tollgate_stage_since_timestamp_seconds{namespace="ns",policy="care",stage="staging"} 1.7672256e+09
"""


def test_the_series_of_runs_and_stages_are_exactly_these() -> None:
    store = Store()
    store.put_run(run("priced", PRICED))
    store.put_run(run("unknown", {"phase": "Starting", "cost": {"limitUSD": "5"}}))
    store.put_progress(
        "u-priced", ProgressFacts(datetime(2026, 1, 1, tzinfo=UTC), True, step=12, total_steps=500, loss=2.5)
    )
    holder = {
        "run": "priced",
        "runUID": "u-priced",
        "modelPath": "a/model",
        "modelURI": "pvc://o/a/model",
        "modelDigest": "sha256:m",
        "evidenceDigest": "sha256:e",
        "since": "2026-01-01T00:00:00Z",
    }
    meta = {"name": "care", "namespace": "ns", "uid": "p", "resourceVersion": "1"}
    status = {"stages": [{"name": "staging", "holder": holder}, {"name": "production"}]}
    store.put_policy(PolicyState.from_object({"metadata": meta, "status": status}))
    registry = CollectorRegistry()
    registry.register(RunCollector(store))
    assert generate_latest(registry).decode() == GOLDEN


def test_the_series_of_a_run_vanish_with_it() -> None:
    store = Store()
    registry = CollectorRegistry()
    registry.register(RunCollector(store))
    facts = run("priced", PRICED)
    store.put_run(facts)
    assert b'run="priced"' in generate_latest(registry)
    store.drop_run(facts.key, facts.uid)
    assert b'run="priced"' not in generate_latest(registry)


def test_a_finished_run_shows_the_step_of_its_last_words_not_that_of_the_last_scrape() -> None:
    store, registry = Store(), CollectorRegistry()
    registry.register(RunCollector(store))
    ended = {"progress": {"step": 400, "totalSteps": 400, "loss": 2.0, "updatedAt": "2026-01-01T00:00:09Z"}}
    store.put_run(run("done", ended))
    at = [datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in (5, 10)]
    good = ProgressFacts(at[0], True, step=375, loss=2.1, seen=(StepSeen(at[0], 375),))
    labels = {"namespace": "ns", "run": "done"}
    for last in (good, replace(good, scraped_at=at[1], ok=False)):  # its pod went away between its end and a scrape
        store.put_progress("u-done", last)
        assert registry.get_sample_value("tollgate_run_step", labels) == 400
        assert registry.get_sample_value("tollgate_run_loss", labels) == 2.0
    store.put_progress("u-done", ProgressFacts(at[1], True, step=410))
    assert registry.get_sample_value("tollgate_run_step", labels) == 410, "a run that goes on is scraped more often"


def test_a_spend_that_is_known_to_be_zero_is_shown() -> None:
    store = Store()
    price = {"perNodeHourUSD": "1", "source": "profile", "asOf": "2026-01-01T00:00:00Z"}
    store.put_run(run("fresh", {"cost": {"spentUSD": "0", "price": price}}))
    registry = CollectorRegistry()
    registry.register(RunCollector(store))
    assert registry.get_sample_value("tollgate_run_spent_usd", {"namespace": "ns", "run": "fresh"}) == 0


def test_the_operators_own_counters_have_their_names() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    registry.register(QueueCollector(lambda: 3, lambda: 1.5, lambda: 0.5))
    metrics.observe("patch", "trainingruns/status", "200", 0.01)
    metrics.reconciled("TrainingRun/ns/a", "ok", 0.02)
    metrics.added()
    metrics.taken(0.1)
    metrics.retried()
    metrics.watched("pods")
    metrics.watch_failed("pods")
    metrics.scraped("timeout")
    metrics.leading(True)
    value = registry.get_sample_value
    labels = {"verb": "patch", "resource": "trainingruns/status"}
    assert value("tollgate_api_requests_total", {**labels, "code": "200"}) == 1
    assert value("tollgate_api_request_duration_seconds_count", labels) == 1
    assert value("tollgate_reconcile_total", {"kind": "TrainingRun", "result": "ok"}) == 1
    assert value("tollgate_reconcile_duration_seconds_count", {"kind": "TrainingRun"}) == 1
    assert value("tollgate_workqueue_adds_total") == 1
    assert value("tollgate_workqueue_retries_total") == 1
    assert value("tollgate_workqueue_queue_duration_seconds_count") == 1
    assert value("tollgate_workqueue_depth") == 3
    assert value("tollgate_workqueue_oldest_seconds") == 1.5
    assert value("tollgate_workqueue_longest_running_seconds") == 0.5
    assert value("tollgate_watch_events_total", {"resource": "pods"}) == 1
    assert value("tollgate_watch_errors_total", {"resource": "pods"}) == 1
    assert value("tollgate_scrape_total", {"result": "timeout"}) == 1
    assert value("tollgate_leader") == 1


WELL = Vitals(dead_tasks=(), leading=True, indexed=True, echo_age=3.0, oldest_due=0.2, longest_running=0.0)


@pytest.mark.parametrize(
    ("vitals", "said"),
    [
        (Vitals(("worker 1",), True, True, 1.0, 0, 0), "worker 1 ended"),
        (Vitals((), True, True, ECHO_LIMIT + 1, 0, 0), "not shown our lease"),
        (Vitals((), True, True, 1.0, 121, 0), "due for 121 s"),
        (Vitals((), True, True, 1.0, 0, 301), "going on for 301 s"),
    ],
)
def test_each_thing_that_a_restart_mends_makes_the_process_sick(vitals: Vitals, said: str) -> None:
    assert said in "\n".join(sickness(vitals))


def test_a_standby_is_well_and_not_ready() -> None:
    standby = Vitals((), leading=False, indexed=False, echo_age=None, oldest_due=0, longest_running=0)
    assert sickness(standby) == []
    assert len(unready(standby)) == 2
    assert sickness(WELL) == unready(WELL) == []


async def test_the_pages_answer_what_the_vitals_say() -> None:
    vitals = [WELL]
    registry = CollectorRegistry()
    Metrics(registry)
    server = HealthServer(registry, lambda: vitals[0], "127.0.0.1", 0)
    port = await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            for page in ("/healthz", "/readyz"):
                async with session.get(page) as response:
                    assert (response.status, await response.text()) == (200, "ok\n")
            async with session.get("/metrics") as response:
                assert "tollgate_build_info" in await response.text()
            vitals[0] = Vitals(("resync",), False, True, 1.0, 0, 0)
            async with session.get("/healthz") as response:
                assert (response.status, await response.text()) == (503, "task resync ended\n")
            async with session.get("/readyz") as response:
                assert response.status == 503
    finally:
        await server.stop()


async def test_a_port_that_is_taken_is_an_error_and_not_a_silent_operator() -> None:
    first = HealthServer(CollectorRegistry(), lambda: WELL, "127.0.0.1", 0)
    port = await first.start()
    second = HealthServer(CollectorRegistry(), lambda: WELL, "127.0.0.1", port)
    try:
        with pytest.raises(OSError, match=str(port)):
            await second.start()
    finally:
        await second.stop()
        await first.stop()


def test_every_series_stands_in_the_reference() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    registry.register(QueueCollector(lambda: 0, lambda: 0.0, lambda: 0.0))
    registry.register(RunCollector(Store()))
    page = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()
    named = set(re.findall(r"`(tollgate_[a-z_]+)`", page))
    # The registry drops `_total` from the name of a counter's family.
    families = {f"{f.name}_total" if f.type == "counter" else f.name for f in registry.collect()}
    assert families == named - {str(series) for series in TrainMetric}, "the trainer's stand there too"
