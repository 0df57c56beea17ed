"""Runs from apply to their end, over a world of Jobs, pods and a volume: what a user would see."""

from __future__ import annotations

import pytest

from operator_process import CLAIMS, NAME, PRICE, RUN, Process, apply, manifest, policy, spec, world
from operator_world import Crash
from tollgate.api.training_run import AttemptOutcome, EvaluationState, Phase, TrainingRunStatus
from tollgate.contract import FailureClass
from tollgate_operator.kube import Forbidden
from tollgate_operator.reconcile import RefusedError

JUDGED = manifest(evaluation={"enabled": True})
RICH = {"maxCostUSD": "50"}  # half an hour of evaluation is kept back: 18 USD


def terminal(status: TrainingRunStatus) -> bool:
    return status.phase in (Phase.SUCCEEDED, Phase.FAILED)


def at(phase: Phase):
    return lambda status: status.phase is phase


def condition(status: TrainingRunStatus, kind: str) -> str:
    return next(c.status for c in status.conditions if c.type == kind)


def calls(operator: Process, verb: str, ending: str) -> int:
    return sum(1 for v, path in operator.world.writes if v == verb and path.endswith(ending))


async def test_a_run_succeeds_with_one_create_and_at_most_four_status_writes():
    operator = Process(world())
    status = await operator.until(terminal)
    assert status.phase is Phase.SUCCEEDED, status.message
    assert condition(status, "Complete") == "True"
    assert status.model is not None
    assert status.progress is not None
    assert status.progress.step == 20
    assert status.cost is not None
    assert status.cost.spent_usd == operator.world.spent(PRICE)
    assert calls(operator, "create", "/jobs") == 1
    assert calls(operator, "patch", "/status") <= 4


async def test_while_pods_run_spend_and_progress_are_written_together_once_a_minute_and_never_by_time_alone():
    operator = Process(world(total_steps=400))
    await operator.until(at(Phase.RUNNING))
    before = calls(operator, "patch", "/status")
    for _ in range(300):
        await operator.second()
    assert calls(operator, "patch", "/status") - before == 5
    stopped = Process(world(spec(suspend=True)))
    await stopped.until(at(Phase.SUSPENDED))
    before = len(stopped.world.writes)
    for _ in range(300):
        await stopped.second()
    assert len(stopped.world.writes) == before


async def test_a_run_that_costs_too_much_is_stopped_with_a_checkpoint_and_goes_on_when_the_limit_is_raised():
    operator = Process(world(spec(limits={"maxCostUSD": "0.60"}), total_steps=100))
    status = await operator.until(at(Phase.STOPPED))
    assert condition(status, "Stopped") == "True"
    assert condition(status, "WithinBudget") == "False"
    assert status.attempts[0].outcome is AttemptOutcome.STOPPED
    assert status.cost is not None
    assert status.cost.spent_usd <= 600_000
    saved = status.checkpoint
    assert saved is not None
    for _ in range(100):
        await operator.second()
    assert operator.status.phase is Phase.STOPPED, "money that a clean stop left over starts nothing"
    operator.world.change(RUN, {"spec": {"limits": {"maxCostUSD": "5"}}})
    status = await operator.until(terminal)
    assert status.phase is Phase.SUCCEEDED
    assert status.attempt == 2
    assert min(step for attempt, step in operator.world.volume.commits if attempt == 2) > saved.step
    assert status.cost is not None
    assert status.cost.spent_usd == operator.world.spent(PRICE)


async def test_the_launcher_keeps_the_cap_while_the_operator_is_away_and_the_operator_says_so_when_it_is_back():
    operator = Process(world(spec(limits={"maxCostUSD": "0.60"}), total_steps=500))
    await operator.until(at(Phase.RUNNING))
    for _ in range(100):
        operator.world.tick()
    operator.start()
    status = await operator.until(at(Phase.STOPPED))
    assert status.attempts[0].stop_reason == "BudgetExceeded"
    assert status.cost is not None
    assert status.cost.spent_usd == operator.world.spent(PRICE)
    assert status.cost.spent_usd <= 600_000


async def test_a_runtime_limit_stops_and_a_higher_one_lets_go_on():
    operator = Process(
        world(spec(limits={"maxCostUSD": "50", "maxRuntime": "60s", "stopMargin": "5s"}), total_steps=80)
    )
    status = await operator.until(at(Phase.STOPPED))
    assert status.attempts[0].stop_reason == "RuntimeExceeded"
    operator.world.change(RUN, {"spec": {"limits": {"maxRuntime": "10m"}}})
    assert (await operator.until(terminal)).phase is Phase.SUCCEEDED


