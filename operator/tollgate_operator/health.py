"""/metrics, /healthz and /readyz on one small HTTP server.

Liveness fails only for what a restart mends: a task that died, a watch that went silent, work that nobody takes. An API
server that is away is none of these; the Lease runs out then and the process ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

ECHO_LIMIT: Final = 120.0
WAIT_LIMIT: Final = 120.0
WORK_LIMIT: Final = 300.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """What health is judged from. Ages in seconds; `echo_age` None: no echo is expected (yet)."""

    dead_tasks: Sequence[str]
    leading: bool
    indexed: bool
    echo_age: float | None
    oldest_due: float
    longest_running: float


def sickness(vitals: Vitals) -> list[str]:
    """Why the process should be restarted; empty when it should not."""
    found = [f"task {name} ended" for name in vitals.dead_tasks]
    if vitals.echo_age is not None and vitals.echo_age > ECHO_LIMIT:
        found.append(f"the watch has not shown our lease for {vitals.echo_age:.0f} s (limit {ECHO_LIMIT:.0f} s)")
    if vitals.oldest_due > WAIT_LIMIT:
        found.append(f"a key has been due for {vitals.oldest_due:.0f} s (limit {WAIT_LIMIT:.0f} s)")
    if vitals.longest_running > WORK_LIMIT:
        found.append(
            f"a reconciliation has been going on for {vitals.longest_running:.0f} s (limit {WORK_LIMIT:.0f} s)"
        )
    return found


def unready(vitals: Vitals) -> list[str]:
    """Why the process does not do its work yet; empty when it does."""
    found = []
    if not vitals.leading:
        found.append("another process holds the lease")
    if not vitals.indexed:
        found.append("the first listing is not through")
    return found


class HealthServer:
    """Serves the three pages. `vitals` is asked at each request."""

    def __init__(self, registry: CollectorRegistry, vitals: Callable[[], Vitals], host: str, port: int) -> None:
        self._registry = registry
        self._vitals = vitals
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listens and answers the port (of interest when 0 was asked for). Raises: OSError when it is taken."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        # Idle keep-alive connections would be waited for at the end.
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=1, keepalive_timeout=5
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Closes the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _healthz(self, request: web.Request) -> web.Response:
        return _answer(sickness(self._vitals()))

    async def _readyz(self, request: web.Request) -> web.Response:
        return _answer(unready(self._vitals()))


def _answer(problems: list[str]) -> web.Response:
    if problems:
        return web.Response(status=503, text="\n".join(problems) + "\n")
    return web.Response(text="ok\n")
