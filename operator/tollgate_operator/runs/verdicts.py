"""Verdicts of a run: its policy against the copy of the evidence that stands in its status."""

from __future__ import annotations

from tollgate.api.training_run import TrainingRunStatus
from tollgate.gates.verdict import Expected, judge
from tollgate_operator.runs.situation import Situation


def judged(situation: Situation, status: TrainingRunStatus) -> TrainingRunStatus:
    """The status with one verdict per stage; without a policy it stays as it is. No evidence is Inconclusive."""
    policy = situation.policy.spec if situation.policy else None
    if policy is None:
        return status
    baseline = situation.baseline.status.evaluation if situation.baseline else None
    expected = Expected(model=status.model.digest if status.model else None, manifest=status.manifest_digest)
    return status.model_copy(update={"gates": judge(policy, status.evaluation, baseline, expected)})


def summary(status: TrainingRunStatus) -> str:
    """`staging Passed, production Inconclusive`; empty without gates."""
    return ", ".join(f"{gate.stage} {gate.verdict}" for gate in status.gates)
