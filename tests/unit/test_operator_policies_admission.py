"""Each bad input gets a condition whose message says where it stands and how to mend it."""

from __future__ import annotations

from typing import Any

import pytest

from operator_api_server import START, stamp
from operator_process import CLAIMS, NAMESPACE, RUN, Process, apply, manifest, policy, profile, spec, world
from tollgate.api.training_run import Phase, TrainingRunStatus

OUTPUT = {"dataset": {"claimName": "datasets"}, "output": {"claimName": "models", "path": "../other"}}
NO_PRICE = {"pricePerNodeHourUSD": None}


async def looked_at(run: dict[str, Any], **options: Any) -> tuple[TrainingRunStatus, Process]:
    """The status after the operator has seen the run."""
    operator = Process(world(run), **options)
    for _ in range(3):
        await operator.second()
    return operator.status, operator


REFUSED: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("no limit at all", {"limits": {}}, "LimitRequired", ["spec.limits.maxCostUSD", "resources.max_budget_usd"]),
    ("unknown profile", {"compute": {"profile": "h100"}}, "ProfileUnknown", ["h100", "there are: cpu"]),
    (
        "GPUs on a CPU profile",
        {"compute": {"profile": "cpu", "gpusPerNode": 8}},
        "InvalidCompute",
        ["gpusPerNode is 8"],
    ),
    ("a path out of the claim", {"storage": OUTPUT}, "InvalidPath", ["spec.storage.output.path", "../other"]),
    ("unknown policy", {"policyRef": {"name": "none"}}, "PolicyUnknown", ["spec.policyRef.name", "none"]),
    (
        "unknown baseline",
        {"evaluation": {"baseline": {"runName": "older"}}, "limits": {"maxCostUSD": "99"}},
        "BaselineUnknown",
        ["older"],
    ),
    (
        "unknown profile of the evaluation",
        {"evaluation": {"profile": "l4"}},
        "ProfileUnknown",
        ["spec.evaluation.profile", "l4"],
    ),
    (
        "a stop margin as long as the runtime",
        {"limits": {"maxCostUSD": "1", "maxRuntime": "5m", "stopMargin": "5m"}},
        "InvalidLimits",
        ["spec.limits.stopMargin"],
    ),
]


@pytest.mark.parametrize(("name", "change", "reason", "parts"), REFUSED, ids=[row[0] for row in REFUSED])
async def test_is_refused_with_the_fix(name: str, change: dict[str, Any], reason: str, parts: list[str]) -> None:
    status, operator = await looked_at(spec(**change))
    accepted = next(c for c in status.conditions if c.type == "Accepted")
    assert (accepted.status, accepted.reason) == ("False", reason)
    assert status.phase is Phase.PENDING
    for part in parts:
        assert part in accepted.message
    assert not list(operator.world.of("jobs"))
    before = len(operator.world.writes)
    for _ in range(150):
        await operator.second()
    assert len(operator.world.writes) == before, "a refusal is written once"


async def test_a_broken_manifest_fails_for_good_and_the_message_names_the_field() -> None:
    status, _ = await looked_at(spec(manifest=manifest(hyperparameters={"learning_rte": 0.1})))
    assert status.phase is Phase.FAILED
    conditions = {c.type: c for c in status.conditions}
    assert conditions["Accepted"].status == "False"
    assert conditions["Failed"].status == "True"
    assert "hyperparameters.learning_rte" in conditions["Failed"].message
    assert "learning_rate" in conditions["Failed"].message


async def test_a_manifest_of_more_than_32_kib_is_refused() -> None:
    status, _ = await looked_at(spec(manifest=manifest(description="x" * 33_000)))
    assert status.phase is Phase.FAILED
    assert "ManifestRefused" in status.message


async def test_an_unknown_price_is_refused_unless_the_run_says_otherwise() -> None:
    unpriced = (profile(pricePerNodeHourUSD=None),)
    status, _ = await looked_at(spec(), profiles=unpriced)
    accepted = {c.type: c for c in status.conditions}
    assert accepted["Accepted"].reason == "PriceUnknown"
    assert accepted["PriceKnown"].status == "False"
    assert "unknownPrice" in accepted["Accepted"].message
    hours = spec(limits={"maxCostUSD": "1", "maxRuntime": "10m", "unknownPrice": "HoursOnly"})
    status, operator = await looked_at(hours, profiles=unpriced)
    assert list(operator.world.of("jobs"))
    assert {c.type: c.status for c in status.conditions}["PriceKnown"] == "False"


