"""Which run holds a stage: a function of what is there, never of the order of events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tollgate.api.promotion_policy import PromotionPolicySpec, StageStatus
from tollgate.api.training_run import GateStatus


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run under the policy, as far as promotion is concerned. `label`: value of tollgate.dev/promote-to, None without.

    A run that is not evaluated yet is a candidate too, with what is unknown left None.
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


def hold(
    policy: PromotionPolicySpec,
    policy_digest: str,
    candidates: Iterable[Candidate],
    current: Sequence[StageStatus],
    now: datetime,
) -> list[StageStatus]:
    """Who holds each stage now, in the policy's order.

    Of the runs that carry the stage's label and pass, the newest (creation time, then uid). Nobody asks, or nobody who asks
    passes: the stage stays as it is, and its message says so. maxAge counts for a run that would come in, not for the holder.
    """
    raise NotImplementedError


def unknown_requests(policy: PromotionPolicySpec, candidates: Iterable[Candidate]) -> list[str]:
    """One sentence for each label that names no stage of the policy."""
    raise NotImplementedError
