"""The exposition that the operator scrapes, as text."""

from __future__ import annotations

import math
import urllib.request

from prometheus_client import CollectorRegistry, generate_latest

from tollgate.contract import TrainMetric
from tollgate_trainer.metrics import Progress, TrainingCollector, serve
from trainer_fixtures import free_port

GOLDEN = """\
# HELP tollgate_train_step Optimiser steps done.
# TYPE tollgate_train_step gauge
tollgate_train_step 7.0
# HELP tollgate_train_last_progress_timestamp_seconds When anything last moved.
# TYPE tollgate_train_last_progress_timestamp_seconds gauge
tollgate_train_last_progress_timestamp_seconds 1000.0
# HELP tollgate_train_tokens_total Tokens trained on, without padding, over all attempts.
# TYPE tollgate_train_tokens_total counter
tollgate_train_tokens_total 640.0
# HELP tollgate_train_goodput_seconds_total Seconds of this attempt by state.
# TYPE tollgate_train_goodput_seconds_total counter
tollgate_train_goodput_seconds_total{category="step"} 2.5
"""


def exposition(progress: Progress) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(TrainingCollector(progress, lambda: {"step": 2.5}))
    return generate_latest(registry).decode()


def test_what_is_known_is_exposed_and_what_is_unknown_has_no_series() -> None:
    assert exposition(Progress(step=7, tokens=640, loss=math.nan, last_progress_at=1000.0)) == GOLDEN


def test_every_series_of_the_contract_is_there_once_training_runs() -> None:
    progress = Progress(9, 1, 0.5, 2.0, 2.1, 1e-3, 0.7, 10, 4, 5, 1000.0, (9.0, 8.0, 10.0), 2000.0)
    progress.routing_entropy, progress.expert_usage = 0.9, {"q_proj": (0.25, 0.75)}
    names = {line.split("{")[0].split(" ")[0] for line in exposition(progress).splitlines() if line[0] != "#"}
    assert names == {str(metric) for metric in TrainMetric}


def test_scrapes_are_answered_on_the_given_address_until_it_is_closed() -> None:
    port = free_port()
    close = serve(TrainingCollector(Progress(step=3), dict), ("127.0.0.1", port))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert "tollgate_train_step 3.0" in answer.read().decode()
    finally:
        close()
