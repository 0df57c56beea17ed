"""A run whose spec or status cannot be read is left as it is: what is not understood is not acted on."""

from __future__ import annotations

from datetime import datetime

from tollgate_operator.decision import Decision
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.status import refused


def readable(situation: Situation, now: datetime) -> Decision | None:
    """With an unreadable status nothing may start, for it may hold attempts; what runs keeps its offline layers."""
    if situation.run.status_problem:
        return Decision()
    if situation.run.spec is None:
        if situation.current is not None or situation.terminal:
            return Decision()
        return Decision(status=refused(situation, now, "InvalidSpec", situation.run.spec_problem))
    return None
