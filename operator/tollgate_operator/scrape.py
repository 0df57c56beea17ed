"""Reads /metrics of rank 0 of every running gang, for progress, heartbeat and usage.

It is evidence and display: no limit depends on it. A scrape that fails says so (`ok` False) and keeps the last good
values. The session is one of its own, for a pod must never be sent the operator's credentials.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tollgate.contract import METRICS_PORT, Role, TrainMetric
from tollgate.limits.forecast import StepSeen
from tollgate_operator.facts import Key, PodFacts, ProgressFacts, RunFacts
from tollgate_operator.store import Store
from tollgate_operator.watch import Keys

MOST_BYTES: Final = 1024 * 1024
TIMEOUT: Final = 3.0
AT_ONCE: Final = 16
PACE_POINTS: Final = 40
LATEST: Final = 4_102_444_800.0  # 2100-01-01: a time beyond it is no time

logger = logging.getLogger(__name__)


class ScrapeObserver(Protocol):
    """What is told about each scrape: for `tollgate_scrape_total`."""

    def scraped(self, result: str) -> None:
        """`ok`, `timeout`, `refused` (no connection), `status` (an HTTP error) or `unreadable`."""
        ...


class ScrapeError(Exception):
    """A scrape that gave nothing. `result` is the word for the metric."""

    def __init__(self, result: str, message: str) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True, slots=True)
class Sample:
    """What one scrape said. A series that is absent or not finite is None."""

    step: int | None
    total_steps: int | None
    epoch: float | None
    loss: float | None
    tokens: float | None
    last_progress: datetime | None
    checkpoint_step: int | None
    checkpoint_at: datetime | None
    goodput: Mapping[str, float]


def parse(text: str) -> Sample:
    """The sample in a Prometheus text exposition. Raises: ScrapeError when it is not one."""
    values: dict[str, float] = {}
    goodput: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for series in family.samples:
                if not math.isfinite(series.value):
                    continue
                if series.name == TrainMetric.GOODPUT:
                    goodput[series.labels.get("category", "")] = series.value
                else:
                    values[series.name] = series.value
    except (ValueError, KeyError, IndexError) as error:
        raise ScrapeError("unreadable", f"not a Prometheus exposition: {error}") from error
    return Sample(
        step=_whole(values.get(TrainMetric.STEP)),
        total_steps=_whole(values.get(TrainMetric.STEPS)),
        epoch=values.get(TrainMetric.EPOCH),
        loss=values.get(TrainMetric.LOSS),
        tokens=values.get(TrainMetric.TOKENS),
        last_progress=_time(values.get(TrainMetric.LAST_PROGRESS)),
        checkpoint_step=_whole(values.get(TrainMetric.CHECKPOINT_STEP)),
        checkpoint_at=_time(values.get(TrainMetric.CHECKPOINT_TIME)),
        goodput=goodput,
    )


def target(pods: tuple[PodFacts, ...]) -> PodFacts | None:
    """The pod to scrape: index 0 of the newest attempt, while it runs and has an address."""
    alive = [
        pod
        for pod in pods
        if pod.role is Role.TRAIN and pod.index == 0 and pod.phase == "Running" and pod.ip and not pod.gone
    ]
    return max(alive, key=lambda pod: (pod.attempt or 0, pod.uid), default=None)


def url(ip: str, port: int) -> str:
    """Where a pod's metrics are."""
    return f"http://[{ip}]:{port}/metrics" if ":" in ip else f"http://{ip}:{port}/metrics"


def paced(seen: tuple[StepSeen, ...], step: int | None, now: datetime) -> tuple[StepSeen, ...]:
    """The points that the forecast rests on, with this one if a step was made since; the oldest are let go."""
    if step is None or step < 1 or (seen and seen[-1].step == step):
        return seen
    return (*seen, StepSeen(now, step))[-PACE_POINTS:]


