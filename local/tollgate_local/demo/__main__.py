"""`make demo`."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from tollgate_local.cluster import Cluster, NodeShape, down, up
from tollgate_local.demo.install import Installed, install
from tollgate_local.demo.live import Watcher
from tollgate_local.demo.scenes import SCENES, Stage
from tollgate_local.demo.show import Screen
from tollgate_local.errors import LocalError
from tollgate_local.settings import default_state

CHECKOUT = Path(__file__).resolve().parents[3]
NAMESPACE = "demo"

CHOICES = """\
The demo brings a Kubernetes of its own: control plane, kubelet and container runtime, on this machine. That needs
Linux and root. What you can do here:
  sudo make demo                  the whole demo
  tollgate run FILE               train, evaluate and judge on this machine, without a cluster (docs/how-to/laptop.md)
  helm install ... helm/tollgate  put Tollgate on a cluster that you have (docs/how-to/install.md)"""


def main() -> int:
    """Runs the scenes; whatever ends them, the cluster is taken down unless --keep says otherwise."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the cluster up afterwards, to look around")
    parser.add_argument("--scene", type=int, action="append", choices=range(1, len(SCENES) + 1), help="only this scene")
    options = parser.parse_args()
    console = Console(soft_wrap=not sys.stdout.isatty())
    if sys.platform != "linux" or os.geteuid() != 0:
        console.print(CHOICES, highlight=False)
        return 1
    # A `kill` of the demo takes the same way out as Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    # Networks of its own, so that a cluster of `tollgate local up` can stay.
    settings = NodeShape(
        state=default_state("demo"),
        fresh=True,
        bridge="tgdemo0",
        net="10.252.0",
        services="10.108",
        pods="10.232",
        cgroup="tollgate-demo",
    )

    def say(text: str) -> None:
        console.print(f"[dim]{text}[/dim]", highlight=False)

    keep = options.keep
    began = time.monotonic()
    try:
        make_data(say)
        cluster = up(settings, say=say)
        folder = CHECKOUT / "runs" / "demo"
        installed = install(cluster, CHECKOUT, folder, NAMESPACE, say)
        say(f"ready after {time.monotonic() - began:.0f} s")
        screen = Screen(console)
        stage = Stage(
            installed.kubectl, Watcher(cluster.api, NAMESPACE), screen, CHECKOUT / "examples", installed.volumes.models
        )
        for number, scene in enumerate(SCENES, start=1):
            if not options.scene or number in options.scene:
                scene(stage)
        farewell(screen, cluster, installed, keep)
        return 0
    except LocalError as error:
        console.print(f"[red]{type(error).__name__}[/red]: {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        keep = False
        return 130
    finally:
        if not keep:
            down(settings, say=say)


def make_data(say: object) -> None:
    """Questions and answers from the docstrings of the standard library; text that nobody here wrote."""
    if not (CHECKOUT / "examples/data").is_dir():
        assert callable(say)
        say("making the examples' data from the docstrings of the Python standard library (seconds)")
        subprocess.run(
            [sys.executable, str(CHECKOUT / "examples/make_stdlib_qa.py")], check=True, stdout=subprocess.DEVNULL
        )


def farewell(screen: Screen, cluster: Cluster, installed: Installed, keep: bool) -> None:
    """Where everything lies and what to do next."""
    models = installed.volumes.models
    screen.console.rule("What is left to look at", align="left")
    for what, path in (
        ("model", "stdlib-qa/model"),
        ("evidence", "stdlib-qa/evaluation/evidence.json"),
        ("report", "stdlib-qa/report/index.html"),
    ):
        screen.say(f"  {what:9} {models / path}")
    if keep:
        screen.say(
            f"The cluster stays up:\n  export KUBECONFIG={cluster.kubeconfig}\n"
            f"  export PATH=$PATH:{cluster.bin('kubectl').parent}"
        )
        for command in (
            "kubectl -n demo get trainingruns -o wide",
            "kubectl -n demo describe trainingrun stdlib-qa",
            "kubectl -n demo get promotionpolicy stdlib-models -o yaml",
            "kubectl -n tollgate-system logs deployment/tollgate",
        ):
            screen.say(f"  {command}")
        screen.say(f"and this takes it down:\n  tollgate local down --state {cluster.state}")
    else:
        screen.say("  make demo ARGS=--keep leaves the cluster up")


if __name__ == "__main__":
    raise SystemExit(main())
