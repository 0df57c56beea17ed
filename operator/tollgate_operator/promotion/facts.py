"""What was observed of a PromotionPolicy: itself, the runs under it, and the ConfigMaps of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from tollgate.api.promotion_policy import KIND, PromotionPolicyStatus
from tollgate_operator.facts import Key, PolicyFacts, RunFacts
from tollgate_operator.reading import instant, mapping, problem_text, text


@dataclass(frozen=True, slots=True)
class PolicyState:
    """A PromotionPolicy as a whole. `status_problem`: why the status cannot be read; then nothing is promoted."""

    policy: PolicyFacts
    resource_version: str
    deleting: datetime | None
    status: PromotionPolicyStatus
    status_problem: str = ""

    @property
    def key(self) -> Key:
        """What the queue holds for it."""
        return Key(KIND, self.policy.namespace, self.policy.name)

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> PolicyState:
        """The view of a PromotionPolicy as the API server sent it."""
        meta = mapping(body.get("metadata"))
        status, problem = PromotionPolicyStatus(), ""
        try:
            status = PromotionPolicyStatus.model_validate(mapping(body.get("status")))
        except ValidationError as error:
            problem = problem_text("status", error)
        return cls(
            policy=PolicyFacts.from_object(body),
            resource_version=text(meta.get("resourceVersion")),
            deleting=instant(meta.get("deletionTimestamp")),
            status=status,
            status_problem=problem,
        )


@dataclass(frozen=True, slots=True)
class PromotionFacts:
    """All that a decision about one policy rests on.

    `runs`: those whose policyRef names the policy. `projected`: the data of each stage's ConfigMap as it is now, read
    live; a stage whose ConfigMap does not exist, or is not labelled as ours, is absent.
    """

    state: PolicyState
    runs: tuple[RunFacts, ...]
    projected: Mapping[str, Mapping[str, str]]