class Scraper:
    """Scrapes all targets, round after round."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        observer: ScrapeObserver,
        *,
        port: int = METRICS_PORT,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._keys = keys
        self._observer = observer
        self._port = port
        self._clock = clock
        self._tokens: dict[str, tuple[str, datetime, float]] = {}  # run uid -> (pod uid, when, tokens so far)

    async def keep(self, every: float) -> None:
        """Rounds that start `every` seconds apart, or as soon as the one before is through."""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT, connect=TIMEOUT / 2), trust_env=False
        ) as session:
            while True:
                pause = asyncio.create_task(asyncio.sleep(every))
                try:
                    await self.round(session)
                    await pause
                finally:
                    pause.cancel()

    async def round(self, session: aiohttp.ClientSession) -> None:
        """Scrapes every run that has a target, at most AT_ONCE at the same time."""
        targets = [
            (run, pod)
            for run in self._store.all_runs()
            if (pod := target(tuple(self._store.pods(run.uid)))) is not None
        ]
        alive = {run.uid for run, _ in targets}
        self._tokens = {uid: seen for uid, seen in self._tokens.items() if uid in alive}
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(run: RunFacts, pod: PodFacts) -> None:
            async with gate:
                await self._scrape(session, run.key, run.uid, pod)

        await asyncio.gather(*(one(run, pod) for run, pod in targets))

    async def _scrape(self, session: aiohttp.ClientSession, key: Key, run_uid: str, pod: PodFacts) -> None:
        before = self._store.progress(run_uid)
        if before is not None and before.pod_uid != pod.uid:
            before = None
        now = self._clock()
        try:
            sample = parse(await _read(session, url(pod.ip, self._port)))
        except ScrapeError as error:
            self._observer.scraped(error.result)
            kept = before or ProgressFacts(scraped_at=now, ok=False, pod_uid=pod.uid)
            self._store.put_progress(run_uid, replace(kept, scraped_at=now, ok=False, error=str(error)))
            return
        self._observer.scraped("ok")
        self._store.put_progress(run_uid, self._progress(run_uid, pod.uid, sample, before, now))
        if (sample.step or 0) >= 1 and (before is None or (before.step or 0) < 1):
            self._keys.add(key)  # the first step ends the start-up; any other waits for the refresh once a minute

    def _progress(
        self, run_uid: str, pod_uid: str, sample: Sample, before: ProgressFacts | None, now: datetime
    ) -> ProgressFacts:
        return ProgressFacts(
            scraped_at=now,
            ok=True,
            pod_uid=pod_uid,
            step=sample.step,
            total_steps=sample.total_steps,
            epoch=sample.epoch,
            loss=sample.loss,
            tokens_per_second=self._rate(run_uid, pod_uid, sample.tokens, before, now),
            last_progress=sample.last_progress,
            checkpoint_step=sample.checkpoint_step,
            checkpoint_at=sample.checkpoint_at,
            goodput=sample.goodput,
            seen=paced(before.seen if before is not None else (), sample.step, now),
        )

    def _rate(
        self, run_uid: str, pod_uid: str, tokens: float | None, before: ProgressFacts | None, now: datetime
    ) -> float | None:
        """Tokens per second since the counter last moved; the old rate while it stands still for less than a minute."""
        if tokens is None:
            return None
        last = self._tokens.get(run_uid)
        if last is None or last[0] != pod_uid or tokens < last[2]:
            self._tokens[run_uid] = (pod_uid, now, tokens)
            return None
        seconds = (now - last[1]).total_seconds()
        if tokens == last[2] and seconds < 60:
            return before.tokens_per_second if before is not None else None
        if seconds <= 0:
            return None
        self._tokens[run_uid] = (pod_uid, now, tokens)
        return (tokens - last[2]) / seconds


async def _read(session: aiohttp.ClientSession, address: str) -> str:
    try:
        async with session.get(address, allow_redirects=False) as response:
            if response.status != 200:
                raise ScrapeError("status", f"{address} answered {response.status}")
            data = bytearray()
            async for chunk in response.content.iter_chunked(64 * 1024):
                data += chunk
                if len(data) > MOST_BYTES:
                    raise ScrapeError("unreadable", f"{address} sent more than {MOST_BYTES} bytes")
            return data.decode()
    except TimeoutError as error:
        raise ScrapeError("timeout", f"{address} did not answer in {TIMEOUT:g} s") from error
    except UnicodeDecodeError as error:
        raise ScrapeError("unreadable", f"{address}: {error}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ScrapeError("refused", f"{address}: {type(error).__name__}: {error}") from error


def _whole(value: float | None) -> int | None:
    return int(value) if value is not None and 0 <= value < 2**53 else None


def _time(value: float | None) -> datetime | None:
    # 0 is what a gauge says before it was ever set.
    return datetime.fromtimestamp(value, UTC) if value is not None and 0 < value < LATEST else None
