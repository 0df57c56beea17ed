"""Which run holds a stage: a function of what is there, never of the order of events.

Of the runs under a policy that carry the stage's label and pass, the newest holds it (creation time, then uid). So a
pipeline that labels each new run promotes whatever passes, a run whose gate fails changes nothing, and the rollback is
to take the label off the bad run. The policy's status is the truth: while nobody asks, or nobody who asks passes, the
stage keeps what it has, also when the holder's run is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tollgate.api.promotion_policy import Holder, PromotionPolicySpec, Stage, StageStatus
from tollgate.api.quantities import format_duration
from tollgate.api.training_run import GateStatus
from tollgate.contract import LABEL_PROMOTE_TO

CLOCK_SKEW = timedelta(minutes=5)  # evidence from further ahead has no age that could be trusted


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run under the policy, as promotion sees it. `label`: value of tollgate.dev/promote-to, None without.

    A run that is not evaluated yet is a candidate too, with what is unknown left None. `gates`: its verdicts, of which
    those count that were made under the present policy and from the present evidence.
    """

    name: str
    uid: str
    created: datetime
    label: str | None
    gates: Sequence[GateStatus] = ()
    model_path: str | None = None
    model_uri: str | None = None
    model_digest: str | None = None
    evidence_digest: str | None = None
    evaluated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a candidate that asks gets. `waits`: its verdict is of another policy or evidence and will be made anew."""

    holder: Holder | None = None
    waits: bool = False
    reason: str = ""


def hold(
    policy: PromotionPolicySpec,
    policy_digest: str,
    candidates: Iterable[Candidate],
    current: Sequence[StageStatus],
    now: datetime,
) -> list[StageStatus]:
    """Who holds each stage now, in the policy's order; the same for any order and repetition of the candidates.

    maxAge counts for a run that would come in, not for the one that holds the stage. A run whose verdict has still to
    be made anew, because the policy or its evidence changed, blocks older ones: otherwise the order of judging would
    show. A stage that asks for approvals is refused in this version. A stage that the policy no longer has, but that is
    held, stays on record behind the others.
    """
    unique = {candidate.uid: candidate for candidate in candidates}
    newest_first = sorted(unique.values(), key=lambda c: (c.created, c.uid), reverse=True)
    before = {status.name: status for status in current}
    stages = [
        _stage(stage, policy, policy_digest, newest_first, before.get(stage.name, StageStatus(name=stage.name)), now)
        for stage in policy.stages
    ]
    names = {stage.name for stage in policy.stages}
    gone = [
        status.model_copy(
            update={"message": "the policy no longer has this stage; its holder stands here for the record"}
        )
        for status in current
        if status.name not in names and status.holder is not None
    ]
    return [*stages, *gone]


def unknown_requests(policy: PromotionPolicySpec, candidates: Iterable[Candidate]) -> list[str]:
    """One sentence for each run whose label names no stage of the policy, ordered by the run's name."""
    names = [stage.name for stage in policy.stages]
    return [
        f"run {c.name} asks for stage {c.label}, which the policy does not have; it has {', '.join(names)}"
        for c in sorted(candidates, key=lambda c: c.name)
        if c.label is not None and c.label not in names
    ]


def _stage(
    stage: Stage,
    policy: PromotionPolicySpec,
    policy_digest: str,
    newest_first: Sequence[Candidate],
    before: StageStatus,
    now: datetime,
) -> StageStatus:
    if stage.approvals.min > 0:
        return _stays(
            before,
            newest_first,
            f"the stage asks for {stage.approvals.min} approvals, which this version cannot check; set min to 0",
        )
    asking = [candidate for candidate in newest_first if candidate.label == stage.name]
    if not asking:
        return _stays(before, newest_first, f"no run asks for it (label {LABEL_PROMOTE_TO}: {stage.name})")
    refused: list[str] = []
    for candidate in asking:
        answer = _answer(candidate, stage, policy, policy_digest, before.holder, now)
        if answer.waits:
            return _stays(before, newest_first, answer.reason)
        if answer.holder is not None:
            return _held(before, answer.holder, refused)
        refused.append(answer.reason)
    return _stays(before, newest_first, refused[0])


