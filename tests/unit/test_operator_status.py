"""What is worth a write, what people are told of their money, and how small the status stays."""

from __future__ import annotations

import json

from operator_process import RUN, Process, spec, world
from tollgate.api.quantities import Usd
from tollgate.api.training_run import Attempt, AttemptOutcome, Phase, TrainingRunStatus
from tollgate.contract import FailureClass
from tollgate.limits.forecast import StepSeen
from tollgate_operator.runs.classify import failure
from tollgate_operator.runs.settle import KEPT_ATTEMPTS, essence
from tollgate_operator.scrape import paced


async def test_each_threshold_is_told_once_and_again_after_the_limit_was_raised_past_it() -> None:
    operator = Process(world(spec(limits={"maxCostUSD": "2.50", "notifyAt": [0.5]}), total_steps=10_000))
    await operator.until(lambda s: s.cost is not None and s.cost.notified == [0.5])
    for _ in range(70):
        await operator.second()
    assert operator.world.told.count("BudgetThreshold") == 1
    operator.world.change(RUN, {"spec": {"limits": {"maxCostUSD": "10"}}})
    await operator.until(lambda s: s.cost is not None and s.cost.limit_usd == 10_000_000)
    assert operator.status.cost is not None
    assert operator.status.cost.notified == []
    await operator.until(lambda s: s.cost is not None and s.cost.notified == [0.5])
    assert operator.world.told.count("BudgetThreshold") == 2


async def test_the_status_of_a_run_with_many_failed_attempts_stays_small_and_keeps_the_sums() -> None:
    operator = Process(world(spec(restart={"maxFailures": 30}, limits={"maxCostUSD": "90"})))
    for number in range(1, 31):
        operator.world.endings["train", number, 0] = {
            "after": 1,
            "code": 70,
            "words": {"outcome": "failed", "reason": "Exception", "error": {"message": "x" * 3000}},
        }
    status = await operator.until(lambda s: s.attempt == 31 and s.phase is Phase.SUCCEEDED, seconds=2_000)
    assert len(status.attempts) <= KEPT_ATTEMPTS + 1
    assert status.folded_attempts + len(status.attempts) == 31
    assert status.folded_counts == {"failures": status.folded_attempts}
    assert status.cost is not None
    assert status.cost.spent_usd == operator.world.spent(36_000_000)
    assert len(json.dumps(operator.world.objects[RUN]["status"])) < 100_000


async def test_a_person_who_edits_a_limit_sees_it_in_the_status() -> None:
    operator = Process(world(total_steps=500))
    await operator.until(lambda s: s.phase is Phase.RUNNING)
    operator.world.change(RUN, {"spec": {"limits": {"maxCostUSD": "42"}}})
    await operator.second()
    assert operator.status.cost is not None
    assert operator.status.cost.limit_usd == 42_000_000
    assert operator.status.observed_generation == 2


async def test_the_outlook_says_when_the_run_will_be_done_and_what_it_will_have_cost() -> None:
    operator = Process(world(total_steps=200))
    await operator.until(lambda s: s.phase is Phase.RUNNING)
    for _ in range(125):
        await operator.second()
    status = operator.status
    assert status.progress is not None
    assert status.progress.estimated_completion is not None
    assert status.cost is not None
    assert status.cost.forecast_usd is not None
    done = await operator.until(lambda s: s.phase is Phase.SUCCEEDED)
    assert done.completion_time is not None
    late = abs((done.completion_time - status.progress.estimated_completion).total_seconds())
    assert late <= 10, "the pace of this world is even"
    assert done.cost is not None
    assert abs(done.cost.spent_usd - (status.cost.forecast_usd.p50 or 0)) <= 100_000
    assert paced((), 0, operator.world.now) == ()
    assert len(paced(tuple(StepSeen(operator.world.now, n) for n in range(1, 41)), 41, operator.world.now)) == 40


def test_spend_progress_and_messages_are_not_of_the_essence_but_outcomes_and_causes_are() -> None:
    status = TrainingRunStatus(attempts=[Attempt(number=1)])
    assert essence(status.model_copy(update={"message": "step 7"})) == essence(status)
    named = status.attempts[0].model_copy(update={"job_uid": "u"})
    assert essence(status.model_copy(update={"attempts": [named]})) == essence(status)
    ended = status.attempts[0].model_copy(update={"outcome": AttemptOutcome.FAILED})
    assert essence(status.model_copy(update={"attempts": [ended]})) != essence(status)
    caused = ended.model_copy(update={"failure": failure(FailureClass.USER, "x"), "cost_usd": Usd(1)})
    assert essence(status.model_copy(update={"attempts": [caused]})) != essence(
        status.model_copy(update={"attempts": [ended]})
    )
