"""The parts of the operator put together, started in order and stopped in order.

Start: the HTTP server, the Lease, one full listing, then workers, watches, scrapes and resync. Stop: first what writes,
last the Lease. Nothing is lost by a stop at any point, for everything is derived anew from what stands in the API
server.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

import kopf
from prometheus_client import CollectorRegistry, disable_created_metrics

from tollgate.api import promotion_policy, training_run
from tollgate_operator.facts import Key
from tollgate_operator.health import HealthServer, Vitals
from tollgate_operator.kube import ApiError, KubeApi, NotFound, TooManyRequests
from tollgate_operator.lease import Elector, LeaseLostError
from tollgate_operator.login import ClusterLogin, LoginError, load
from tollgate_operator.metrics import Metrics, QueueCollector, RunCollector
from tollgate_operator.promotion.kind import PromotionKind
from tollgate_operator.queue import WorkQueue, work
from tollgate_operator.reconcile import Reconciler
from tollgate_operator.resync import Resync
from tollgate_operator.runs.kind import RunKind
from tollgate_operator.scrape import Scraper
from tollgate_operator.settings import Settings
from tollgate_operator.store import Store
from tollgate_operator.watch import LeaseEcho, Watch, kopf_settings

logger = logging.getLogger(__name__)

STOP_SECONDS: Final = 10.0
PRICES_EVERY: Final = 60.0


class Operator:
    """Everything that one process holds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.login = ClusterLogin(load(settings.kubeconfig, settings.context))
        self.api = KubeApi(self.login, self.metrics)
        self.store = Store()
        self.queue: WorkQueue[Key] = WorkQueue(observer=self.metrics)
        self.echo = LeaseEcho()
        self.elector = Elector(
            self.api, settings.lease_namespace, settings.lease_name, settings.identity, settings.lease_timing
        )
        self.resync = Resync(self.api, self.store, self.queue, settings.namespaces, settings.price_book)
        self.scraper = Scraper(self.store, self.queue, self.metrics)
        self.server = HealthServer(self.registry, self.vitals, settings.metrics_host, settings.metrics_port)
        self.registry.register(
            QueueCollector(lambda: self.queue.depth, lambda: self.queue.oldest, lambda: self.queue.longest_running)
        )
        self.registry.register(RunCollector(self.store))
        self._reconcilers: dict[str, Callable[[Key], Awaitable[float | None]]] = {
            training_run.KIND: Reconciler(self.api, self.store, RunKind(self.store, self.api), _now).reconcile,
            promotion_policy.KIND: Reconciler(
                self.api, self.store, PromotionKind(self.store, self.api), _now
            ).reconcile,
        }
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._indexed = False
        self._stopping = False

    def vitals(self) -> Vitals:
        """How the process is, for the health pages."""
        return Vitals(
            dead_tasks=[] if self._stopping else [name for name, task in self._tasks.items() if task.done()],
            leading=self.elector.leading,
            indexed=self._indexed,
            echo_age=self.echo.age,
            oldest_due=self.queue.oldest if self._indexed else 0.0,
            longest_running=self.queue.longest_running,
        )

    async def reconcile(self, key: Key) -> float | None:
        """One step for one object of any kind."""
        return await self._reconcilers[key.kind](key)

    async def lead(self, stop: asyncio.Event) -> None:
        """Acquires the Lease, works until `stop` is set, and hands everything back.

        Raises: LeaseLostError, ApiError when the first listing is refused, or what a part of the process died of.
        """
        acquiring = asyncio.create_task(self.elector.acquire(), name="lease acquisition")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        kopf_stop = asyncio.Event()
        try:
            await asyncio.wait({acquiring, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not acquiring.done():
                return
            acquiring.result()
            self.metrics.leading(True)
            logger.info("leading with the lease %s/%s", self.settings.lease_namespace, self.settings.lease_name)
            self._spawn("lease", self.elector.hold())
            await self._work_until(stopped, kopf_stop, stop)
        finally:
            self._stopping = True
            acquiring.cancel()
            stopped.cancel()
            await self._wind_down(kopf_stop)

    async def _work_until(self, stopped: asyncio.Task[bool], kopf_stop: asyncio.Event, stop: asyncio.Event) -> None:
        listing = asyncio.create_task(self.resync.once(), name="first listing")
        await self._first_of({listing, stopped})
        if not listing.done():
            listing.cancel()
            return
        listing.result()
        self._indexed = True
        # Kopf's own tasks are the only ones that it may wait for at its end, so all of ours are there before it.
        for number in range(self.settings.workers):
            self._spawn(f"worker {number}", work(self.queue, self.reconcile, self.metrics, _asked_wait))
        self._spawn("resync", self.resync.keep(self.settings.resync))
        self._spawn("scrape", self.scraper.keep(self.settings.scrape))
        if self.settings.price_book is not None:
            self._spawn("price book", self._keep_prices())
        self._spawn("watches", self._watch(kopf_stop, stop))
        await self._first_of({stopped})

    async def _first_of(self, awaited: set[asyncio.Task[Any]]) -> None:
        """Returns when one of `awaited` is done. Raises: what one of our parts died of, if that came first."""
        await asyncio.wait({*awaited, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        for name, task in self._tasks.items():
            if task.done() and not task.cancelled():
                task.result()
                raise RuntimeError(f"{name} ended without being asked to")

    async def _watch(self, kopf_stop: asyncio.Event, stop: asyncio.Event) -> None:
        registry = kopf.OperatorRegistry()
        settings = kopf.OperatorSettings()
        lease = (self.settings.lease_namespace, self.settings.lease_name)
        kopf_settings(settings, lease if self.settings.watches_lease else None)
        Watch(self.store, self.queue, self.metrics, self.echo, lease).register(
            registry, watch_lease=self.settings.watches_lease
        )

        async def log_in(**_: object) -> kopf.AiohttpSession:
            return await self.login.for_kopf()

        kopf.on.login(registry=registry, id="login")(log_in)
        if self.settings.watches_lease:
            self.echo.seen()  # from now on it has to come
        ready = asyncio.Event()
        running = asyncio.create_task(
            kopf.operator(
                registry=registry,
                settings=settings,
                clusterwide=self.settings.namespaces is None,
                namespaces=self.settings.namespaces or (),
                stop_flag=kopf_stop,
                ready_flag=ready,
            ),
            name="kopf",
        )
        try:
            readiness = asyncio.create_task(ready.wait(), name="kopf readiness")
            await asyncio.wait({running, readiness}, return_when=asyncio.FIRST_COMPLETED)
            readiness.cancel()
            if running.done():
                running.result()
                stop.set()  # a signal that Kopf got while it started
                await asyncio.Event().wait()
            _on_signals(stop)  # Kopf put its own handlers in their place, and would end before those who write
            await asyncio.shield(running)
        except asyncio.CancelledError:
            kopf_stop.set()
            await asyncio.wait({running}, timeout=STOP_SECONDS / 2)
            running.cancel()
            raise

    async def _keep_prices(self) -> None:
        while True:
            await asyncio.sleep(PRICES_EVERY)
            try:
                await self.resync.read_price_book()
            except ApiError as error:
                logger.warning("the price book was not read, the old prices stay: %s", error)

    async def _wind_down(self, kopf_stop: asyncio.Event) -> None:
        """Ends what writes first, then the watches; the Lease goes last, when nobody of us acts any more."""
        lease, watches = self._tasks.get("lease"), self._tasks.get("watches")
        writers = {task for task in self._tasks.values() if task is not lease and task is not watches}
        await _cancelled(writers)
        await self.server.stop()
        kopf_stop.set()
        await _cancelled({watches} if watches is not None else set())
        await _cancelled({lease} if lease is not None else set())
        await self.elector.release()
        self.metrics.leading(False)

    def _spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.create_task(coroutine, name=name)


async def run_operator(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT. Answers the exit code: 0 when asked to stop, 1 when something of ours ended."""
    stop = asyncio.Event()
    _on_signals(stop)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series beside each counter: twice the series, for nobody
    operator = Operator(settings)
    try:
        port = await operator.server.start()
        logger.info("serving /metrics, /healthz and /readyz", extra={"host": settings.metrics_host, "port": port})
        await operator.lead(stop)
    except LeaseLostError as error:
        logger.error("stopping: %s", error)
        return 1
    except NotFound as error:
        logger.error("stopping: %s. Are the CRDs installed? helm install tollgate, or kubectl apply -f crds/", error)
        return 1
    except (ApiError, LoginError, OSError) as error:
        logger.error("stopping: %s", error)
        return 1
    except Exception:
        logger.exception("stopping: a part of the operator failed")
        return 1
    finally:
        await operator.server.stop()
        await operator.login.close()
    logger.info("stopped")
    return 0


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for task in late:
            logger.warning("%s did not end in %.0f s", task.get_name(), STOP_SECONDS)


def _asked_wait(error: Exception) -> float:
    return error.retry_after if isinstance(error, TooManyRequests) else 0.0


def _now() -> datetime:
    return datetime.now(UTC)
