"""A TLS proxy between an operator and the API server: it sees every request, and faults happen at exactly one of them.

A fault is taken before the request is forwarded (the API server never sees it) or after (the API server did it, and the
operator never hears). That is where a process can die, so a kill there needs no hook in production code. Watches pass
line by line, so events can be doubled or held back.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
from aiohttp import web

from tollgate_local.cluster import Cluster

WRITES = ("POST", "PUT", "PATCH", "DELETE")
_HOP = {"host", "content-length", "transfer-encoding", "connection"}


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked. `body` is parsed JSON, or None."""

    method: str
    path: str
    body: Any = None

    @property
    def status(self) -> Mapping[str, Any]:
        """The status that it writes; empty when it writes none."""
        found = self.body.get("status") if isinstance(self.body, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def is_write(self) -> bool:
        """A write that is neither an Event nor the Lease: something that a run depends on."""
        return self.method in WRITES and not any(f"/{plural}" in self.path for plural in ("events", "leases"))


@dataclass(frozen=True, slots=True)
class Entry:
    """A request that was answered: when, what, and with which HTTP status (0: no answer was let through)."""

    at: float
    request: Request
    code: int


Matches = Callable[[Request], bool]


@dataclass
class Fault:
    """What happens at the first `times` requests that match. `act` None: only the answer.

    `answer`: the HTTP status sent instead of forwarding (`before`) or instead of the true answer (`after`); 0 breaks
    the connection.
    """

    matches: Matches
    when: Literal["before", "after"]
    act: Callable[[], None] | None = None
    answer: int = 0
    times: int = 1
    struck: int = 0
    happened: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """One proxy; it may be used by one operator after the other."""

    def __init__(self, cluster: Cluster) -> None:
        self.faults: list[Fault] = []
        self.log: list[Entry] = []
        self.compressed = 0
        """Answers that the API server compressed; they pass as they are."""
        self.double_events = False
        self.delays: dict[str, float] = {}
        """Resource (`pods`) -> by how many seconds its watch events come late."""
        self._server = cluster.server
        self._pki = cluster.state / "pki"
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(self._pki), self._loop).result(30)

    @property
    def url(self) -> str:
        """What the operator's kubeconfig names."""
        return f"https://127.0.0.1:{self.port}"

    def strike(self, fault: Fault) -> Fault:
        """Lies in wait for a request."""
        self.faults.append(fault)
        return fault

    def hold(self) -> None:
        """A partition: from now on nothing passes, neither requests nor watch events, and no connection breaks."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def mend(self) -> None:
        """The partition ends; what waited in it arrives now, however late."""
        self._loop.call_soon_threadsafe(self._open.set)

    def writes(self) -> list[Entry]:
        """The writes so far that runs depend on."""
        return [entry for entry in self.log if entry.request.is_write]

    def close(self) -> None:
        """Ends the proxy and every connection through it."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self, pki: Path) -> int:
        self._open.set()
        upstream = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=upstream, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
            trust_env=False,
        )
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
        self._runner = web.AppRunner(_application(self._handle), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=serving)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def _stop(self) -> None:
        self._open.set()
        await self._runner.cleanup()
        await self._session.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        seen = Request(request.method, request.path, _parsed(data))
        await self._open.wait()
        if fault := self._fault(seen, "before"):
            return await self._strike(request, seen, fault)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        try:
            async with self._session.request(
                request.method, self._server + request.raw_path, headers=headers, data=data or None
            ) as answer:
                if request.query.get("watch") in ("true", "1"):
                    return await self._watch(request, answer)
                payload = await answer.read()
        except (aiohttp.ClientError, OSError):
            _break(request)
            return web.Response(status=502)
        await self._open.wait()
        if fault := self._fault(seen, "after"):
            self.log.append(Entry(time.time(), seen, answer.status))
            return await self._strike(request, seen, fault)
        self.log.append(Entry(time.time(), seen, answer.status))
        self.compressed += "Content-Encoding" in answer.headers
        names = ("Content-Type", "Content-Encoding", "Retry-After")
        kept = {name: answer.headers[name] for name in names if name in answer.headers}
        return web.Response(status=answer.status, body=payload, headers=kept)

    async def _watch(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(
            status=answer.status, headers={"Content-Type": answer.headers.get("Content-Type", "application/json")}
        )
        await response.prepare(request)
        buffer = bytearray()
        resource = request.path.rsplit("/", 1)[-1]
        try:
            async for chunk in answer.content.iter_any():
                buffer += chunk
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[: end + 1])
                    del buffer[: end + 1]
                    if (late := self.delays.get(resource)) is not None:
                        await asyncio.sleep(late)
                    await self._open.wait()
                    await response.write(line * 2 if self.double_events else line)
        except (aiohttp.ClientError, OSError):
            _break(request)
        return response

    def _fault(self, seen: Request, when: str) -> Fault | None:
        for fault in self.faults:
            if fault.when == when and fault.struck < fault.times and fault.matches(seen):
                fault.struck += 1
                return fault
        return None

    async def _strike(self, request: web.Request, seen: Request, fault: Fault) -> web.Response:
        if fault.act is not None:
            await asyncio.to_thread(fault.act)
        fault.happened.set()
        if fault.answer == 0:
            _break(request)
            return web.Response(status=502)
        if fault.when == "before":
            self.log.append(Entry(time.time(), seen, fault.answer))
        reason = {409: "Conflict", 429: "TooManyRequests", 503: "ServiceUnavailable"}.get(fault.answer, "InternalError")
        body = {
            "kind": "Status",
            "status": "Failure",
            "code": fault.answer,
            "reason": reason,
            "message": "by the proxy",
        }
        return web.json_response(body, status=fault.answer, headers={"Retry-After": "1"} if fault.answer == 429 else {})


def _application(handle: Callable[[web.Request], Any]) -> web.Application:
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_route("*", "/{path:.*}", handle)
    return application


def _break(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data) if data else None
    except ValueError:
        return None


# --- which request ----------------------------------------------------------------------------------------------------


def creates_job(role: str) -> Matches:
    """The create of a Job of that role."""
    return lambda r: (
        r.method == "POST" and r.path.endswith("/jobs") and r.body["metadata"]["labels"]["tollgate.dev/role"] == role
    )


def stops_job(r: Request) -> bool:
    """The patch that stops a Job."""
    return r.method == "PATCH" and "/jobs/" in r.path


def writes_run(r: Request) -> bool:
    """A status of a TrainingRun."""
    return r.method == "PATCH" and "/trainingruns/" in r.path and r.path.endswith("/status")


def writes_policy(r: Request) -> bool:
    """The status of a PromotionPolicy that names a holder."""
    return (
        r.method == "PATCH"
        and "/promotionpolicies/" in r.path
        and any(stage.get("holder") for stage in r.status.get("stages", []))
    )


def projects(r: Request) -> bool:
    """The ConfigMap of a stage."""
    return r.method == "PATCH" and "/configmaps/" in r.path


def writes_attempt(**wanted: Any) -> Matches:
    """A run's status in which some attempt has these values (`role="train", number=1, jobUID=...` means: is set)."""

    def matches(r: Request) -> bool:
        return writes_run(r) and any(
            all(bool(a.get(k)) if v is ... else a.get(k) == v for k, v in wanted.items())
            for a in r.status.get("attempts", [])
        )

    return matches


def writes_phase(phase: str) -> Matches:
    """A run's status that changes its phase to this one."""
    return lambda r: writes_run(r) and r.status.get("phase") == phase
