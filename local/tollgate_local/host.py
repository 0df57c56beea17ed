"""What the node shape changes on the machine itself: bridge, routes, cgroups, kernel settings; and its undoing.

Everything here can be called again and again: making what is there and removing what is gone are no errors.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tollgate_local.errors import StartError
from tollgate_local.settings import NodeShape

__all__ = [
    "attach",
    "cgroups",
    "check_free",
    "interfaces",
    "make_cgroups",
    "make_link",
    "own_routes",
    "owner",
    "remove_cgroups",
    "remove_link",
    "routes",
    "run",
    "set_link",
]

_CGROUPS = Path("/sys/fs/cgroup")
_MADE_BY = "tollgate local: "
"""Before the state folder in a bridge's alias: who made it can be told even when all its processes are gone."""
_ALIAS_BYTES = 255
"""What the kernel keeps of an alias."""


def run(*command: str) -> str:
    """Run a system command. Raises: StartError with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def interfaces(settings: NodeShape) -> list[str]:
    """Names of this cluster's interfaces that exist on the host."""
    ours = {settings.bridge, *(settings.veth(k) for k in range(1, 10))}
    return sorted(link["ifname"] for link in json.loads(run("ip", "-j", "link")) if link["ifname"] in ours)


def routes(settings: NodeShape) -> list[str]:
    """Routes on the host that touch this cluster's networks, each as `destination dev interface`."""
    names = (f"{settings.net}.0/24", f"{settings.services}.0.0/16", f"{settings.pods}.0.0/16")
    nets = [ipaddress.ip_network(name) for name in names]
    found = []
    for route in json.loads(run("ip", "-j", "route")):
        if route["dst"] == "default":
            continue
        destination = ipaddress.ip_network(route["dst"])
        if any(destination.overlaps(net) for net in nets):
            found.append(f"{destination} dev {route.get('dev', '?')}")
    return found


def own_routes(settings: NodeShape) -> list[str]:
    """Those over this cluster's bridge; another cluster may have come to use the same networks since."""
    return [route for route in routes(settings) if route.endswith(f" dev {settings.bridge}")]


def check_free(settings: NodeShape) -> None:
    """Refuse names and networks that something else on this machine uses.

    Raises: StartError that names the setting to change.
    """
    if present := interfaces(settings):
        raise StartError(
            f"the interface {present[0]} exists and this cluster did not make it (another cluster?): "
            "set TOLLGATE_LOCAL_BRIDGE to another name"
        )
    if present := routes(settings):
        raise StartError(
            f"this machine has a route to {present[0]}, which overlaps the cluster's networks: set "
            "TOLLGATE_LOCAL_NET (now {0.net}), TOLLGATE_LOCAL_SERVICES ({0.services}) or TOLLGATE_LOCAL_PODS ({0.pods})"
            " to free ones".format(settings)
        )
    if cgroups(settings):
        raise StartError(f"the cgroup {settings.cgroup!r} exists already: set TOLLGATE_LOCAL_CGROUP to another name")


def owner(settings: NodeShape) -> Path | None:
    """The state folder of the cluster that made the bridge of this name; None when there is none, or nobody of ours."""
    alias = Path("/sys/class/net") / settings.bridge / "ifalias"
    text = alias.read_text().strip() if alias.exists() else ""
    return Path(text.removeprefix(_MADE_BY)) if text.startswith(_MADE_BY) else None


def make_link(settings: NodeShape) -> None:
    """The bridge between control plane and nodes; the host reaches pods and Services through the nodes (webhooks)."""
    run("ip", "link", "add", settings.bridge, "type", "bridge")
    if len((alias := f"{_MADE_BY}{settings.state}").encode()) <= _ALIAS_BYTES:  # half a path would name another folder
        run("ip", "link", "set", settings.bridge, "alias", alias)
    run("ip", "addr", "add", f"{settings.host_ip}/24", "dev", settings.bridge)
    run("ip", "link", "set", settings.bridge, "up")
    for number in range(1, settings.nodes + 1):
        run("ip", "route", "add", f"{settings.pods}.{number}.0/24", "via", settings.node_ip(number))
    run("ip", "route", "add", f"{settings.services}.0.0/16", "via", settings.node_ip(1))


def attach(settings: NodeShape, number: int, init: int) -> None:
    """A cable from the bridge into the network namespace of process `init`."""
    run("ip", "link", "add", settings.veth(number), "type", "veth", "peer", "name", "eth0", "netns", str(init))
    run("ip", "link", "set", settings.veth(number), "master", settings.bridge, "up")


def set_link(settings: NodeShape, number: int, *, up: bool) -> None:
    """Cut or mend the cable of one node."""
    run("ip", "link", "set", settings.veth(number), "up" if up else "down")


def remove_link(settings: NodeShape) -> None:
    """Remove the interfaces; the routes over them go with them."""
    for name in interfaces(settings):
        subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)  # a peer takes its end along


def make_cgroups(settings: NodeShape) -> None:
    """The cgroup of each node in every tree (cgroup v1 has one per controller, v2 has one)."""
    for tree in _trees():
        _delegate(tree)
        for folder in (tree / settings.cgroup, *(tree / settings.cgroup / node for node in settings.node_names)):
            folder.mkdir(exist_ok=True)
            if folder.name == settings.cgroup:
                _delegate(folder)
            for limit in ("cpuset.cpus", "cpuset.mems"):
                if (folder / limit).exists() and (tree / limit).exists():  # v1: empty until somebody fills it
                    (folder / limit).write_text((tree / limit).read_text())


def cgroups(settings: NodeShape) -> list[str]:
    """The cluster's cgroups that exist."""
    return [str(tree / settings.cgroup) for tree in _trees() if (tree / settings.cgroup).is_dir()]


def remove_cgroups(settings: NodeShape) -> list[str]:
    """Remove them, deepest first; returns what would not go within 5 s (a process still lives in it)."""
    deadline = time.monotonic() + 5
    while True:
        left = [str(tree / settings.cgroup) for tree in _trees() if not _remove_tree(tree / settings.cgroup)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def _trees() -> Iterator[Path]:
    if (_CGROUPS / "cgroup.controllers").exists():
        yield _CGROUPS
        return
    for tree in sorted(_CGROUPS.iterdir()):
        if tree.is_dir() and not tree.is_symlink():
            yield tree


def _delegate(folder: Path) -> None:
    """Cgroup v2: hand the controllers that pods need to the groups below."""
    controllers = folder / "cgroup.controllers"
    if not controllers.exists():  # a v1 tree
        return
    wanted = {"cpuset", "cpu", "io", "memory", "hugetlb", "pids"} & set(controllers.read_text().split())
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))


def _remove_tree(top: Path) -> bool:
    if not top.exists():
        return True
    for folder in (*sorted((p for p in top.rglob("*") if p.is_dir()), reverse=True), top):
        try:
            folder.rmdir()
        except OSError:
            return False  # busy for a moment after its last process ended: the caller tries again
    return True
