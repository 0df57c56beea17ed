"""Promotion: no evidence, no promotion; and whoever holds a stage does so by what is there, not by what came first."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tollgate.api.meta import find_condition
from tollgate.api.promotion_policy import PromotionPolicyStatus
from tollgate.contract import LABEL_PROMOTE_TO
from tollgate.gates.evidence import policy_digest
from tollgate_operator.decision import ApplyConfigMap, Decision
from tollgate_operator.facts import RunFacts
from tollgate_operator.promotion.decide import decide, refused
from tollgate_operator.promotion.facts import PolicyState, PromotionFacts
from tollgate_operator.promotion.render import config_map, model_uri

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CHECK = {"metric": "perplexity", "op": "<", "threshold": 20}


def policy(status: PromotionPolicyStatus | None = None, name: str = "care", **stages: dict[str, Any]) -> PolicyState:
    wanted = stages or {"staging": {}, "production": {}}
    return PolicyState.from_object(
        {
            "metadata": {"name": name, "namespace": "ns", "uid": "pol", "resourceVersion": "7", "generation": 3},
            "spec": {"stages": [{"name": stage, "checks": [CHECK], **more} for stage, more in wanted.items()]},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True) if status is not None else {},
        }
    )


def run(
    name: str,
    asks: str | None = "staging",
    verdict: str = "Passed",
    age: int = 0,
    state: PolicyState | None = None,
    **meta: Any,
) -> RunFacts:
    """A finished run with verdicts for both stages; `age` in minutes."""
    spec = (state or policy()).policy.spec
    assert spec is not None
    judged = {"policyDigest": policy_digest(spec), "evidenceDigest": f"sha256:e-{name}", "verdict": verdict}
    return RunFacts.from_object(
        {
            "metadata": {
                "name": name,
                "namespace": "ns",
                "uid": f"u-{name}",
                "resourceVersion": "1",
                "creationTimestamp": (NOW - timedelta(minutes=age)).isoformat(),
                "labels": {LABEL_PROMOTE_TO: asks} if asks else {},
                **meta,
            },
            "spec": {
                "manifest": {"name": "m", "dataset": {"path": "d"}},
                "storage": {"dataset": {"claimName": "d"}, "output": {"claimName": "models", "path": f"/{name}/"}},
                "policyRef": {"name": "care"},
            },
            "status": {
                "phase": "Succeeded",
                "model": {"path": "model", "digest": f"sha256:m-{name}"},
                "evaluation": {
                    "state": "Succeeded",
                    "evidenceDigest": f"sha256:e-{name}",
                    "evaluatedAt": NOW.isoformat(),
                },
                "gates": [{"stage": s.name, **judged} for s in spec.stages],
            },
        }
    )


def facts(state: PolicyState, *runs: RunFacts, projected: dict[str, dict[str, str]] | None = None) -> PromotionFacts:
    return PromotionFacts(state, runs, projected or {})


def status_of(decision: Decision) -> PromotionPolicyStatus:
    assert isinstance(decision.status, PromotionPolicyStatus)
    return decision.status


def holders(status: PromotionPolicyStatus) -> dict[str, str | None]:
    return {stage.name: stage.holder.run if stage.holder else None for stage in status.stages}


def applied(decision: Decision) -> dict[str, dict[str, str]]:
    """stage -> data of what is to be projected."""
    found = {}
    for action in decision.after:
        assert isinstance(action, ApplyConfigMap)
        found[action.body["metadata"]["labels"]["tollgate.dev/stage"]] = action.body["data"]
    return found


def test_a_run_that_asks_and_passes_holds_its_stage_and_is_projected() -> None:
    decision = decide(facts(policy(), run("a")), NOW)
    status = status_of(decision)
    assert holders(status) == {"staging": "a", "production": None}
    assert status.observed_generation == 3
    accepted = find_condition(status.conditions, "Accepted")
    assert accepted is not None
    assert accepted.status == "True"
    assert [event.message for event in decision.events] == ["staging: run a, model sha256:m-a"]
    assert applied(decision) == {
        "staging": {
            "run": "a",
            "runUID": "u-a",
            "modelURI": "pvc://models/a/model",
            "modelPath": "a/model",
            "modelDigest": "sha256:m-a",
            "evidenceDigest": "sha256:e-a",
            "since": "2026-01-02T00:00:00Z",
        }
    }


@pytest.mark.parametrize("verdict", ["Failed", "Inconclusive"])
def test_a_run_that_does_not_pass_is_not_promoted(verdict: str) -> None:
    decision = decide(facts(policy(), run("a", verdict=verdict)), NOW)
    assert holders(status_of(decision)) == {"staging": None, "production": None}
    assert not decision.after
    assert not decision.events


def test_a_run_without_the_label_is_not_promoted() -> None:
    decision = decide(facts(policy(), run("a", asks=None)), NOW)
    assert holders(status_of(decision))["staging"] is None


def test_a_run_that_is_being_deleted_does_not_come_in_and_the_holder_stays() -> None:
    first = status_of(decide(facts(policy(), run("a", age=5)), NOW))
    going = run("b", deletionTimestamp=NOW.isoformat())
    again = decide(facts(policy(first), run("a", age=5), going), NOW)
    assert holders(status_of(again) if again.status else first)["staging"] == "a"


def settle(state: PolicyState, *runs: RunFacts) -> tuple[PromotionPolicyStatus, dict[str, dict[str, str]]]:
    """What the reconcile loop comes to rest at: decisions are carried out until none is left."""
    projected: dict[str, dict[str, str]] = {}
    for _ in range(5):
        decision = decide(facts(state, *runs, projected=projected), NOW)
        if decision.status is None and not decision.after:
            return state.status, projected
        state = policy(status_of(decision)) if decision.status is not None else state
        projected |= applied(decision)
    raise AssertionError("it does not come to rest")


@given(st.permutations(["a", "b", "c"]), st.sets(st.sampled_from("abc")))
def test_the_order_in_which_runs_appear_does_not_matter(order: list[str], passing: set[str]) -> None:
    """Runs that ask and pass from the start: the newest of them holds, whichever was seen first."""
    runs = {n: run(n, age=10 - i, verdict="Passed" if n in passing else "Failed") for i, n in enumerate("abc")}
    state = policy()
    for count in range(1, 4):
        state = policy(settle(state, *(runs[n] for n in order[:count]))[0])
    assert holders(state.status)["staging"] == max(passing, default=None)


def test_taking_the_label_off_rolls_back_to_the_newest_other_run() -> None:
    old, bad = run("a", age=10), run("b", age=1)
    status, projected = settle(policy(), old, bad)
    assert projected["staging"]["run"] == "b"
    status, projected = settle(policy(status), old, run("b", asks=None, age=1))
    assert holders(status)["staging"] == "a"
    assert projected["staging"]["run"] == "a"
    (staging, _) = status.stages
    assert staging.previous is not None
    assert staging.previous.run == "b"


def test_at_rest_nothing_is_written() -> None:
    status, projected = settle(policy(), run("a"))
    quiet = decide(facts(policy(status), run("a"), projected=projected), NOW + timedelta(days=30))
    assert quiet == Decision()


def test_a_projection_that_somebody_deleted_is_written_again_without_a_status_write() -> None:
    status, _ = settle(policy(), run("a"))
    decision = decide(facts(policy(status), run("a")), NOW)
    assert decision.status is None
    assert applied(decision)["staging"]["run"] == "a"


def test_a_policy_that_asks_for_approvals_is_refused_aloud_and_promotes_nothing() -> None:
    state = policy(staging={}, production={"approvals": {"min": 2}})
    decision = decide(facts(state, run("a", state=state)), NOW)
    accepted = find_condition(status_of(decision).conditions, "Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", "ApprovalsNotSupported")
    assert "stage production" in accepted.message
    assert not status_of(decision).stages
    assert not decision.after
    assert [(e.type, e.reason) for e in decision.events] == [("Warning", "ApprovalsNotSupported")]


def test_a_policy_that_starts_to_ask_for_approvals_keeps_what_it_promoted() -> None:
    status, _ = settle(policy(), run("a", age=5))
    asking = policy(status, staging={"approvals": {"min": 1}}, production={})
    decision = decide(facts(asking, run("a", age=5), run("b", state=asking)), NOW)
    assert holders(status_of(decision))["staging"] == "a"


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        (PolicyState.from_object({"metadata": {"name": "x"}, "spec": {"stages": []}}), "InvalidSpec", "spec.stages"),
        (policy(name="x" * 245), "NameTooLong", "shorten metadata.name"),
    ],
)
def test_a_policy_that_cannot_be_served_says_why(state: PolicyState, reason: str, said: str) -> None:
    accepted = find_condition(status_of(decide(facts(state), NOW)).conditions, "Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", reason)
    assert said in accepted.message


def test_a_status_that_cannot_be_read_promotes_nothing_and_is_not_overwritten() -> None:
    state = PolicyState.from_object(
        {
            "metadata": {"name": "care"},
            "spec": {"stages": [{"name": "staging", "checks": [CHECK]}]},
            "status": {"stages": 1},
        }
    )
    decision = decide(facts(state, run("a")), NOW)
    assert not decision.after
    accepted = find_condition(status_of(decision).conditions, "Accepted")
    assert accepted is not None
    assert accepted.reason == "StatusUnreadable"


def test_a_label_that_names_no_stage_is_told_on_the_policy() -> None:
    status = status_of(decide(facts(policy(), run("a", asks="prodction")), NOW))
    requests = find_condition(status.conditions, "RequestsKnown")
    assert requests is not None
    assert requests.status == "False"
    assert "run a asks for stage prodction" in requests.message


def test_a_stage_that_left_the_policy_is_kept_on_record_and_no_longer_projected() -> None:
    status, projected = settle(policy(), run("a"))
    smaller = policy(status, production={})
    decision = decide(facts(smaller, run("a", state=smaller), projected={}), NOW)
    assert holders(status_of(decision))["staging"] == "a"
    assert not decision.after
    assert projected["staging"]["run"] == "a"


def test_a_refused_projection_stands_in_the_status_and_goes_when_it_went_through() -> None:
    told = refused(facts(policy(), run("a")), "admission policy says no", NOW)
    status = status_of(told)
    assert holders(status)["staging"] == "a"
    projected = find_condition(status.conditions, "Projected")
    assert projected is not None
    assert (projected.status, projected.message) == ("False", "admission policy says no")
    status, _ = settle(policy(status), run("a"))
    projected = find_condition(status.conditions, "Projected")
    assert projected is not None
    assert projected.status == "True"


def test_the_projection_is_this_config_map() -> None:
    holder = status_of(decide(facts(policy(), run("a")), NOW)).stages[0].holder
    assert holder is not None
    assert yaml.safe_dump(config_map("ns", "care", "staging", holder), sort_keys=False) == (
        """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: model-care-staging
  namespace: ns
  labels:
    tollgate.dev/stage: staging
    app.kubernetes.io/managed-by: tollgate
  annotations:
    tollgate.dev/policy: care
data:
  run: a
  runUID: u-a
  modelURI: pvc://models/a/model
  modelPath: a/model
  modelDigest: sha256:m-a
  evidenceDigest: sha256:e-a
  since: '2026-01-02T00:00:00Z'
"""
    )


@pytest.mark.parametrize("parts", list(itertools.product(["", "/", "a/b", "/a/b/"], ["model", "model/"])))
def test_a_model_uri_has_no_empty_parts(parts: tuple[str, str]) -> None:
    uri, path = model_uri("claim", *parts)
    assert uri == f"pvc://claim/{path}"
    assert "//" not in path
    assert path.endswith("model")
