"""Laws of whole runs: whatever dies at whatever moment, the end is the same, and one gang writes; no cent is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from operator_process import PRICE, RUN, Process, manifest, policy, spec, world
from operator_world import Crash, World
from tollgate.api.training_run import Phase, TrainingRunStatus
from tollgate.contract import LABEL_ATTEMPT, LABEL_ROLE


@dataclass(frozen=True)
class Fault:
    """What goes wrong in that second."""

    second: int
    kind: str
    number: int
    after: bool


FAULTS = st.lists(
    st.builds(
        Fault,
        second=st.integers(0, 45),
        kind=st.sampled_from(
            ["crash", "restart", "kill", "evict", "delete pod", "delete job", "suspend job", "conflict"]
        ),
        number=st.integers(0, 3),
        after=st.booleans(),
    ),
    max_size=6,
)
CRASHES = st.lists(
    st.builds(Fault, second=st.integers(0, 60), kind=st.just("crash"), number=st.integers(0, 2), after=st.booleans()),
    max_size=12,
)


def strike(operator: Process, fault: Fault) -> None:
    """The fault happens."""
    outside = operator.world
    pods = [name for name, pod in outside.of("pods") if pod["status"]["phase"] == "Running"]
    jobs = [name for name, _ in outside.of("jobs")]
    match fault.kind:
        case "crash":
            outside.crash = Crash(at=fault.number + 1, after=fault.after)
        case "restart":
            operator.start()
        case "conflict":
            outside.change(RUN, {"metadata": {"annotations": {"touched": str(fault.second)}}})
        case "kill" if pods:
            outside.kill_now(pods[fault.number % len(pods)])
        case "evict" if pods:
            outside.evict(pods[fault.number % len(pods)])
        case "delete pod" if pods:
            outside.mark_deleted(pods[fault.number % len(pods)])
        case "delete job" if jobs:
            outside.mark_deleted(jobs[fault.number % len(jobs)])
        case "suspend job" if jobs and pods:  # one that never ran would wait for whoever suspended it
            outside.change(jobs[-1], {"spec": {"suspend": True}})


def writers(outside: World) -> set[str]:
    """Attempts of which a training process runs and would be let through by the fence."""
    return {
        pod["metadata"]["labels"][LABEL_ATTEMPT]
        for pod in outside.alive()
        if pod["metadata"]["labels"][LABEL_ROLE] == "train"
    }


def run(operator: Process, faults: list[Fault], seconds: int, every: Callable[[Process], None]) -> TrainingRunStatus:
    """The run's end, with these faults on the way."""

    async def live() -> TrainingRunStatus:
        for second in range(seconds):
            for fault in faults:
                if fault.second == second:
                    strike(operator, fault)
            await operator.second()
            every(operator)
            status = operator.status
            if status.phase in (Phase.SUCCEEDED, Phase.FAILED) and second > 60:
                return status
        raise AssertionError(f"no end within {seconds} s: {operator.status.phase} {operator.status.message}")

    return asyncio.run(live())


def one_gang(operator: Process) -> None:
    assert len(writers(operator.world)) <= 1


def within_the_cap(operator: Process) -> None:
    cost = operator.status.cost
    if cost is not None and cost.limit_usd is not None:
        assert operator.world.spent(PRICE) <= cost.limit_usd


@settings(max_examples=60, deadline=None)
@given(faults=CRASHES, nodes=st.integers(1, 2), lossy=st.booleans())
def test_an_operator_that_dies_at_any_write_leaves_no_trace_in_the_end_state(
    faults: list[Fault], nodes: int, lossy: bool
) -> None:
    judged = spec(
        manifest=manifest(evaluation={"enabled": True}),
        compute={"profile": "cpu", "nodes": nodes},
        limits={"maxCostUSD": "50"},
        policyRef={"name": "care"},
    )
    operator = Process(world(judged), policy=policy(), lossy=lossy)
    status = run(operator, faults, 400, one_gang)
    assert status.phase is Phase.SUCCEEDED, status.message
    assert status.attempt == 1, "a death of the operator is no reason for another attempt"
    assert [(g.stage, g.verdict) for g in status.gates] == [("staging", "Passed")]
    creates = [path for verb, path in operator.world.writes if verb == "create" and path.endswith("/jobs")]
    jobs = [name for name, _ in operator.world.of("jobs")]
    assert len(jobs) == 2, jobs
    assert len(creates) <= 2 + operator.crashes
    assert status.cost is not None
    assert status.cost.spent_usd == operator.world.spent(PRICE), "no cent lost, none doubled"
    assert sum((status.cost.by_category or {}).values()) == status.cost.spent_usd


@settings(max_examples=100, deadline=None)
@given(faults=FAULTS, nodes=st.integers(1, 2), lossy=st.booleans())
def test_whatever_happens_to_its_children_a_run_ends_trained_by_one_gang_at_a_time(
    faults: list[Fault], nodes: int, lossy: bool
) -> None:
    operator = Process(
        world(
            spec(compute={"profile": "cpu", "nodes": nodes}, limits={"maxCostUSD": "30"}, restart={"maxFailures": 20})
        ),
        lossy=lossy,
    )
    status = run(operator, faults, 1500, one_gang)
    assert status.phase is Phase.SUCCEEDED, status.message
    assert operator.world.volume.committed == 20
    steps = [step for _, step in operator.world.volume.commits]
    assert steps == sorted(set(steps)), "no step was committed twice, none by an older attempt"
    numbers = [a.number for a in status.attempts]
    assert numbers == sorted(set(numbers))
    assert status.cost is not None
    assert status.cost.spent_usd >= operator.world.spent(PRICE), (
        "what was not seen is charged to its bound, not as nothing"
    )


@settings(max_examples=60, deadline=None)
@given(faults=CRASHES, cap=st.integers(40, 120), away=st.integers(0, 60))
def test_the_cap_holds_with_an_operator_that_dies_or_is_away(faults: list[Fault], cap: int, away: int) -> None:
    operator = Process(world(spec(limits={"maxCostUSD": f"{cap / 100:.2f}"}), total_steps=10_000))

    async def live() -> None:
        for second in range(200):
            for fault in faults:
                if fault.second == second:
                    strike(operator, fault)
            if 10 <= second < 10 + away:
                operator.world.tick()
            else:
                if second == 10 + away:
                    operator.start()
                await operator.second()
            within_the_cap(operator)

    asyncio.run(live())
    status = operator.status
    assert status.phase is Phase.STOPPED, status.message
    assert status.cost is not None
    assert status.cost.spent_usd == operator.world.spent(PRICE) <= cap * 10_000
