from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from tollgate.api.promotion_policy import Holder, PromotionPolicySpec, StageStatus
from tollgate.api.training_run import GateStatus
from tollgate.gates.promotion import Candidate, hold, unknown_requests

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOW = T0 + timedelta(days=10)
DIGEST, OLD_DIGEST = "sha256:policy", "sha256:old-policy"
Verdict = Literal["Passed", "Failed", "Inconclusive"]


def policy(**staging: object) -> PromotionPolicySpec:
    checks = [{"metric": "m", "op": "<=", "threshold": 1}]
    return PromotionPolicySpec.model_validate(
        {
            "stages": [
                {"name": "staging", "checks": checks} | staging,
                {"name": "production", "checks": checks, "requires": ["staging"]},
            ]
        }
    )


def gates(staging: Verdict, production: Verdict, uid: str, digest: str = DIGEST) -> list[GateStatus]:
    return [
        GateStatus(stage=stage, verdict=verdict, policy_digest=digest, evidence_digest=f"sha256:e-{uid}", reason="why")
        for stage, verdict in (("staging", staging), ("production", production))
    ]


def run(day: int, label: str | None = "staging", staging: Verdict = "Passed", **facts: object) -> Candidate:
    uid = f"u{day}"
    found = Candidate(
        name=f"run-{day}",
        uid=uid,
        created=T0 + timedelta(days=day),
        label=label,
        gates=gates(staging, staging, uid),
        model_path="model",
        model_uri=f"pvc://models/{day}/model",
        model_digest=f"sha256:m-{uid}",
        evidence_digest=f"sha256:e-{uid}",
        evaluated_at=T0 + timedelta(days=day, hours=1),
    )
    return replace(found, **facts)  # type: ignore[arg-type]


def holder(day: int) -> Holder:
    return Holder(
        run=f"run-{day}",
        run_uid=f"u{day}",
        model_path="model",
        model_uri=f"pvc://models/{day}/model",
        model_digest=f"sha256:m-u{day}",
        evidence_digest=f"sha256:e-u{day}",
        since=T0,
    )


def held(day: int | None) -> list[StageStatus]:
    return [StageStatus(name="staging", holder=None if day is None else holder(day))]


def staging(
    candidates: list[Candidate],
    current: list[StageStatus] | None = None,
    spec: PromotionPolicySpec | None = None,
    now: datetime = NOW,
) -> StageStatus:
    return hold(spec or policy(), DIGEST, candidates, current or [], now)[0]


def who(status: StageStatus) -> str | None:
    return status.holder.run if status.holder else None


@pytest.mark.parametrize(
    ("candidates", "before", "after"),
    [
        pytest.param([], None, None, id="nobody is there"),
        pytest.param([run(1)], None, "run-1", id="the first"),
        pytest.param([run(1), run(2)], 1, "run-2", id="a newer one"),
        pytest.param([run(1), run(2, staging="Failed")], 1, "run-1", id="a newer one that fails changes nothing"),
        pytest.param([run(1), run(2, staging="Inconclusive")], 1, "run-1", id="nor one without proof"),
        pytest.param([run(1), run(2, label=None)], 2, "run-1", id="rollback: the label is taken off"),
        pytest.param([run(1, label=None), run(2, label=None)], 2, "run-2", id="nobody asks: it stays"),
        pytest.param([], 2, "run-2", id="the run is deleted and nobody asks: it stays"),
        pytest.param([run(1)], 2, "run-1", id="the run is deleted and another asks"),
        pytest.param([run(2, staging="Failed")], 2, "run-2", id="judged anew and failed, nobody else: it stays"),
        pytest.param([run(1), run(2, staging="Failed")], 2, "run-1", id="judged anew and failed: the next newest"),
        pytest.param([run(1), run(3, label="production")], 1, "run-1", id="another stage's label"),
        pytest.param([run(1), run(2, gates=())], 1, "run-1", id="a labelled run that still trains blocks nobody"),
        pytest.param([run(1), run(2, model_digest=None)], 1, "run-1", id="a model that nobody knows"),
        pytest.param([run(1), run(2, model_uri=None)], 1, "run-1", id="a model that lies nowhere"),
    ],
)
def test_the_newest_run_that_asks_and_passes_holds_the_stage(
    candidates: list[Candidate], before: int | None, after: str | None
) -> None:
    assert who(staging(candidates, held(before))) == after
    assert who(staging(candidates[::-1], held(before))) == after


def test_of_runs_created_at_once_the_greater_uid_wins() -> None:
    twins = [replace(run(1), uid="b", gates=gates("Passed", "Passed", "u1")), run(1)]
    assert staging(twins).holder is not None
    found = staging(twins).holder
    assert found is not None
    assert found.run_uid == "u1"


def test_a_promotion_records_model_evidence_time_and_what_was_there_before() -> None:
    status = staging([run(1), run(2)], held(1))
    assert status.holder == holder(2).model_copy(update={"since": NOW})
    assert status.previous == holder(1)
    assert status.message == ""


