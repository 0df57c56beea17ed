"""What was observed of a PromotionPolicy: its spec, and its status as the operator wrote it last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from tollgate.api.promotion_policy import KIND, PromotionPolicyStatus
from tollgate_operator.facts import Key, PolicyFacts
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