async def test_one_node_claims_do_not_carry_two_nodes() -> None:
    operator = Process(world(spec(compute={"profile": "cpu", "nodes": 2})))
    operator.world.change(f"{CLAIMS}/models", {"spec": {"accessModes": ["ReadWriteOnce"]}})
    await operator.second()
    assert "ClaimNotShared" in operator.status.message
    assert "ReadWriteMany" in operator.status.message


@pytest.mark.parametrize("uid", ["ffffffff-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000000"])
async def test_the_first_accepted_of_two_runs_on_one_output_folder_keeps_it(uid: str) -> None:
    """Also when the second one was created in the same second, and its uid sorts before or after."""
    operator = Process(world(spec()))
    await operator.until(lambda s: s.phase is Phase.RUNNING)
    newer = {"metadata": {"name": "second", "namespace": NAMESPACE, "labels": {}}, "spec": spec()}
    newer["spec"]["storage"]["output"]["path"] = "./counsel-lora/"
    path = f"{RUN.rsplit('/', 1)[0]}/second"
    operator.world.put(path, newer, new=True)
    created = operator.world.objects[RUN]["metadata"]["creationTimestamp"]
    operator.world.change(path, {"metadata": {"uid": uid, "creationTimestamp": created}})
    operator.watch()
    from tollgate_operator.facts import Key

    await operator.reconciler.reconcile(Key("TrainingRun", NAMESPACE, "second"))
    status = TrainingRunStatus.model_validate(operator.world.objects[path]["status"])
    assert "OutputInUse" in status.message
    assert "counsel-lora, which came first" in status.message
    await operator.until(lambda s: s.phase is Phase.SUCCEEDED)
    await operator.reconciler.reconcile(Key("TrainingRun", NAMESPACE, "second"))
    status = TrainingRunStatus.model_validate(operator.world.objects[path]["status"])
    assert status.attempt == 1, "the first one is over, so the second may try, and the trainer guards what is there"


async def test_the_profile_follows_from_the_compute_target_when_none_is_named() -> None:
    unnamed = spec()
    del unnamed["compute"]
    _, operator = await looked_at(unnamed)
    assert list(operator.world.of("jobs"))
    two = (profile("cpu"), profile("cpu-large"))
    status, _ = await looked_at(unnamed, profiles=two)
    assert "several are (cpu, cpu-large)" in status.message


async def test_a_policy_that_asks_for_approvals_is_refused_aloud() -> None:
    status, _ = await looked_at(spec(policyRef={"name": "care"}), policy=policy(approvals={"min": 1}))
    assert "ApprovalsUnsupported" in status.message
    assert "staging" in status.message


async def test_a_changed_manifest_starts_nothing_more() -> None:
    operator = Process(world(spec(), total_steps=60))
    await operator.until(lambda s: s.phase is Phase.RUNNING)
    operator.world.change(RUN, {"spec": {"manifest": {"description": "slipped past the admission policy"}}})
    victim = next(name for name, _ in operator.world.of("pods"))
    operator.world.kill_now(victim)
    for _ in range(60):
        await operator.second()
    assert "ManifestChanged" in operator.status.message
    assert len([1 for verb, path in operator.world.writes if verb == "create" and path.endswith("/jobs")]) == 1


async def test_what_was_refused_is_admitted_when_it_was_mended() -> None:
    status, operator = await looked_at(spec(limits={}))
    assert status.phase is Phase.PENDING
    operator.world.change(RUN, {"spec": {"limits": {"maxCostUSD": "5"}}})
    status = await operator.until(lambda s: s.phase is Phase.SUCCEEDED)
    assert {c.type: c.status for c in status.conditions}["Accepted"] == "True"


async def test_a_pod_of_a_deleted_run_that_still_writes_is_waited_for() -> None:
    operator = Process(world(spec(), total_steps=400))
    await operator.until(lambda s: s.phase is Phase.RUNNING)
    operator.world.remove(RUN)
    apply(operator.world, spec())
    for _ in range(10):
        await operator.second()
    assert "waits until pod" in operator.status.message
    job = next(name for name, _ in operator.world.of("jobs"))
    operator.world.mark_deleted(job)
    await operator.until(lambda s: s.attempt == 1)
    order = next(body for _, body in operator.world.of("jobs"))
    env = {e["name"]: e.get("value") for e in order["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["TOLLGATE_TAKE_OVER"] == "true"


async def test_an_unreadable_status_is_left_alone() -> None:
    operator = Process(world(spec()))
    operator.world.change(RUN, {"status": {"attempts": [{"number": "many"}]}})
    before = len(operator.world.writes)
    for _ in range(5):
        await operator.second()
    assert len(operator.world.writes) == before


def test_times_are_written_as_kubernetes_writes_them() -> None:
    assert stamp(START) == "2026-01-01T00:00:00Z"