async def test_a_lower_limit_acts_at_once():
    operator = Process(world(total_steps=500))
    await operator.until(at(Phase.RUNNING))
    for _ in range(60):
        await operator.second()
    operator.world.change(RUN, {"spec": {"limits": {"maxCostUSD": "0.10"}}})
    await operator.second()
    assert operator.status.phase is Phase.STOPPING
    status = await operator.until(at(Phase.STOPPED))
    assert status.cost is not None
    assert status.cost.limit_usd == 100_000


async def test_suspend_stops_with_a_checkpoint_and_resume_starts_the_next_attempt():
    operator = Process(world(total_steps=60))
    await operator.until(at(Phase.RUNNING))
    operator.world.change(RUN, {"spec": {"suspend": True}})
    status = await operator.until(at(Phase.SUSPENDED))
    assert not operator.world.alive()
    assert status.attempts[0].stop_reason == "Suspended"
    operator.world.change(RUN, {"spec": {"suspend": False}})
    status = await operator.until(terminal)
    assert (status.phase, status.attempt) == (Phase.SUCCEEDED, 2)


async def test_an_evaluation_follows_on_its_own_job_after_the_training_pods_are_gone_and_is_judged():
    operator = Process(world(spec(manifest=JUDGED, limits=RICH, policyRef={"name": "care"})), policy=policy())
    together = 0
    for _ in range(200):
        await operator.second()
        roles = {pod["metadata"]["labels"]["tollgate.dev/role"] for pod in operator.world.alive()}
        together = max(together, len(roles))
        if terminal(operator.status):
            break
    status = operator.status
    assert status.phase is Phase.SUCCEEDED, status.message
    assert together == 1
    assert status.evaluation is not None
    assert status.evaluation.state is EvaluationState.SUCCEEDED
    assert [(g.stage, g.verdict) for g in status.gates] == [("staging", "Passed")]
    assert [(a.role, a.number) for a in status.attempts] == [("train", 1), ("evaluate", 1)]
    assert status.cost is not None
    assert (status.cost.by_category or {}).get("evaluation", 0) > 0
    assert status.cost.spent_usd == operator.world.spent(PRICE)
    assert calls(operator, "patch", "/status") <= 6


async def test_a_run_that_spends_its_whole_budget_can_still_be_judged():
    run = spec(
        manifest=JUDGED, limits={"maxCostUSD": "0.90"}, evaluation={"enabled": True, "timeout": "40s"}, suspend=False
    )
    operator = Process(world(run, total_steps=30))
    status = await operator.until(terminal)
    assert status.evaluation is not None
    assert status.evaluation.state is EvaluationState.SUCCEEDED
    assert status.cost is not None
    assert status.cost.spent_usd <= 900_000


async def test_a_failed_evaluation_leaves_the_run_succeeded_and_its_gates_inconclusive():
    operator = Process(world(spec(manifest=JUDGED, limits=RICH, policyRef={"name": "care"})), policy=policy())
    operator.world.endings["evaluate", 1, 0] = {
        "after": 1,
        "code": 70,
        "words": {"outcome": "failed", "reason": "Exception", "error": {"message": "no scorer"}},
    }
    status = await operator.until(terminal)
    assert status.phase is Phase.SUCCEEDED
    assert status.evaluation is not None
    assert "no scorer" in status.evaluation.message
    assert [g.verdict for g in status.gates] == ["Inconclusive"]


async def test_a_changed_policy_judges_a_finished_run_anew():
    operator = Process(world(spec(manifest=JUDGED, limits=RICH, policyRef={"name": "care"})), policy=policy())
    first = await operator.until(terminal)
    operator.policy = policy(checks=[{"metric": "quality", "op": ">=", "threshold": 0.95}])
    operator.start()
    await operator.work()
    assert [g.verdict for g in operator.status.gates] == ["Failed"]
    assert operator.status.gates[0].policy_digest != first.gates[0].policy_digest
    assert "staging Failed" in operator.status.message
    told = {c.type: c.message for c in operator.status.conditions}
    assert told["Finished"] == told["Complete"] == operator.status.message


