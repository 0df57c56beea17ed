"""Laws of decide: total, steady, and never two Jobs for one attempt, for facts that nobody would think of."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operator_api_server import START, stamp
from operator_process import NAME, NAMESPACE, manifest, policy, profile, spec
from tollgate.api.training_run import TrainingRunStatus
from tollgate.contract import LABEL_ATTEMPT, LABEL_ROLE, LABEL_RUN, LABEL_RUN_UID
from tollgate.manifest.loader import load_document
from tollgate_operator.decision import CreateJob, Decision
from tollgate_operator.facts import ClaimFacts, JobFacts, NodeFacts, PodFacts, ProgressFacts, RunFacts
from tollgate_operator.runs.decide import decide
from tollgate_operator.runs.names import job_name
from tollgate_operator.runs.situation import Situation

UID = "0123abcd-0000-4000-8000-000000000000"
NOW = START + timedelta(hours=1)
DIGEST = load_document(manifest(), "test").digest


def times() -> st.SearchStrategy[str]:
    return st.integers(-3600, 600).map(lambda s: stamp(NOW + timedelta(seconds=s)))


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def compact(body: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in body.items() if v is not None}


REASONS = st.sampled_from(
    [
        "BudgetExceeded",
        "RuntimeExceeded",
        "Suspended",
        "GangMemberLost",
        "Stalled",
        "Unschedulable",
        "EvaluationTimeout",
    ]
)
WORDS = st.sampled_from(
    [
        "",
        "not json",
        '{"outcome":"completed","reason":"Completed","step":9,"model":{"path":"model","digest":"sha256:aa"}}',
        '{"outcome":"stopped","reason":"Signal","step":4}',
        '{"outcome":"stopped","reason":"BudgetExceeded"}',
        '{"outcome":"failed","reason":"OutOfMemory","error":{"message":"peak","rank":3}}',
        '{"outcome":"failed","reason":"NonFinite"}',
        '{"outcome":"failed","reason":"PeerLost"}',
        '{"outcome":"failed","reason":"DatasetRefused","error":{"message":"no","field":"dataset.path"}}',
    ]
)


@st.composite
def pods(draw: st.DrawFn, role: str, number: int, job_uid: str) -> PodFacts:
    index = draw(st.integers(0, 1))
    ended = draw(st.booleans())
    terminated = compact({"exitCode": draw(st.sampled_from([0, 1, 64, 70, 75, 137, 143])), "message": draw(WORDS)})
    terminated |= compact({"startedAt": draw(maybe(times())), "finishedAt": draw(maybe(times()))})
    state = {"terminated": terminated} if ended else {"running": compact({"startedAt": draw(maybe(times()))})}
    conditions = []
    if draw(st.booleans()):
        conditions.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": draw(times())})
    if draw(st.booleans()) and draw(st.booleans()):
        conditions.append(
            {"type": "DisruptionTarget", "status": "True", "reason": "Evicted", "lastTransitionTime": draw(times())}
        )
    body = {
        "metadata": compact(
            {
                "uid": f"pod-{role}-{number}-{draw(st.integers(0, 2))}",
                "name": f"pod-{number}-{index}",
                "namespace": NAMESPACE,
                "labels": {
                    LABEL_RUN: NAME,
                    LABEL_RUN_UID: UID,
                    LABEL_ATTEMPT: str(number),
                    LABEL_ROLE: role,
                    "batch.kubernetes.io/job-completion-index": str(index),
                },
                "ownerReferences": [{"kind": "Job", "uid": job_uid, "controller": True}],
                "creationTimestamp": draw(times()),
                "deletionTimestamp": draw(maybe(times())),
                "deletionGracePeriodSeconds": 30,
            }
        ),
        "spec": compact({"nodeName": draw(maybe(st.just("node-0")))}),
        "status": {
            "phase": draw(st.sampled_from(["Pending", "Running", "Succeeded", "Failed"])),
            "conditions": conditions,
            "containerStatuses": [{"name": "trainer", "state": state}],
        },
    }
    return PodFacts.from_object(body, gone=draw(st.booleans()) and draw(st.booleans()))


@st.composite
def jobs(draw: st.DrawFn, role: str, number: int) -> JobFacts:
    kinds = draw(
        st.sampled_from(
            [(), ("FailureTarget",), ("FailureTarget", "Failed"), ("SuccessCriteriaMet", "Complete"), ("Suspended",)]
        )
    )
    reason = draw(st.sampled_from(["DeadlineExceeded", "BackoffLimitExceeded", "PodFailurePolicy"]))
    conditions = [
        {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": draw(st.text(max_size=20)),
            "lastTransitionTime": draw(times()),
        }
        for kind in kinds
    ]
    stop = draw(maybe(REASONS))
    body = {
        "metadata": compact(
            {
                "uid": f"job-{role}-{number}",
                "name": job_name(NAME, UID, role, number),  # type: ignore[arg-type]
                "namespace": NAMESPACE,
                "labels": {LABEL_RUN: NAME, LABEL_RUN_UID: UID, LABEL_ATTEMPT: str(number), LABEL_ROLE: role},
                "annotations": {"tollgate.dev/stop-reason": stop} if stop else {},
                "ownerReferences": [{"kind": "TrainingRun", "uid": UID, "controller": True}],
                "creationTimestamp": draw(times()),
                "deletionTimestamp": draw(maybe(times())) if draw(st.booleans()) else None,
            }
        ),
        "spec": {"suspend": draw(st.booleans()) and draw(st.booleans())},
        "status": compact(
            {
                "startTime": draw(maybe(times())),
                "conditions": conditions,
                "failed": draw(st.integers(0, 2)),
                "succeeded": 0,
            }
        ),
    }
    return JobFacts.from_object(body)


@st.composite
def attempts(draw: st.DrawFn, role: str, number: int, newest: bool) -> dict[str, Any]:
    outcome = draw(st.sampled_from(["Completed", "Stopped", "Failed", "Lost"]))
    if newest and draw(st.booleans()):
        outcome = None
    closed = outcome is not None and draw(st.integers(0, 3)) > 0
    kind = draw(st.sampled_from(["User", "Application", "Disruption", "Unschedulable", "Stall", "Limit"]))
    failure = {"class": kind, "reason": draw(st.sampled_from(["Exception", "OutOfMemory", "NonFinite", "Killed"]))}
    charge = compact({"uid": f"pod-{role}-{number}-0", "name": "p", "start": draw(maybe(times())), "perHourUSD": "36"})
    return compact(
        {
            "number": number,
            "role": role,
            "jobUID": draw(maybe(st.just(f"job-{role}-{number}"))),
            "intentTime": draw(maybe(times())),
            "startTime": draw(maybe(times())),
            "endTime": draw(times()) if outcome else None,
            "reservedUSD": draw(maybe(st.just("3"))),
            "reservedSeconds": draw(maybe(st.just(300))),
            "stopReason": draw(maybe(REASONS)),
            "outcome": outcome,
            "unknownPods": 0 if closed else None,
            "costUSD": "1" if closed else None,
            "runSeconds": 10.0 if closed else None,
            "pods": [charge] if draw(st.booleans()) and not closed else None,
            "failure": failure if outcome in ("Failed", "Lost", "Stopped") and draw(st.booleans()) else None,
            "limitUSD": "10",
            "perHourUSD": draw(maybe(st.just("36"))),
        }
    )


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    trained = draw(st.integers(0, 3))
    evaluated = draw(st.integers(0, 1)) if trained else 0
    series = [("train", n) for n in range(1, trained + 1)] + [("evaluate", n) for n in range(1, evaluated + 1)]
    listed = [draw(attempts(role, n, (role, n) == series[-1])) for role, n in series]
    terminal = draw(st.integers(0, 9)) == 0
    conditions = [{"type": "Complete", "status": "True", "lastTransitionTime": stamp(NOW)}] if terminal else []
    status = compact(
        {
            "attempts": listed,
            "attempt": trained,
            "manifestDigest": draw(st.sampled_from([None, DIGEST, DIGEST, "sha256:" + "0" * 64])),
            "phase": draw(maybe(st.sampled_from(["Pending", "Running", "Stopped", "Evaluating"]))),
            "cost": draw(maybe(st.just({"spentUSD": "0", "updatedAt": stamp(NOW)}))),
            "conditions": conditions,
        }
    )
    body = {
        "metadata": compact(
            {
                "name": NAME,
                "namespace": NAMESPACE,
                "uid": UID,
                "generation": 3,
                "resourceVersion": "7",
                "creationTimestamp": stamp(START),
                "deletionTimestamp": draw(maybe(times())) if draw(st.integers(0, 9)) == 0 else None,
                "labels": {"kueue.x-k8s.io/queue-name": "q"} if draw(st.booleans()) else {},
            }
        ),
        "spec": spec(
            manifest=manifest(),
            evaluation={"enabled": draw(st.booleans())},
            compute={
                "profile": draw(st.sampled_from(["cpu", "cpu", "cpu", "absent"])),
                "nodes": draw(st.integers(1, 2)),
            },
            limits=compact(
                {
                    "maxCostUSD": draw(st.sampled_from([None, "0.10", "500", "500"])),
                    "maxRuntime": draw(maybe(st.just("10m"))),
                }
            ),
            suspend=draw(st.integers(0, 3)) == 0,
            policyRef={"name": "care"},
            ttlSecondsAfterFinished=draw(maybe(st.integers(0, 10))),
        )
        if draw(st.integers(0, 9))
        else {"nonsense": 1},
        "status": status,
    }
    run = RunFacts.from_object(body)
    found = [draw(jobs(role, n)) for role, n in series if draw(st.integers(0, 3)) == 0]
    seen = [
        draw(pods(role, n, f"job-{role}-{n}")) for role, n in series for _ in range(draw(st.sampled_from([0, 0, 1, 2])))
    ]
    progress = None
    if seen and draw(st.booleans()):
        moved = datetime.fromisoformat(draw(times()))
        progress = ProgressFacts(
            NOW, draw(st.booleans()), pod_uid=seen[-1].uid, step=draw(maybe(st.integers(0, 9))), last_progress=moved
        )
    asked = draw(st.integers(0, 3)) > 0
    live = asked or draw(st.booleans())
    node = {
        "metadata": {"name": "node-0"},
        "status": {
            "conditions": [
                {
                    "type": "Ready",
                    "status": draw(st.sampled_from(["True", "False"])),
                    "lastTransitionTime": draw(times()),
                }
            ]
        },
    }
    claim = ClaimFacts("any", ("ReadWriteMany",), "Bound")
    return Situation(
        run=run,
        manifest=load_document(run.spec.manifest, "test") if run.spec else None,
        manifest_problem="",
        jobs=tuple(found),
        pods=tuple({pod.uid: pod for pod in seen}.values()),
        progress=progress,
        profiles={"cpu": profile()},
        nodes={"node-0": NodeFacts.from_object(node)},
        policy=policy().policy if draw(st.booleans()) else None,
        live=live,
        references_live=draw(st.booleans()),
        claims={"datasets": claim, "models": claim if asked or draw(st.booleans()) else None}
        if asked or draw(st.booleans())
        else None,
        foreign_pods=() if asked or draw(st.booleans()) else None,
    )


def created(decision: Decision) -> list[str]:
    return [action.name for action in (*decision.before, *decision.after) if isinstance(action, CreateJob)]


def written(situation: Situation, decision: Decision) -> Situation:
    """The same facts, with the decision's status as the API server would give it back."""
    if decision.status is None:
        return situation
    stored = decision.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return replace(situation, run=replace(situation.run, status=TrainingRunStatus.model_validate(stored)))


