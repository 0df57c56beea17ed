"""Scraping protects a run from looking alive, or dead, by an answer that says nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from tollgate.contract import LABEL_ATTEMPT, LABEL_ROLE, LABEL_RUN, LABEL_RUN_UID
from tollgate_operator.facts import JOB_INDEX, Key, PodFacts, RunFacts
from tollgate_operator.scrape import ScrapeError, Scraper, parse, target, url
from tollgate_operator.store import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Key("TrainingRun", "ns", "a")

EXPOSITION = """\
# HELP tollgate_train_step Optimizer steps done.
# TYPE tollgate_train_step gauge
tollgate_train_step 120
# TYPE tollgate_train_steps gauge
tollgate_train_steps 500
# TYPE tollgate_train_loss gauge
tollgate_train_loss {loss}
# TYPE tollgate_train_epoch gauge
tollgate_train_epoch 0.24
# TYPE tollgate_train_tokens counter
tollgate_train_tokens_total {tokens}
# TYPE tollgate_train_last_progress_timestamp_seconds gauge
tollgate_train_last_progress_timestamp_seconds 1767225600
# TYPE tollgate_train_checkpoint_step gauge
tollgate_train_checkpoint_step 100
# TYPE tollgate_train_checkpoint_timestamp_seconds gauge
tollgate_train_checkpoint_timestamp_seconds 0
# TYPE tollgate_train_goodput_seconds counter
tollgate_train_goodput_seconds_total{{category="step"}} 55.5
tollgate_train_goodput_seconds_total{{category="save"}} 4
# TYPE python_info gauge
python_info{{version="3.11"}} 1
"""


def exposition(tokens: float = 1000, loss: str = "2.5") -> str:
    return EXPOSITION.format(tokens=tokens, loss=loss)


def pod(uid: str = "p0", ip: str = "127.0.0.1", **changes: Any) -> PodFacts:
    labels = {
        LABEL_RUN: "a",
        LABEL_RUN_UID: "u",
        LABEL_ATTEMPT: str(changes.get("attempt", 1)),
        LABEL_ROLE: changes.get("role", "train"),
        JOB_INDEX: str(changes.get("index", 0)),
    }
    return PodFacts.from_object(
        {
            "metadata": {"name": uid, "namespace": "ns", "uid": uid, "resourceVersion": "1", "labels": labels},
            "status": {"phase": changes.get("phase", "Running"), "podIP": ip},
        },
        gone=changes.get("gone", False),
    )


class Keys:
    def __init__(self) -> None:
        self.added: list[Key] = []

    def add(self, key: Key) -> None:
        self.added.append(key)

    def forget(self, key: Key) -> None:
        raise AssertionError("a scrape forgets nothing")


class Results:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def scraped(self, result: str) -> None:
        self.seen.append(result)


def test_a_sample_holds_what_the_trainer_said() -> None:
    sample = parse(exposition())
    assert (sample.step, sample.total_steps, sample.loss, sample.epoch) == (120, 500, 2.5, 0.24)
    assert sample.last_progress == datetime(2026, 1, 1, tzinfo=UTC)
    assert sample.checkpoint_step == 100
    assert sample.goodput == {"step": 55.5, "save": 4}


def test_what_was_never_set_and_what_is_not_finite_is_unknown() -> None:
    sample = parse(exposition(loss="NaN"))
    assert sample.loss is None
    assert sample.checkpoint_at is None


@given(st.text() | st.sampled_from(["tollgate_train_step", 'x{a="', "x 1 2 3", "# TYPE x histogram\nx 1"]))
def test_no_answer_however_odd_raises_anything_but_a_scrape_error(text: str) -> None:
    with contextlib.suppress(ScrapeError):
        parse(text)


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([pod("a"), pod("b", index=1)], "a"),
        ([pod("a", phase="Pending")], None),
        ([pod("a", ip="")], None),
        ([pod("a", gone=True)], None),
        ([pod("a", role="evaluate")], None),
        ([pod("a", attempt=1), pod("b", attempt=2)], "b"),
        ([], None),
    ],
)
def test_the_target_is_rank_0_of_the_newest_attempt(pods: list[PodFacts], expected: str | None) -> None:
    found = target(tuple(pods))
    assert (found.uid if found else None) == expected


def test_an_ipv6_address_is_bracketed() -> None:
    assert url("fd00::1", 9464) == "http://[fd00::1]:9464/metrics"


class Trainer:
    """A rank 0 whose answer the test sets."""

    def __init__(self) -> None:
        self.answer: web.Response | None = None
        self.headers: list[dict[str, str]] = []

    async def metrics(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        if self.answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.Response(body=self.answer.body, status=self.answer.status)


class Bench:
    """A store with one running run, a real trainer endpoint and a scraper with a clock that the test moves."""

    def __init__(self, port: int, trainer: Trainer, session: aiohttp.ClientSession) -> None:
        self.store = Store()
        self.keys = Keys()
        self.results = Results()
        self.trainer = trainer
        self.session = session
        self.now = NOW
        self.scraper = Scraper(self.store, self.keys, self.results, port=port, clock=lambda: self.now)
        meta = {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
        self.store.put_run(RunFacts.from_object({"metadata": meta}))
        self.store.put_pod(pod())

    async def look(self, text: str | None, status: int = 200, seconds: float = 5) -> Any:
        self.now += timedelta(seconds=seconds)
        self.trainer.answer = None if text is None else web.Response(text=text, status=status)
        await self.scraper.round(self.session)
        return self.store.progress("u")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    trainer = Trainer()
    app = web.Application()
    app.router.add_get("/metrics", trainer.metrics)
    async with TestServer(app) as http, aiohttp.ClientSession() as session:
        assert http.port is not None
        yield Bench(http.port, trainer, session)


async def test_a_failed_scrape_keeps_the_last_good_values_and_says_so(bench: Bench) -> None:
    await bench.look(exposition())
    for text, status, result in [(None, 200, "refused"), ("no", 500, "status"), ("x{", 200, "unreadable")]:
        progress = await bench.look(text, status)
        assert not progress.ok
        assert progress.step == 120
        assert progress.scraped_at == bench.now
        assert bench.results.seen[-1] == result


async def test_a_first_scrape_that_fails_knows_nothing(bench: Bench) -> None:
    progress = await bench.look(None)
    assert (progress.ok, progress.step, progress.last_progress) == (False, None, None)
    assert progress.error


async def test_an_answer_without_end_is_given_up(bench: Bench) -> None:
    progress = await bench.look("# " + "x" * 2_000_000)
    assert not progress.ok
    assert "1048576" in progress.error


async def test_only_the_first_step_wakes_the_run(bench: Bench) -> None:
    await bench.look(exposition().replace("tollgate_train_step 120", "tollgate_train_step 0"))
    assert bench.keys.added == []
    await bench.look(exposition().replace("tollgate_train_step 120", "tollgate_train_step 1"))
    assert bench.keys.added == [RUN]
    await bench.look(exposition())
    assert bench.keys.added == [RUN]


async def test_tokens_per_second_come_from_two_scrapes_of_one_pod(bench: Bench) -> None:
    assert (await bench.look(exposition(1000))).tokens_per_second is None
    assert (await bench.look(exposition(1500), seconds=5)).tokens_per_second == 100
    assert (await bench.look(exposition(1500), seconds=5)).tokens_per_second == 100  # between two logged steps
    assert (await bench.look(exposition(1500), seconds=100)).tokens_per_second == 0  # it stands still
    bench.store.put_pod(pod("p1", attempt=2))
    assert (await bench.look(exposition(10))).tokens_per_second is None
    assert (await bench.look(exposition(60), seconds=5)).tokens_per_second == 10


async def test_a_new_attempt_does_not_inherit_progress(bench: Bench) -> None:
    await bench.look(exposition())
    bench.store.put_pod(pod("p1", attempt=2))
    progress = await bench.look(None)
    assert (progress.pod_uid, progress.step) == ("p1", None)


async def test_a_pod_is_never_sent_credentials(bench: Bench) -> None:
    await bench.look(exposition())
    assert "Authorization" not in bench.trainer.headers[0]
