"""Taking a cluster down, whatever state it is in, and looking whether anything of it is left."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tollgate_local import controlplane, host, node, processes
from tollgate_local.cache import locked
from tollgate_local.errors import LeftBehindError, StartError
from tollgate_local.kernel import Machine
from tollgate_local.progress import Say
from tollgate_local.settings import NodeShape, Shape
from tollgate_local.state import StateFolder

__all__ = ["clear_orphan", "leftovers", "take_down"]


def take_down(settings: Shape, folder: StateFolder) -> None:
    """End every process of the cluster and undo what it changed on the machine.

    Works from what is there, not from what should be there: after a killed `up`, a crash or a reboot as well.
    Raises: LeftBehindError that lists what could not be removed.
    """
    records = processes.read_records(folder.root)
    for name in sorted(records, key=lambda name: not name.startswith("node")):  # nodes first: pods need no goodbye
        if name != "etcd":
            (node.stop if name.startswith("node") else controlplane.stop)(records[name])
    if "etcd" in records:
        controlplane.stop(records["etcd"])
    for process in processes.marked(folder.root):  # started, but `up` was killed before it wrote the record
        processes.end(process)
    left: list[str] = []
    if isinstance(settings, NodeShape):
        host.remove_link(settings)
        left += [f"cgroup {path}" for path in host.remove_cgroups(settings)]
        left += [f"kernel setting {name}" for name in Machine().release(folder.sysctls)]
    left += leftovers(settings, folder)
    if left:
        raise LeftBehindError(
            f"the cluster in {folder.root} was taken down, but this is still there: {'; '.join(dict.fromkeys(left))}"
        )
    for path in folder.run.glob("*.json"):
        path.unlink()
    folder.forget()


def clear_orphan(settings: NodeShape, say: Say) -> None:
    """Take down what holds this bridge's name if nobody lives there: the processes were killed, the links stayed.

    Raises: StartError when a cluster with another state folder runs on that bridge.
    """
    owner = host.owner(settings)
    if owner is None:
        return
    folder = StateFolder(owner)
    with contextlib.ExitStack() as stack:
        if owner.exists() and owner != settings.state:  # its `up` may be on the way; our own folder's lock is held
            stack.enter_context(locked(folder.lock, say, f"starting or stopping the cluster in {owner}"))
        if any(True for _ in processes.marked(owner)):
            raise StartError(
                f"the bridge {settings.bridge} belongs to the cluster that runs in {owner}: take that down (`tollgate "
                f"local down --state {owner}`) or set TOLLGATE_LOCAL_BRIDGE to another name"
            )
        say(f"removing what a cluster in {owner} left behind: no process of it lives any more")
        record = folder.read_record()
        take_down(record.settings if record else settings, folder)


def leftovers(settings: Shape, folder: StateFolder) -> list[str]:
    """What of this cluster exists on the machine: processes, mounts, interfaces, routes, cgroups, kernel settings."""
    found = [f"process {process.pid} ({process.name})" for process in processes.marked(folder.root)]
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    found += [f"mount {point}" for point in mounts if Path(point).is_relative_to(folder.root)]
    if isinstance(settings, NodeShape):
        found += [f"interface {name}" for name in host.interfaces(settings)]
        found += [f"route {route}" for route in host.own_routes(settings)]
        found += [f"cgroup {path}" for path in host.cgroups(settings)]
        if folder.sysctls.exists():
            found.append(f"kernel settings that are still to be put back ({folder.sysctls})")
    return found
