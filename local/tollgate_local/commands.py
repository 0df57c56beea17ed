"""`tollgate local`: up, status, down, env. Only click is imported here; each command imports what it needs."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tollgate_cli.helping import ending
from tollgate_cli.options import form

if TYPE_CHECKING:
    from tollgate_local.cluster import Status
    from tollgate_local.settings import Shape

__all__ = ["local"]

_SHAPES = click.Choice(["node", "loopback"])
_STATE = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Its state folder.  [default: $TOLLGATE_LOCAL_STATE/SHAPE or ~/.local/state/tollgate/SHAPE]",
)
_EITHER = click.option("--shape", type=_SHAPES, help="Which cluster.  [default: the one that runs]")


@click.group(
    epilog="""\b
Examples:
  sudo tollgate local up                # a real node: pods are processes
  tollgate local up --shape loopback    # no root: pods on fake nodes (kwok)
  eval "$(tollgate local env)"          # KUBECONFIG and PATH for this shell
  tollgate local status -o json
  tollgate local down --purge
\b
Environment:
  TOLLGATE_LOCAL_NODES                    how many nodes
  TOLLGATE_LOCAL_BRIDGE, _NET, _SERVICES, _PODS, _PORT, _CGROUP
                                          names and networks of the node
                                          shape, when they collide with yours
  TOLLGATE_K8S_BIN                        a folder with ready binaries
  TOLLGATE_CACHE                          where built ones are kept
                                          (default ~/.cache/tollgate)"""
)
def local() -> None:
    """A Kubernetes cluster of your own on this machine.

    The API server, controllers, scheduler, and in the node shape kubelet and container runtime are the real ones,
    built once from pinned sources (8 to 10 minutes on 2 cores); after that `up` takes seconds. Nothing listens beyond
    this machine, and `down` leaves nothing behind.
    """


@local.command(epilog=ending("sudo tollgate local build"))
def build() -> None:
    """Build and install all that clusters need, and start none.

    Minutes the first time on a machine, a second when all is there. `up` does it by itself; this is for those who want
    it done before, such as the tests.
    """
    import os

    from tollgate_local.binaries import ensure_binaries
    from tollgate_local.errors import LocalError
    from tollgate_local.images.project import operator_image, trainer_image
    from tollgate_local.packages import NODE_TOOLS, ensure_tools
    from tollgate_local.pins import LOOPBACK_BINARIES, NODE_BINARIES
    from tollgate_local.progress import to_stderr as say

    try:
        if os.geteuid() != 0:
            ensure_binaries(LOOPBACK_BINARIES, say)
            say("without root only the loopback shape can run here; the node shape's parts were left out")
            return
        ensure_tools(NODE_TOOLS, say)
        ensure_binaries(dict.fromkeys((*NODE_BINARIES, *LOOPBACK_BINARIES, "helm")), say)
        trainer_image(say)
        operator_image(say)
    except LocalError as error:
        raise click.ClickException(str(error)) from error


@local.command(epilog=ending("sudo tollgate local up", "tollgate local up --shape loopback    # no root, no real pods"))
@click.option("--shape", type=_SHAPES, default="node", show_default=True, help="Real node, or control plane only.")
@click.option("--audit", is_flag=True, help="Log every API request, one JSON line each.")
@click.option("--fresh", is_flag=True, help="Forget the objects of the last time.")
@_STATE
def up(shape: str, audit: bool, fresh: bool, state: Path | None) -> None:
    """Start the cluster; one that runs already stays as it is.

    It goes on with the objects of the last time, as a machine does after a reboot, unless you say --fresh.
    Ctrl-C takes down what was started.
    """
    import dataclasses

    from tollgate_local import cluster
    from tollgate_local.errors import LocalError

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill cleans up as Ctrl-C does
    try:
        settings = dataclasses.replace(cluster.from_environment(shape, state), audit=audit, fresh=fresh)
        running = cluster.up(settings)
        kubectl = running.bin("kubectl")
    except LocalError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        raise click.ClickException("stopped; nothing was left running") from error
    click.echo(f"kubectl: {kubectl}")
    click.echo(f"export KUBECONFIG={shlex.quote(str(running.kubeconfig))}")


@local.command(epilog=ending("tollgate local status -o json"))
@_EITHER
@_STATE
@form("text", "json")
def status(shape: str | None, state: Path | None, form: str) -> None:
    """Say what runs.

    Exit code 1 when no cluster is up, or a server of it is dead.
    """
    _, found = _find(shape, state)
    if form == "json":
        values = {
            "shape": found.shape,
            "state": str(found.state),
            "running": found.running,
            "server": found.server,
            "kubeconfig": None if found.kubeconfig is None else str(found.kubeconfig),
            "servers": dict(found.servers),
        }
        click.echo(json.dumps(values, indent=1))
    elif found.server is None:
        click.echo(f"no cluster in {found.state}; `tollgate local up --shape {found.shape}` starts one")
    else:
        dead = [name for name, alive in found.servers.items() if not alive]
        word = "up" if found.running else "not ready" if not dead else f"broken, dead: {', '.join(dead)}"
        click.echo(f"{found.shape}: {word}\nserver: {found.server}\nstate: {found.state}")
    if not found.running:
        raise SystemExit(1)


@local.command(epilog=ending("tollgate local down", "tollgate local down --purge"))
@_EITHER
@_STATE
@click.option("--purge", is_flag=True, help="Remove its state (objects, images, logs) as well.")
def down(shape: str | None, state: Path | None, purge: bool) -> None:
    """Take the cluster down, and check that nothing is left."""
    from tollgate_local import cluster
    from tollgate_local.errors import LocalError

    settings, _ = _find(shape, state)
    try:
        if not cluster.down(settings, purge=purge, say=click.echo):
            click.echo(f"there was no cluster up in {settings.state}")
    except LocalError as error:
        raise click.ClickException(str(error)) from error


@local.command(epilog=ending('eval "$(tollgate local env)"'))
@_EITHER
@_STATE
def env(shape: str | None, state: Path | None) -> None:
    """Print shell lines that point kubectl at the cluster."""
    from tollgate_local.binaries import ensure_binaries
    from tollgate_local.errors import LocalError
    from tollgate_local.progress import to_stderr

    _, found = _find(shape, state)
    if found.kubeconfig is None:
        raise click.ClickException(f"no cluster in {found.state}; `tollgate local up` starts one")
    try:
        paths = ensure_binaries(["kubectl"], to_stderr)
    except LocalError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"export KUBECONFIG={shlex.quote(str(found.kubeconfig))}")
    click.echo(f"export PATH={shlex.quote(str(paths['kubectl'].parent))}:$PATH")


def _find(shape: str | None, state: Path | None) -> tuple[Shape, Status]:
    """The cluster that is meant: the given shape, else the one that is up, else the node shape."""
    from tollgate_local import cluster
    from tollgate_local.errors import LocalError

    try:
        candidates = [cluster.from_environment(name, state) for name in ([shape] if shape else ["node", "loopback"])]
        found = [(settings, cluster.status(settings)) for settings in candidates]
    except LocalError as error:
        raise click.ClickException(str(error)) from error
    return next((pair for pair in found if pair[1].server is not None), found[0])
