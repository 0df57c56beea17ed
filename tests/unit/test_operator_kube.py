"""The API client against a real HTTP server that gives odd answers: typed errors, and retries only where safe."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tollgate_operator import kube, paths
from tollgate_operator.kube import Connection, KubeApi

Script = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Observed:
    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()

    def observe(self, verb: str, resource: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.requests[verb, resource, code] += 1


class OneSession:
    def __init__(self, server: str, session: aiohttp.ClientSession) -> None:
        self.connection = Connection(server, session)

    async def current(self) -> Connection:
        return self.connection


class Scripted:
    """A server that answers from a list; after the last answer it repeats it."""

    def __init__(self) -> None:
        self.answers: list[Script] = []
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


def says(status: int, body: object, **headers: str) -> Script:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def refuses(status: int, reason: str, message: str = "why", **headers: str) -> Script:
    return says(status, {"kind": "Status", "code": status, "reason": reason, "message": message}, **headers)


async def breaks(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.fixture
def server() -> Scripted:
    return Scripted()


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
async def api(server: Scripted, observed: Observed) -> AsyncIterator[KubeApi]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    async with TestServer(app) as http, aiohttp.ClientSession() as session:
        yield KubeApi(OneSession(str(http.make_url("/")), session), observed, timeout=5)


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (400, "BadRequest", kube.ApiError),
        (401, "Unauthorized", kube.Unauthorized),
        (403, "Forbidden", kube.Forbidden),
        (404, "NotFound", kube.NotFound),
        (409, "AlreadyExists", kube.AlreadyExists),
        (409, "Conflict", kube.Conflict),
        (410, "Expired", kube.Gone),
        (422, "Invalid", kube.Invalid),
    ],
)
async def test_each_refusal_has_its_type_and_is_not_repeated(
    api: KubeApi, server: Scripted, status: int, reason: str, error: type[kube.ApiError]
) -> None:
    server.answers = [refuses(status, reason, "pods is too big")]
    with pytest.raises(error, match="pods is too big") as caught:
        await api.get(paths.pod("ns", "p"))
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert len(server.requests) == 1


async def test_a_page_of_a_proxy_is_an_error_that_quotes_it(api: KubeApi, server: Scripted) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text="<html>bad gateway</html>")

    server.answers = [page]
    with pytest.raises(kube.Unavailable, match="bad gateway"):
        await api.create(paths.jobs("ns"), {})


async def test_an_answer_that_is_no_object_is_an_error_that_quotes_it_and_is_asked_for_again(
    api: KubeApi, server: Scripted
) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>please log in</html>")

    async def binary(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"\x1f\x8b\x08", content_type="application/json")

    server.answers = [page, binary, says(200, {"kind": "Pod"})]
    assert await api.get(paths.pod("ns", "p")) == {"kind": "Pod"}
    server.answers = [page]
    with pytest.raises(kube.Unavailable, match="please log in"):
        await api.create(paths.jobs("ns"), {})


async def test_an_answer_that_is_compressed_is_read(api: KubeApi, server: Scripted) -> None:
    """The API server compresses what is longer than 128 KiB, so the first long list would be one that can't be read."""

    async def compressed(request: web.Request) -> web.StreamResponse:
        assert "gzip" in request.headers["Accept-Encoding"]
        response = web.json_response({"kind": "List", "items": ["x" * 200_000]})
        response.enable_compression(web.ContentCoding.gzip)
        return response

    server.answers = [compressed]
    assert len((await api.get("/api/v1/pods"))["items"][0]) == 200_000


async def test_a_redirect_is_an_error_and_the_token_is_not_carried_elsewhere(api: KubeApi, server: Scripted) -> None:
    server.answers = [says(302, {}, Location="http://127.0.0.1:1/else")]
    with pytest.raises(kube.ApiError) as caught:
        await api.get(paths.pod("ns", "p"))
    assert caught.value.status == 302


@pytest.mark.parametrize("broken", [breaks, refuses(503, "ServiceUnavailable"), refuses(500, "InternalError")])
async def test_what_is_idempotent_is_tried_again(
    api: KubeApi, server: Scripted, observed: Observed, broken: Script
) -> None:
    for call in (
        lambda: api.get(paths.run("ns", "r")),
        lambda: api.merge_patch(paths.run_status("ns", "r"), {"status": {}}),
        lambda: api.apply(paths.config_map("ns", "c"), {}, "me"),
        lambda: api.replace(paths.lease("ns", "l"), {}),
        lambda: api.delete(paths.job("ns", "j"), uid="u"),
    ):
        server.answers, server.requests = [broken, says(200, {"ok": True})], []
        await call()
        assert len(server.requests) == 2
    assert sum(n for (_, _, code), n in observed.requests.items() if code == "200") == 5


