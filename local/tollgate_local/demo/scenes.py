"""The scenes. Each is a few commands that a person would type, and checks what a person would look at."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tollgate_local.demo.kubectl import DemoError, Kubectl
from tollgate_local.demo.live import Watcher
from tollgate_local.demo.show import Screen


@dataclass(frozen=True, slots=True)
class Stage:
    """What every scene works with."""

    kubectl: Kubectl
    watcher: Watcher
    screen: Screen
    examples: Path
    models: Path

    def apply(self, name: str) -> None:
        """Applies one file of examples/cluster, showing the command."""
        path = self.examples / "cluster" / name
        self.screen.command(f"kubectl apply -f examples/cluster/{name}")
        self.screen.say(self.kubectl.apply(path.read_text()).rstrip())

    def follow(self, name: str, *phases: str, seconds: float = 600) -> dict[str, Any]:
        """Shows the run live until it is in one of these phases."""

        def there(run: dict[str, Any]) -> bool:
            return phase_of(run) in phases

        with self.screen.live() as show:
            return self.watcher.wait("trainingrun", name, there, seconds, show)

    def table(self, *arguments: str) -> None:
        """`kubectl get` as a person sees it."""
        self.screen.command(f"kubectl get {' '.join(arguments)}")
        self.screen.say(self.kubectl.run("get", *arguments).rstrip())


def phase_of(run: dict[str, Any]) -> str:
    """status.phase of this generation, or Pending while the operator has not seen it."""
    status = run.get("status", {})
    if status.get("observedGeneration", 0) < run["metadata"].get("generation", 1):
        return "Pending"
    return str(status.get("phase", "Pending"))


def must(claim: bool, text: str, run: dict[str, Any]) -> None:
    """A claim of the demo that has to be true of the run. Raises: DemoError with the run's message."""
    if not claim:
        status = run.get("status", {})
        raise DemoError(f"{text}; it says: {status.get('phase')}: {status.get('message')}")


def train_and_promote(stage: Stage) -> None:
    """From `kubectl apply` to a promoted model."""
    stage.screen.title(1, "a run is trained, judged and promoted")
    stage.screen.say(
        "One file asks for a model: what to train on, where, for how much at most, and which policy judges it."
    )
    stage.apply("policy.yaml")
    stage.apply("run.yaml")
    run = stage.follow("stdlib-qa", "Succeeded", "Failed", "Stopped")
    must(phase_of(run) == "Succeeded", "the run did not succeed", run)

    def judged(seen: dict[str, Any]) -> bool:
        return bool(seen["status"].get("gates"))

    run = stage.watcher.wait("trainingrun", "stdlib-qa", judged, 60, lambda _: None)
    stage.table("trainingruns")
    stage.screen.verdicts(run)

    def promoted(policy: dict[str, Any]) -> bool:
        held = {s["name"]: s.get("holder", {}) for s in policy.get("status", {}).get("stages", [])}
        return bool(held.get("staging", {}).get("run") == "stdlib-qa")

    stage.watcher.wait("promotionpolicy", "stdlib-models", promoted, 60, lambda _: None)
    stage.screen.say("The label tollgate.dev/promote-to: staging asked, the evidence allowed. Consumers read this:")
    stage.screen.command("kubectl get configmap model-stdlib-models-staging -o jsonpath={.data}")
    data = stage.kubectl.object("configmap", "model-stdlib-models-staging")["data"]
    for key, value in sorted(data.items()):
        stage.screen.say(f"  {key}: {value}")


def hold_the_cap(stage: Stage) -> None:
    """A run whose cap is too small is stopped in time, and goes on when the cap is raised."""
    stage.screen.title(2, "a cap that is too small holds, and can be raised")
    stage.apply("run-capped.yaml")
    run = stage.follow("stdlib-capped", "Stopped", "Succeeded", "Failed")
    must(phase_of(run) == "Stopped", "the run was not stopped", run)
    cost = run["status"]["cost"]
    stage.table("trainingruns")
    must(Decimal(cost["spentUSD"]) <= Decimal(cost["limitUSD"]), "it spent more than its cap", run)
    checkpoint = run["status"].get("checkpoint")
    must(checkpoint is not None, "it was stopped without a checkpoint", run)
    step = checkpoint["step"]
    stage.screen.say(
        f"Stopped by {run['status']['attempts'][-1]['stopReason']} at {cost['spentUSD']} of {cost['limitUSD']} USD, "
        f"with a checkpoint of step {step}. More money takes it from there:"
    )
    patch = '{"spec":{"limits":{"maxCostUSD":"20"}}}'
    stage.screen.command(f"kubectl patch trainingrun stdlib-capped --type merge -p '{patch}'")
    stage.kubectl.run("patch", "trainingrun", "stdlib-capped", "--type", "merge", "-p", patch)
    run = stage.follow("stdlib-capped", "Succeeded", "Failed")
    must(phase_of(run) == "Succeeded", "it did not go on to the end", run)
    stage.screen.attempts(run)


def refuse_bad_input(stage: Stage) -> None:
    """A broken manifest costs nothing and says what to mend."""
    stage.screen.title(3, "a broken manifest is refused, with the fix")
    stage.apply("run-broken.yaml")
    run = stage.follow("stdlib-broken", "Failed", seconds=60)
    stage.screen.say(f"  {run['status']['message']}")
    must("learning_rat" in run["status"]["message"], "the message does not name the field", run)


def survive_a_lost_worker(stage: Stage) -> None:
    """Two pods train as one; one is lost; both start again from the newest checkpoint."""
    stage.screen.title(4, "two pods train one model, one of them is killed")
    stage.apply("run-two-pods.yaml")

    def saved(run: dict[str, Any]) -> bool:
        return (run.get("status", {}).get("progress") or {}).get("step", 0) >= 1 or phase_of(run) in (
            "Failed",
            "Succeeded",
        )

    with stage.screen.live() as show:
        run = stage.watcher.wait("trainingrun", "stdlib-two-pods", saved, 300, show)
    must(phase_of(run) not in ("Failed", "Succeeded"), "the run was over before a pod could be lost", run)
    pods = stage.kubectl.run("get", "pods", "-l", "tollgate.dev/run=stdlib-two-pods", "-o", "name").split()
    victim = sorted(pods)[-1]
    stage.screen.command(f"kubectl delete {victim}")
    stage.kubectl.run("delete", victim, "--wait=false")
    run = stage.follow("stdlib-two-pods", "Succeeded", "Failed")
    must(phase_of(run) == "Succeeded", "the gang did not come back", run)
    must(len(run["status"]["attempts"]) >= 2, "no second attempt was made", run)
    stage.screen.attempts(run)


SCENES = (train_and_promote, hold_the_cap, refuse_bad_input, survive_a_lost_worker)
