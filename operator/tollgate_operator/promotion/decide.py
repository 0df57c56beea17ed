"""Which run holds which stage, and what has to be projected: a pure function of the policy, its runs and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from tollgate.api.meta import Condition, set_condition
from tollgate.api.promotion_policy import PromotionPolicySpec, PromotionPolicyStatus, StageStatus
from tollgate.contract import LABEL_PROMOTE_TO
from tollgate.gates.evidence import policy_digest
from tollgate.gates.promotion import Candidate, hold, unknown_requests
from tollgate_operator.decision import ApplyConfigMap, Decision, EmitEvent
from tollgate_operator.facts import RunFacts
from tollgate_operator.promotion.facts import PromotionFacts
from tollgate_operator.promotion.render import LONGEST_NAME, config_map, config_map_name, data, model_uri

ACCEPTED: Final = "Accepted"
REQUESTS: Final = "RequestsKnown"
PROJECTED: Final = "Projected"
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


def decide(facts: PromotionFacts, now: datetime) -> Decision:
    """What to do about one policy. One that is refused keeps the stages it has: nothing is promoted, nothing taken."""
    state = facts.state
    if state.deleting is not None:
        return Decision()
    spec = state.policy.spec
    reason, message = refusal(facts)
    if reason or spec is None:
        conditions = _condition(facts, state.status.conditions, ACCEPTED, False, reason, message, now)
        return _decision(facts, state.status.stages, conditions, None)
    candidates = [candidate(run) for run in facts.runs if run.deleting is None]
    digest = policy_digest(spec)
    stages = hold(spec, digest, candidates, state.status.stages, now)
    conditions = _condition(facts, state.status.conditions, ACCEPTED, True, "Accepted", "", now)
    unknown = unknown_requests(spec, candidates)
    conditions = _condition(
        facts, conditions, REQUESTS, not unknown, "UnknownStage" if unknown else "Known", " ".join(unknown), now
    )
    projections = _projections(facts, spec, stages)
    if not projections and any(stage.holder for stage in stages):
        conditions = _condition(facts, conditions, PROJECTED, True, "InSync", "", now)
    return replace(_decision(facts, stages, conditions, digest), after=projections)


def _projections(
    facts: PromotionFacts, spec: PromotionPolicySpec, stages: Sequence[StageStatus]
) -> tuple[ApplyConfigMap, ...]:
    """The ConfigMaps that are not what they should be. A stage that left the policy stays as it was projected last."""
    policy = facts.state.policy
    names = {stage.name for stage in spec.stages}
    return tuple(
        ApplyConfigMap(
            policy.namespace,
            config_map_name(policy.name, stage.name),
            config_map(policy.namespace, policy.name, stage.name, stage.holder),
        )
        for stage in stages
        if stage.name in names and stage.holder is not None and facts.projected.get(stage.name) != data(stage.holder)
    )


def refusal(facts: PromotionFacts) -> tuple[str, str]:
    """(reason, message) why the policy cannot be served, or two empty strings."""
    state, spec = facts.state, facts.state.policy.spec
    if spec is None:
        return "InvalidSpec", state.policy.problem
    if state.status_problem:
        return "StatusUnreadable", f"{state.status_problem}; nothing is promoted until the status can be read again"
    asking = [stage.name for stage in spec.stages if stage.approvals.min > 0]
    if asking:
        return "ApprovalsNotSupported", (
            f"approvals are asked for by {_named('stage', asking)}, which this version does not support; nothing is "
            "promoted. Set spec.stages[].approvals.min to 0, or approve by the pull request that sets the label "
            f"{LABEL_PROMOTE_TO}."
        )
    return _bad_names(state.policy.name, spec)


def _bad_names(policy: str, spec: PromotionPolicySpec) -> tuple[str, str]:
    names = [stage.name for stage in spec.stages]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        return "InvalidSpec", f"spec.stages: {_named('stage', twice)} stands there twice; give each a name of its own"
    longest = max(names, key=len)
    if len(config_map_name(policy, longest)) > LONGEST_NAME:
        return "NameTooLong", (
            f"the ConfigMap of stage {longest} would have a name of more than {LONGEST_NAME} characters; "
            "shorten metadata.name of the policy"
        )
    return "", ""


def candidate(run: RunFacts) -> Candidate:
    """A run as far as promotion is concerned; what is not known of it stays None."""
    status, model, evidence = run.status, run.status.model, run.status.evaluation
    uri = path = None
    if model is not None and run.spec is not None:
        output = run.spec.storage.output
        uri, path = model_uri(output.claim_name, output.path, model.path)
    return Candidate(
        name=run.key.name,
        uid=run.uid,
        created=run.created or _BEGINNING,
        label=run.labels.get(LABEL_PROMOTE_TO),
        gates=status.gates,
        model_path=path,
        model_uri=uri,
        model_digest=model.digest if model is not None else None,
        evidence_digest=evidence.evidence_digest if evidence is not None else None,
        evaluated_at=evidence.evaluated_at if evidence is not None else None,
    )


def refused(facts: PromotionFacts, message: str, now: datetime) -> Decision:
    """What the status says when the API server will not have a ConfigMap. The status names the holder anyway."""
    decided = decide(facts, now)
    status = decided.status if isinstance(decided.status, PromotionPolicyStatus) else facts.state.status
    conditions = _condition(facts, status.conditions, PROJECTED, False, "ConfigMapRefused", message[:2048], now)
    return Decision(status=status.model_copy(update={"conditions": conditions}))


def _decision(
    facts: PromotionFacts, stages: Sequence[StageStatus], conditions: list[Condition], digest: str | None
) -> Decision:
    state = facts.state
    status = state.status.model_copy(
        update={
            "observed_generation": state.policy.generation,
            "policy_digest": digest if digest is not None else state.status.policy_digest,
            "stages": list(stages),
            "conditions": conditions,
        }
    )
    return Decision(
        status=status if status != state.status else None,
        events=(*_promotions(state.status.stages, stages), *_refusals(state.status.conditions, conditions)),
    )


def _promotions(before: Sequence[StageStatus], after: Sequence[StageStatus]) -> tuple[EmitEvent, ...]:
    held = {stage.name: stage.holder for stage in before}
    told = []
    for stage in after:
        old = held.get(stage.name)
        if stage.holder is None or (old is not None and old.run_uid == stage.holder.run_uid and old == stage.holder):
            continue
        instead = f" instead of {old.run}" if old is not None and old.run_uid != stage.holder.run_uid else ""
        message = f"{stage.name}: run {stage.holder.run}{instead}, model {stage.holder.model_digest}"
        told.append(EmitEvent("Normal", "Promoted", message))
    return tuple(told)


def _refusals(before: Sequence[Condition], after: Sequence[Condition]) -> tuple[EmitEvent, ...]:
    old = {c.type: (c.status, c.reason) for c in before}
    return tuple(
        EmitEvent("Warning", c.reason, c.message)
        for c in after
        if c.status == "False" and old.get(c.type) != (c.status, c.reason)
    )


def _condition(
    facts: PromotionFacts,
    conditions: list[Condition],
    kind: str,
    yes: bool,
    reason: str,
    message: str,
    now: datetime,
) -> list[Condition]:
    return set_condition(
        conditions, kind, "True" if yes else "False", reason, message, now, facts.state.policy.generation
    )


def _named(what: str, names: Sequence[str]) -> str:
    return f"{what} {names[0]}" if len(names) == 1 else f"{what}s {', '.join(names)}"
