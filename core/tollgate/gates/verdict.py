"""From evidence to verdicts: a pure truth table. No evidence, no promotion."""

from __future__ import annotations

from dataclasses import dataclass

from tollgate.api.promotion_policy import PromotionPolicySpec
from tollgate.api.training_run import EvaluationStatus, GateStatus


@dataclass(frozen=True, slots=True)
class Expected:
    """The digests that evidence must be about. model and manifest are demanded; dataset and suite are compared when known."""

    model: str | None
    manifest: str | None
    dataset: str | None = None
    suite: str | None = None


def strictest_confidence(policy: PromotionPolicySpec) -> float:
    """The highest confidence any check asks for; the evaluation Job measures its intervals with it."""
    raise NotImplementedError


def judge(
    policy: PromotionPolicySpec,
    evidence: EvaluationStatus | None,
    baseline: EvaluationStatus | None,
    expected: Expected,
) -> list[GateStatus]:
    """One verdict per stage, in the policy's order. Every check is evaluated; see docs/design/gates.md for the table."""
    raise NotImplementedError
