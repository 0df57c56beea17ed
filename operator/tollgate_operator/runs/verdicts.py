"""Verdicts of a run: its policy against the copy of the evidence that stands in its status."""

from __future__ import annotations

from tollgate.api.training_run import EvaluationState, TrainingRunStatus
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


def sentence(status: TrainingRunStatus) -> str:
    """What a run that succeeded says: how far it trained, what became of its evaluation, and its verdicts."""
    steps = f"trained to step {status.progress.step}" if status.progress else "trained"
    evaluation = status.evaluation
    failed = evaluation.message if evaluation is not None and evaluation.state is EvaluationState.FAILED else ""
    return "; ".join(part for part in (steps, failed, summary(status)) if part)