async def test_one_killed_pod_of_a_gang_stops_the_other_at_once_and_the_next_attempt_resumes():
    operator = Process(world(spec(compute={"profile": "cpu", "nodes": 2}), total_steps=40))
    await operator.until(at(Phase.RUNNING))
    victim = next(name for name, pod in operator.world.of("pods") if pod["metadata"]["name"].split("-")[-2] == "1")
    operator.world.kill_now(victim)
    await operator.work()
    job = next(operator.world.of("jobs"))[1]
    assert job["spec"]["activeDeadlineSeconds"] == 1
    assert job["metadata"]["annotations"]["tollgate.dev/stop-reason"] == "GangMemberLost"
    status = await operator.until(terminal)
    lost = status.attempts[0]
    assert lost.failure is not None
    assert (lost.failure.class_, lost.failure.reason) == (FailureClass.DISRUPTION, "PodDeleted")
    assert lost.failure.pod is not None
    assert "-1-" in lost.failure.pod
    assert (status.phase, status.attempt) == (Phase.SUCCEEDED, 2)


async def test_a_user_error_fails_at_once_with_the_trainers_own_words():
    operator = Process(world())
    operator.world.endings["train", 1, 0] = {
        "after": 1,
        "code": 64,
        "words": {
            "outcome": "failed",
            "reason": "DatasetRefused",
            "error": {"message": "sha256 differs", "field": "dataset.sha256"},
        },
    }
    status = await operator.until(terminal)
    assert status.phase is Phase.FAILED
    assert len(status.attempts) == 1
    failure = status.attempts[0].failure
    assert failure is not None
    assert (failure.class_, failure.exit_code) == (FailureClass.USER, 64)
    assert "dataset.sha256: sha256 differs" in status.message


async def test_failures_of_the_program_are_tried_again_until_max_failures():
    operator = Process(world(spec(restart={"maxFailures": 1})))
    for number in (1, 2):
        operator.world.endings["train", number, 0] = {
            "after": 2,
            "code": 70,
            "words": {"outcome": "failed", "reason": "Exception", "error": {"message": "boom", "rank": 0}},
        }
    status = await operator.until(terminal)
    assert status.phase is Phase.FAILED
    assert len(status.attempts) == 2
    assert "maxFailures is 1" in status.message
    assert "boom" in status.message


async def test_two_out_of_memory_ends_are_planned_anew_and_the_third_says_what_to_do():
    operator = Process(world(spec(restart={"maxFailures": 0})))
    for number in (1, 2, 3):
        operator.world.endings["train", number, 0] = {
            "after": 2,
            "code": 70,
            "words": {"outcome": "failed", "reason": "OutOfMemory", "error": {"message": "peak 79 GB"}},
        }
    status = await operator.until(terminal)
    assert status.phase is Phase.FAILED
    assert len(status.attempts) == 3
    assert "halved 2 times" in status.message
    replans = [
        next(
            e["value"]
            for e in job["spec"]["template"]["spec"]["containers"][0]["env"]
            if e["name"] == "TOLLGATE_REPLAN"
        )
        for _, job in operator.world.of("jobs")
    ]
    assert sorted(replans) == ["0", "1", "2"]


async def test_a_gang_that_gets_no_nodes_is_given_up_and_tried_again_later():
    run = spec(restart={"schedulingTimeout": "20s", "maxDisruptions": 1})
    operator = Process(world(run, schedule_after=10_000))
    status = await operator.until(terminal, seconds=900)
    assert status.phase is Phase.FAILED
    assert [a.failure.class_ for a in status.attempts if a.failure] == [FailureClass.UNSCHEDULABLE] * 2
    assert status.cost is not None
    assert status.cost.spent_usd == 0


async def test_a_job_deleted_under_the_operator_is_a_lost_attempt_and_its_name_is_never_used_again():
    operator = Process(world())
    await operator.until(at(Phase.RUNNING))
    job = next(name for name, _ in operator.world.of("jobs"))
    operator.world.mark_deleted(job)
    status = await operator.until(terminal)
    assert (status.phase, status.attempt) == (Phase.SUCCEEDED, 2)
    assert status.attempts[0].outcome is AttemptOutcome.LOST
    assert [path for verb, path in operator.world.writes if verb == "create" and path.endswith("/jobs")] == [
        "/apis/batch/v1/namespaces/research/jobs"
    ] * 2
    assert status.cost is not None
    assert status.cost.spent_usd == operator.world.spent(PRICE)