def test_looking_again_changes_nothing() -> None:
    once = hold(policy(), DIGEST, [run(1), run(2)], held(1), NOW)
    assert hold(policy(), DIGEST, [run(1), run(2)], once, NOW + timedelta(days=1)) == once


def test_the_same_model_evaluated_again_is_no_promotion() -> None:
    again = run(
        1,
        evidence_digest="sha256:new",
        gates=[g.model_copy(update={"evidence_digest": "sha256:new"}) for g in run(1).gates],
    )
    status = staging([again], held(1))
    assert status.holder == holder(1).model_copy(update={"evidence_digest": "sha256:new"})
    assert status.previous is None


@pytest.mark.parametrize(
    "stale",
    [
        pytest.param({"gates": gates("Passed", "Passed", "u2", OLD_DIGEST)}, id="the policy changed"),
        pytest.param({"evidence_digest": "sha256:new"}, id="the evidence changed"),
    ],
)
def test_while_a_newer_run_is_still_to_be_judged_anew_the_stage_does_not_flip(stale: dict[str, object]) -> None:
    status = staging([run(1), run(2, **stale)], held(2))
    assert who(status) == "run-2"
    assert "to be judged anew" in status.message
    assert who(staging([run(1, **stale), run(2)], held(None))) == "run-2"


def test_required_stages_must_have_passed_too() -> None:
    asks = run(1, label="production", gates=gates("Failed", "Passed", "u1"))
    status = hold(policy(), DIGEST, [asks], [], NOW)[1]
    assert status.holder is None
    assert status.message == "run run-1 asks, but stage staging is Failed: why; nothing is promoted"


@pytest.mark.parametrize(
    ("age", "evaluated", "before", "after"),
    [
        pytest.param("240h", T0 + timedelta(hours=1), None, "run-1", id="fresh"),
        pytest.param("24h", T0, None, None, id="too old to come in"),
        pytest.param("24h", T0, 1, "run-1", id="old, but it holds the stage already"),
        pytest.param("24h", None, None, None, id="nobody knows when"),
        pytest.param("24h", NOW + timedelta(hours=1), None, None, id="from the future"),
        pytest.param("24h", NOW + timedelta(minutes=1), None, "run-1", id="a clock that is a little ahead"),
    ],
)
def test_max_age_counts_for_who_comes_in(
    age: str, evaluated: datetime | None, before: int | None, after: str | None
) -> None:
    status = staging([run(1, evaluated_at=evaluated)], held(before), policy(maxAge=age))
    assert who(status) == after
    later = staging([run(1, evaluated_at=evaluated)], [status], policy(maxAge=age), NOW + timedelta(seconds=1))
    assert later == status  # time alone never causes a write


def test_a_holder_whose_evidence_grew_old_gives_way_to_no_older_run() -> None:
    fresh, grown_old = run(1, evaluated_at=NOW), run(2, evaluated_at=T0)
    status = staging([fresh, grown_old], held(2), policy(maxAge="24h"))
    assert who(status) == "run-2"
    assert who(staging([fresh, grown_old], held(None), policy(maxAge="24h"))) == "run-1"


def test_a_stage_that_asks_for_approvals_is_refused_aloud_and_keeps_its_holder() -> None:
    status = staging([run(2)], held(1), policy(approvals={"min": 2}))
    assert who(status) == "run-1"
    assert "2 approvals" in status.message
    assert "set min to 0" in status.message


@pytest.mark.parametrize(
    ("candidates", "before", "message"),
    [
        ([], None, "no run asks for it (label tollgate.dev/promote-to: staging); nothing is promoted"),
        (
            [],
            2,
            "no run asks for it (label tollgate.dev/promote-to: staging); run-2 stays, though that run is gone",
        ),
        ([run(2, None)], 2, "no run asks for it (label tollgate.dev/promote-to: staging); run-2 stays"),
        ([run(3, staging="Failed")], None, "run run-3 asks, but stage staging is Failed: why; nothing is promoted"),
        ([run(3, gates=())], None, "run run-3 asks, but has no verdict yet; nothing is promoted"),
        (
            [run(1), run(3, staging="Failed")],
            1,
            "run run-3 asks, but stage staging is Failed: why; run-1 is the newest that passes",
        ),
    ],
)
def test_a_stage_says_why_it_stays(candidates: list[Candidate], before: int | None, message: str) -> None:
    assert staging(candidates, held(before)).message == message


def test_a_stage_that_the_policy_lost_stays_on_record() -> None:
    current = [StageStatus(name="canary", holder=holder(1)), StageStatus(name="empty"), *held(2)]
    after = hold(policy(), DIGEST, [], current, NOW)
    assert [(s.name, who(s)) for s in after] == [("staging", "run-2"), ("production", None), ("canary", "run-1")]
    assert "no longer" in after[2].message


def test_a_label_that_names_no_stage_is_told() -> None:
    assert unknown_requests(policy(), [run(1, "prod"), run(2), run(3, None)]) == [
        "run run-1 asks for stage prod, which the policy does not have; it has staging, production"
    ]