@pytest.mark.parametrize("broken", [breaks, refuses(503, "ServiceUnavailable"), refuses(504, "Timeout")])
async def test_a_create_whose_answer_was_lost_is_not_repeated(api: KubeApi, server: Scripted, broken: Script) -> None:
    server.answers = [broken]
    with pytest.raises(kube.Unavailable):
        await api.create(paths.jobs("ns"), {"metadata": {"name": "x"}})
    assert len(server.requests) == 1


async def test_a_busy_server_is_waited_for_as_long_as_it_asks(api: KubeApi, server: Scripted) -> None:
    server.answers = [refuses(429, "TooManyRequests", Retry_After="0"), says(201, {"metadata": {"name": "x"}})]
    assert (await api.create(paths.jobs("ns"), {}))["metadata"]["name"] == "x"
    assert len(server.requests) == 2


async def test_a_long_wait_is_handed_to_the_queue(api: KubeApi, server: Scripted) -> None:
    server.answers = [refuses(429, "TooManyRequests", Retry_After="120")]
    with pytest.raises(kube.TooManyRequests) as caught:
        await api.get(paths.run("ns", "r"))
    assert caught.value.retry_after == 120
    assert len(server.requests) == 1


async def test_an_answer_that_never_comes_ends_as_unavailable(server: Scripted) -> None:
    async def hangs(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    server.answers = [hangs]
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    async with TestServer(app) as http, aiohttp.ClientSession() as session:
        api = KubeApi(OneSession(str(http.make_url("/")), session), timeout=0.1)
        with pytest.raises(kube.Unavailable, match="Timeout"):
            await api.create(paths.jobs("ns"), {})


async def test_a_list_is_read_page_by_page(api: KubeApi, server: Scripted) -> None:
    server.answers = [
        says(200, {"metadata": {"continue": "t1"}, "items": [{"n": 1}, {"n": 2}]}),
        says(200, {"metadata": {}, "items": [{"n": 3}]}),
    ]
    found = await api.list(paths.pods(), label_selector="tollgate.dev/run", field_selector="spec.nodeName=a")
    assert [item["n"] for item in found] == [1, 2, 3]
    first, second = (dict(request.query) for request in server.requests)
    assert first == {"limit": "500", "labelSelector": "tollgate.dev/run", "fieldSelector": "spec.nodeName=a"}
    assert second == {**first, "continue": "t1"}


async def test_a_list_that_expired_half_way_is_read_anew(api: KubeApi, server: Scripted) -> None:
    server.answers = [
        says(200, {"metadata": {"continue": "t1"}, "items": [{"n": 1}]}),
        refuses(410, "Expired"),
        says(200, {"metadata": {}, "items": [{"n": 1}, {"n": 2}]}),
    ]
    assert [item["n"] for item in await api.list(paths.pods())] == [1, 2]


async def test_the_verbs_say_what_kubernetes_expects(api: KubeApi, server: Scripted) -> None:
    server.answers = [says(200, {"ok": True})]
    await api.delete(paths.job("ns", "j"), uid="u-1", grace=5)
    await api.merge_patch(paths.run_status("ns", "r"), {"status": {"phase": None}})
    await api.apply(paths.config_map("ns", "c"), {"data": {}}, "tollgate-operator", force=True)
    delete, patch, apply = server.requests
    assert (delete.method, delete.path) == ("DELETE", "/apis/batch/v1/namespaces/ns/jobs/j")
    assert json.loads(server.bodies[0]) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Foreground",
        "preconditions": {"uid": "u-1"},
        "gracePeriodSeconds": 5,
    }
    assert (patch.method, patch.content_type) == ("PATCH", "application/merge-patch+json")
    assert json.loads(server.bodies[1]) == {"status": {"phase": None}}
    assert (apply.method, apply.content_type) == ("PATCH", "application/apply-patch+yaml")
    assert dict(apply.query) == {"fieldManager": "tollgate-operator", "force": "true"}


async def test_a_closed_session_is_unavailable_and_the_next_try_takes_the_new_one(server: Scripted) -> None:
    server.answers = [says(200, {"ok": True})]
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    async with TestServer(app) as http:
        old, new = aiohttp.ClientSession(), aiohttp.ClientSession()
        await old.close()
        handed = [old, new]

        class Replaced:
            async def current(self) -> Connection:
                return Connection(str(http.make_url("/")), handed.pop(0))

        assert await KubeApi(Replaced()).get(paths.run("ns", "r")) == {"ok": True}
        await new.close()


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        (paths.runs(), "trainingruns"),
        (paths.runs("ns"), "trainingruns"),
        (paths.run("ns", "r"), "trainingruns"),
        (paths.run_status("namespaces", "status"), "trainingruns/status"),
        (paths.profile("p"), "computeprofiles"),
        (paths.pods(), "pods"),
        (paths.pod("ns", "p"), "pods"),
        (paths.node("n"), "nodes"),
        (paths.lease("ns", "l"), "leases"),
        (paths.events("ns"), "events"),
        ("/api/v1", "discovery"),
    ],
)
def test_a_path_is_counted_by_its_resource_and_never_by_a_name(path: str, resource: str) -> None:
    assert paths.resource_of(path) == resource