async def test_a_run_deleted_and_applied_again_adopts_its_finished_output():
    operator = Process(world())
    first = await operator.until(terminal)
    for name in [RUN, *(n for n, _ in operator.world.of("jobs")), *(n for n, _ in operator.world.of("pods"))]:
        operator.world.remove(name)
    commits = list(operator.world.volume.commits)
    apply(operator.world, spec())
    second = await operator.until(terminal)
    assert second.phase is Phase.SUCCEEDED
    assert second.model == first.model
    assert operator.world.volume.commits == commits, "nothing is trained twice"


async def test_a_queued_run_is_created_suspended_waits_without_cost_and_survives_preemption():
    operator = Process(world(total_steps=40, labels={"kueue.x-k8s.io/queue-name": "research"}))
    status = await operator.until(at(Phase.QUEUED))
    name, job = next(operator.world.of("jobs"))
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    for _ in range(100):
        await operator.second()
    operator.world.change(name, {"spec": {"suspend": False}})
    await operator.until(at(Phase.RUNNING))
    operator.world.change(name, {"spec": {"suspend": True}})
    status = await operator.until(lambda s: s.attempt == 2)
    assert status.phase is Phase.QUEUED
    assert status.attempts[0].failure is not None
    assert status.attempts[0].failure.reason == "SuspendedByAnother"
    assert "deletionTimestamp" in operator.world.objects[name]["metadata"], "it could start anew by itself"
    second = next(path for path, _ in operator.world.of("jobs") if path != name)
    operator.world.change(second, {"spec": {"suspend": False}})
    status = await operator.until(terminal)
    assert status.phase is Phase.SUCCEEDED
    assert status.cost is not None
    assert status.cost.spent_usd == operator.world.spent(PRICE)


async def test_suspending_a_queued_run_removes_its_job_and_costs_nothing():
    operator = Process(world(labels={"kueue.x-k8s.io/queue-name": "research"}))
    await operator.until(at(Phase.QUEUED))
    operator.world.change(RUN, {"spec": {"suspend": True}})
    status = await operator.until(at(Phase.SUSPENDED))
    assert not list(operator.world.of("jobs"))
    assert status.cost is not None
    assert status.cost.spent_usd == 0


async def test_a_refused_create_is_told_in_the_status_and_tried_again():
    operator = Process(world())
    real, quota = operator.world.create, {"left": 2}

    async def create(path, body):
        if path.endswith("/jobs") and quota["left"]:
            quota["left"] -= 1
            raise Forbidden(403, "Forbidden", "exceeded quota: jobs")
        return await real(path, body)

    operator.world.create = create  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(RefusedError, match="exceeded quota"):
            await operator.second()
        assert "exceeded quota" in operator.status.message
        operator.due = operator.world.now
    assert (await operator.until(terminal)).phase is Phase.SUCCEEDED


async def test_children_of_a_finished_run_are_removed_after_their_time_and_the_run_stays():
    operator = Process(world(spec(ttlSecondsAfterFinished=30)))
    await operator.until(terminal)
    assert list(operator.world.of("jobs"))
    for _ in range(60):
        await operator.second()
    assert not list(operator.world.of("jobs"))
    assert operator.status.phase is Phase.SUCCEEDED


async def test_a_deleted_run_stops_its_job_and_starts_nothing():
    operator = Process(world(total_steps=500))
    await operator.until(at(Phase.RUNNING))
    operator.world.mark_deleted(RUN)
    for _ in range(10):
        await operator.second()
    assert not operator.world.alive()
    assert calls(operator, "create", "/jobs") == 1
    assert next(operator.world.of("jobs"))[1]["metadata"]["annotations"]["tollgate.dev/stop-reason"] == "Deleted"


async def test_a_claim_that_is_created_later_lets_the_run_start():
    operator = Process(world())
    claim = operator.world.objects.pop(f"{CLAIMS}/models")
    await operator.second()
    assert "ClaimMissing" in operator.status.message
    operator.world.put(f"{CLAIMS}/models", claim, new=True)
    assert (await operator.until(terminal)).phase is Phase.SUCCEEDED


async def test_a_lost_answer_to_the_create_is_healed_by_adoption():
    operator = Process(world())
    operator.world.crash = Crash(at=2, after=True)
    status = await operator.until(terminal)
    assert operator.crashes == 1
    assert (status.phase, status.attempt) == (Phase.SUCCEEDED, 1)
    assert calls(operator, "create", "/jobs") == 1
    assert NAME in next(operator.world.of("jobs"))[0]