RULES = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@RULES
@given(situations())
def test_every_set_of_facts_has_an_answer(situation: Situation) -> None:
    decision = decide(situation, NOW)
    if decision.look:
        assert decision == Decision(look=decision.look), "who has to look first does nothing else"
    assert decision.requeue_after is None or decision.requeue_after >= 0


@RULES
@given(situations())
def test_a_job_is_created_once_only_after_a_live_look_and_only_for_a_number_that_was_written(
    situation: Situation,
) -> None:
    decision = decide(situation, NOW)
    names = created(decision)
    assert len(names) <= 1
    if not names:
        return
    assert situation.live
    assert names[0] not in {job.name for job in situation.jobs}
    after = written(situation, decision)
    assert after.current is not None
    assert after.job_name(after.current) == names[0]
    stored = written(situation, decision).status.attempts
    assert [a for a in stored if a.outcome is None] == [after.current]


@RULES
@given(situations())
def test_a_run_that_is_over_deleted_or_unreadable_starts_nothing(situation: Situation) -> None:
    if situation.terminal or situation.run.deleting or situation.run.spec is None or situation.run.status_problem:
        assert created(decide(situation, NOW)) == []


@RULES
@given(situations())
def test_what_was_decided_is_not_decided_again(situation: Situation) -> None:
    facts = situation
    for _ in range(4):  # one step may book what the next one rests on
        decision = decide(facts, NOW)
        if decision.status is None:
            return
        facts = written(facts, decision)
    raise AssertionError(f"goes round in circles: {facts.status.phase} {facts.status.message}")


@RULES
@given(situations())
def test_a_closed_attempt_is_never_opened_charged_or_judged_again(situation: Situation) -> None:
    decision = decide(situation, NOW)
    if not isinstance(decision.status, TrainingRunStatus):
        return
    kept = {(a.role, a.number): a for a in decision.status.attempts}
    for attempt in situation.status.attempts:
        if attempt.unknown_pods is not None:
            assert kept[attempt.role, attempt.number] == attempt


@RULES
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "metadata",
                        "spec",
                        "status",
                        "labels",
                        "conditions",
                        "type",
                        "name",
                        "uid",
                        "ownerReferences",
                        "controller",
                        "containerStatuses",
                        "state",
                        "terminated",
                        "exitCode",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=30,
    )
)
def test_any_json_becomes_facts(body: Any) -> None:
    document = body if isinstance(body, dict) else {"metadata": body, "spec": body, "status": body}
    for kind in (RunFacts, JobFacts, PodFacts, NodeFacts, ClaimFacts):
        kind.from_object(document)
