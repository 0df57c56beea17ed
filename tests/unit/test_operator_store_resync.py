"""The resync heals what a watch lost: ghosts go, vanished pods become tombstones, a half list drops nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tollgate.contract import LABEL_RUN, LABEL_RUN_UID
from tollgate_operator import paths
from tollgate_operator.facts import Key, RunFacts
from tollgate_operator.kube import Connection, KubeApi, Unavailable
from tollgate_operator.resync import Resync
from tollgate_operator.store import Store

RUN = Key("TrainingRun", "ns", "a")


class Lists:
    """An API server of which only lists and one ConfigMap are asked. `expire`: lists that answer 410 once."""

    def __init__(self) -> None:
        self.items: dict[str, list[dict[str, Any]]] = {}
        self.config_map: dict[str, Any] | None = None
        self.broken: set[str] = set()
        self.expire: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, request.query.get("labelSelector", "")))
        self.meanwhile()
        if "/configmaps/" in request.path:
            return web.json_response(self.config_map or {}, status=200 if self.config_map else 404)
        if request.path in self.broken:
            return web.json_response({"reason": "InternalError"}, status=500)
        items = self.items.get(request.path, [])
        if request.path in self.expire:
            if "continue" in request.query:
                self.expire.discard(request.path)
                return web.json_response({"reason": "Expired"}, status=410)
            return web.json_response({"metadata": {"continue": "more"}, "items": items[:1]})
        return web.json_response({"metadata": {}, "items": items})


class Session:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def current(self) -> Connection:
        return self.connection


class Keys:
    def __init__(self) -> None:
        self.added: set[Key] = set()
        self.forgotten: set[Key] = set()

    def add(self, key: Key) -> None:
        self.added.add(key)

    def forget(self, key: Key) -> None:
        self.forgotten.add(key)


class Bench:
    def __init__(self, api: KubeApi, lists: Lists) -> None:
        self.api, self.lists, self.store, self.keys = api, lists, Store(), Keys()
        self.resync = Resync(api, self.store, self.keys, None, ("tollgate-system", "prices"))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    lists = Lists()
    app = web.Application()
    app.router.add_get("/{tail:.*}", lists.handle)
    async with TestServer(app) as http, aiohttp.ClientSession() as session:
        bench = Bench(KubeApi(Session(Connection(str(http.make_url("/")), session))), lists)
        lists.items = {
            paths.runs(): [thing("a", "u1")],
            paths.policies(): [thing("care", "pol")],
            paths.profiles(): [thing("cpu", "prof")],
            paths.nodes(): [thing("n1", "node")],
            paths.jobs(): [thing("a-1", "j1", run_uid="u1")],
            paths.pods(): [thing("a-1-0", "p1", run_uid="u1"), thing("a-1-1", "p2", run_uid="u1")],
        }
        yield bench


def thing(name: str, uid: str, version: str = "5", run_uid: str = "") -> dict[str, Any]:
    labels = {LABEL_RUN: "a", LABEL_RUN_UID: run_uid} if run_uid else {}
    meta = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": version, "labels": labels}
    return {"metadata": meta}


async def test_the_first_listing_fills_the_store_and_wakes_everything(bench: Bench) -> None:
    bench.lists.config_map = {"data": {"m5.large": "0.096"}}
    await bench.resync.once()
    assert bench.keys.added == {RUN, Key("PromotionPolicy", "ns", "care")}
    assert len(bench.store.pods("u1")) == 2
    assert bench.store.node("n1") is not None
    assert dict(bench.store.price_book()) == {"m5.large": "0.096"}
    selectors = dict(bench.lists.asked)
    assert selectors[paths.pods()] == selectors[paths.jobs()] == LABEL_RUN


async def test_what_is_no_longer_listed_is_gone(bench: Bench) -> None:
    await bench.resync.once()
    for path in (paths.policies(), paths.profiles(), paths.nodes(), paths.jobs()):
        bench.lists.items[path] = []
    bench.lists.items[paths.pods()] = [thing("a-1-1", "p2", run_uid="u1")]
    await bench.resync.once()
    assert bench.store.policy("ns", "care") is None
    assert not bench.store.profiles()
    assert bench.store.node("n1") is None
    assert not bench.store.jobs("u1")
    assert {pod.uid: pod.gone for pod in bench.store.pods("u1")} == {"p1": True, "p2": False}
    assert Key("PromotionPolicy", "ns", "care") in bench.keys.forgotten
    bench.lists.items[paths.runs()] = []
    await bench.resync.once()
    assert bench.store.run(RUN) is None
    assert RUN in bench.keys.forgotten
    assert not [pod for pod in bench.store.pods("u1") if pod.gone]


async def test_what_came_while_the_list_was_read_is_no_ghost(bench: Bench) -> None:
    await bench.resync.once()
    bench.lists.items[paths.runs()] = []

    bench.lists.meanwhile = lambda: bench.store.put_run(RunFacts.from_object(thing("b", "u2", "9")))
    await bench.resync.once()
    assert bench.store.run(RUN) is None
    assert bench.store.run(Key("TrainingRun", "ns", "b")) is not None


async def test_a_list_that_fails_drops_nothing(bench: Bench) -> None:
    await bench.resync.once()
    bench.lists.items[paths.pods()] = []
    bench.lists.broken = {paths.pods()}
    with pytest.raises(Unavailable):
        await bench.resync.once()
    assert [pod.gone for pod in bench.store.pods("u1")] == [False, False]


async def test_a_list_that_expires_half_way_drops_nothing_that_is_there(bench: Bench) -> None:
    await bench.resync.once()
    bench.lists.expire = {paths.pods()}
    await bench.resync.once()
    assert [pod.gone for pod in bench.store.pods("u1")] == [False, False]


async def test_a_price_book_that_was_deleted_is_an_empty_one(bench: Bench) -> None:
    bench.lists.config_map = {"data": {"m5.large": "0.096"}}
    await bench.resync.once()
    bench.lists.config_map = None
    await bench.resync.read_price_book()
    assert not bench.store.price_book()
