"""The order in which a cluster comes up: certificates, link, control plane, nodes, and when it counts as up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tollgate_local import controlplane, host, kwok, node, processes
from tollgate_local.api import Api
from tollgate_local.errors import StartError
from tollgate_local.images.load import load, pause_image
from tollgate_local.kernel import Machine
from tollgate_local.progress import Say
from tollgate_local.settings import LoopbackShape, NodeShape
from tollgate_local.state import Record, StateFolder

__all__ = ["bring_up", "wait"]


def bring_up(record: Record, folder: StateFolder, programs: dict[str, Path], say: Say) -> None:
    """Start everything and wait until pods can be created; the caller takes down what a failure leaves.

    Raises: StartError naming the log to look at.
    """
    settings, began = record.settings, time.monotonic()
    if settings.fresh:
        folder.clear_cluster()
    for log in folder.logs.iterdir():
        log.unlink()
    controlplane.write_pki(record, folder)
    controlplane.write_files(record, folder)
    if isinstance(settings, NodeShape):
        Machine().claim(folder.sysctls)
        host.make_link(settings)
        host.make_cgroups(settings)
    say("starting the control plane (usually 3 to 5 s)")
    names = controlplane.server_names(settings)
    for name in names[:2]:  # etcd and the API server; the others would only log that they wait for it
        controlplane.start(name, record, folder, programs)
    api = Api(record.server, folder.pki)
    wait(api.ready, 120, folder, "the API server is ready")
    _doubt_nodes(api)
    if isinstance(settings, LoopbackShape):
        kwok.release_nodes(api)
    for name in names[2:]:
        controlplane.start(name, record, folder, programs)
    for path, body in controlplane.bootstrap_objects(settings).items():
        api.apply(path, body)
    if isinstance(settings, NodeShape):
        _bring_up_nodes(settings, folder, programs, say)
        wanted = settings.nodes
    else:
        expected = [f"fake-{number}" for number in range(settings.nodes)]
        kwok.add_nodes(api, expected, settings.node_labels, settings.node_capacity, {})
        wanted = settings.nodes if settings.kwok else 0
    wait(lambda: _usable(api, wanted), 120, folder, "nodes are Ready and pods can be created")
    say(f"up in {time.monotonic() - began:.1f} s: {record.server}")


def _bring_up_nodes(settings: NodeShape, folder: StateFolder, programs: dict[str, Path], say: Say) -> None:
    pause = pause_image(programs["pause"])
    for number in range(1, settings.nodes + 1):
        say(f"starting node{number} (usually 3 to 5 s)")
        outer = node.start(settings, folder, number, programs, pause.tag)
        load(outer, programs["ctr"], pause)


def _doubt_nodes(api: Api) -> None:
    """Nodes of the last time still say that they are Ready; now they have to say it again."""
    unknown = {"type": "Ready", "status": "Unknown", "reason": "ClusterRestarted"}
    for item in api.get("/api/v1/nodes")["items"]:
        path = f"/api/v1/nodes/{item['metadata']['name']}/status"
        api.call("PATCH", path, {"status": {"conditions": [unknown]}}, "application/strategic-merge-patch+json")


def _usable(api: Api, nodes: int) -> bool:
    if api.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] != 200:
        return False
    listed = api.get("/api/v1/nodes")["items"]
    found: list[dict[str, str]] = [c for item in listed for c in item["status"].get("conditions", [])]
    return sum(c["type"] == "Ready" and c["status"] == "True" for c in found) >= nodes


def wait(condition: Callable[[], bool], seconds: float, folder: StateFolder, what: str) -> None:
    """Wait for a condition, but no longer than every server lives.

    Raises: StartError with the last words of the server that ended, or after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        for name, process in processes.read_records(folder.root).items():
            if not processes.alive(process):
                raise StartError(f"{name} ended: {processes.last_words(folder.logs / f'{name}.log')}")
        if time.monotonic() > deadline:
            raise StartError(f"not after {seconds:.0f} s: {what}; the logs are in {folder.logs}")
        time.sleep(0.05)