def _held(before: StageStatus, holder: Holder, refused: Sequence[str]) -> StageStatus:
    message = f"{refused[0]}; {holder.run} is the newest that passes" if refused else ""
    old = before.holder
    if old is not None and (old.run_uid, old.model_digest) == (holder.run_uid, holder.model_digest):
        # The same model: nothing was promoted, even if it was evaluated again or lies elsewhere now.
        return before.model_copy(update={"holder": holder.model_copy(update={"since": old.since}), "message": message})
    return StageStatus(name=before.name, holder=holder, previous=old or before.previous, message=message)


def _stays(before: StageStatus, candidates: Sequence[Candidate], why: str) -> StageStatus:
    if before.holder is None:
        return before.model_copy(update={"message": f"{why}; nothing is promoted"})
    there = any(candidate.uid == before.holder.run_uid for candidate in candidates)
    gone = "" if there else ", though that run is gone"
    return before.model_copy(update={"message": f"{why}; {before.holder.run} stays{gone}"})


def _answer(
    candidate: Candidate,
    stage: Stage,
    policy: PromotionPolicySpec,
    policy_digest: str,
    holder: Holder | None,
    now: datetime,
) -> _Answer:
    name = candidate.name
    if not candidate.gates:
        return _Answer(reason=f"run {name} asks, but has no verdict yet")
    if any(g.policy_digest != policy_digest or g.evidence_digest != candidate.evidence_digest for g in candidate.gates):
        return _Answer(
            waits=True, reason=f"run {name} asks, and is to be judged anew by the changed policy or evidence"
        )
    gates = _by_stage(candidate.gates)
    for needed in [stage.name, *_required(stage, policy)]:
        gate = gates.get(needed)
        if gate is None:
            return _Answer(reason=f"run {name} asks, but has no single verdict for stage {needed}")
        if gate.verdict != "Passed":
            said = f": {gate.reason}" if gate.reason else ""
            return _Answer(reason=f"run {name} asks, but stage {needed} is {gate.verdict}{said}")
    if not (candidate.model_path and candidate.model_uri and candidate.model_digest and candidate.evidence_digest):
        return _Answer(reason=f"run {name} asks, but its model or evidence is not known")
    holds_now = holder is not None and (holder.run_uid, holder.model_digest) == (candidate.uid, candidate.model_digest)
    if stage.max_age is not None and not holds_now and (stale := _stale(candidate, stage.max_age, now)):
        return _Answer(reason=stale)
    return _Answer(
        holder=Holder(
            run=name,
            run_uid=candidate.uid,
            model_path=candidate.model_path,
            model_uri=candidate.model_uri,
            model_digest=candidate.model_digest,
            evidence_digest=candidate.evidence_digest,
            since=now,
        )
    )


def _stale(candidate: Candidate, max_age: int, now: datetime) -> str:
    """Why the evidence is too old to come in, "" when it is not. The text does not change while time passes."""
    at = candidate.evaluated_at
    if at is None:
        return f"run {candidate.name} asks, but nobody knows when it was evaluated, and the stage has a maxAge"
    when = at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if at > now + CLOCK_SKEW:
        return f"run {candidate.name} asks, but its evidence is dated {when}, which is still to come; mend the clock"
    if now - at > timedelta(seconds=max_age):
        return (
            f"run {candidate.name} asks, but its evidence of {when} is older than maxAge {format_duration(max_age)}; "
            "evaluate it again"
        )
    return ""


def _by_stage(gates: Sequence[GateStatus]) -> Mapping[str, GateStatus]:
    """The verdicts by stage, without those that stand there twice."""
    names = [gate.stage for gate in gates]
    return {gate.stage: gate for gate in gates if names.count(gate.stage) == 1}


def _required(stage: Stage, policy: PromotionPolicySpec) -> list[str]:
    """All stages that this one requires, directly or through others."""
    by_name = {other.name: other for other in policy.stages}
    reached: list[str] = []
    waiting = list(stage.requires)
    while waiting:
        name = waiting.pop(0)
        if name in reached or name == stage.name:
            continue
        reached.append(name)
        waiting += by_name[name].requires if name in by_name else []
    return reached
