"""A run that is being deleted: its Jobs are stopped with a checkpoint; garbage collection does the rest."""

from __future__ import annotations

from datetime import datetime

from tollgate.contract import StopReason
from tollgate_operator.decision import Decision
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.stopping import end_job


def deletion(situation: Situation, now: datetime) -> Decision | None:
    """Stop everything and start nothing. The status is left alone: it goes with the run."""
    if situation.run.deleting is None:
        return None
    alive = [j for j in situation.jobs if not (j.finished or j.deleting or j.stop_reason)]
    return Decision(before=tuple(end_job(job, StopReason.DELETED) for job in alive))
